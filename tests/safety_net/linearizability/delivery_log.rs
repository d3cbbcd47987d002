//! Log of message ends and code deaths, written by triggers in PostgreSQL, so that the
//! check does not depend on the data of otpd: the end of each message, with the state of
//! its code then, and the death of each code.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// Interval of the query for messages that are not final. A notification instead would need a
/// lock that all commits wait for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum time until a message is final: the lease of a replica that died ends 10 s after its
/// last write, and the next replica may fail, too.
const FINAL_STATE_TIMEOUT: Duration = Duration::from_secs(45);

/// Final state of a message.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Ended {
    pub message_id: Vec<u8>,
    pub challenge: Vec<u8>,
    pub state: String,
    /// Time of the send.
    pub created_at: i64,
    /// Time of the final state, by the replica's reading of the store's clock.
    pub updated_at: i64,
    /// Time at which its code expires.
    pub expires_at: i64,
    /// True if its code was live when the final state was written.
    pub code_lived: bool,
    /// Time at which its code ended before it expired.
    pub code_died_at: Option<i64>,
}

impl Ended {
    /// Returns the time at which its code ended, or will end.
    pub fn death(&self) -> i64 {
        self.code_died_at
            .map_or(self.expires_at, |died| died.min(self.expires_at))
    }
}

/// Installs the triggers in the database of `url`, which has the tables of otpd.
pub async fn install(url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("PostgreSQL runs");
    connection
        .execute(
            "CREATE TABLE test_death (record_key bytea, challenge bytea, died_at bigint);
             CREATE INDEX ON test_death (record_key);
             CREATE FUNCTION test_note_death() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 -- Not the time of the decision, which may be much earlier than the write.
                 INSERT INTO test_death
                 SELECT OLD.record_key, OLD.challenge, now FROM otp_clock;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER test_note_death AFTER UPDATE ON otp_record FOR EACH ROW
             WHEN (OLD.state = 'live' AND (NEW.state, NEW.challenge) <> ('live', OLD.challenge))
             EXECUTE FUNCTION test_note_death();

             CREATE TABLE test_end (
                 record_key bytea, message_id bytea, challenge bytea, state text,
                 created_at bigint, updated_at bigint, expires_at bigint, code_lived boolean
             );
             CREATE INDEX ON test_end (record_key);
             CREATE FUNCTION test_note_end() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO test_end VALUES (
                     NEW.record_key, NEW.message_id, NEW.challenge, NEW.state, NEW.created_at,
                     NEW.updated_at, NEW.expires_at, EXISTS (
                         SELECT FROM otp_record AS record, otp_clock AS clock
                         WHERE record.record_key = NEW.record_key
                             AND record.challenge = NEW.challenge AND record.state = 'live'
                             AND clock.now < record.expires_at
                     )
                 );
                 RETURN NULL;
             END $$;
             -- Also writes after the final state, of which there must be none.
             CREATE TRIGGER test_note_end AFTER UPDATE ON otp_message FOR EACH ROW
             WHEN (OLD.due_at IS NULL OR NEW.due_at IS NULL)
             EXECUTE FUNCTION test_note_end();",
        )
        .await
        .expect("the tables of otpd exist");
}

/// Returns the final states of the messages of a record, as soon as all are final.
///
/// # Errors
/// Some messages are not final after the timeout.
pub async fn ends(
    url: &str,
    up: &watch::Sender<bool>,
    record_key: &[u8],
) -> Result<Vec<Ended>, String> {
    let start = Instant::now();
    let mut turns = interval(POLL_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let mut is_up = up.subscribe();
        // The sender is borrowed, so it is not dropped.
        let _ = is_up.wait_for(|up| *up).await;
        // The database may crash meanwhile; its tables are durable.
        match query(url, record_key).await {
            Ok((0, ends)) => return Ok(ends),
            Ok((pending, _)) if start.elapsed() > FINAL_STATE_TIMEOUT => {
                return Err(format!("{pending} messages are not final"));
            }
            Err(error) if start.elapsed() > FINAL_STATE_TIMEOUT => return Err(error.to_string()),
            Ok(_) | Err(_) => {}
        }
    }
}

async fn query(url: &str, record_key: &[u8]) -> Result<(i64, Vec<Ended>), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let pending = sqlx::query_scalar(
        "SELECT count(*) FROM otp_message WHERE record_key = $1 AND due_at IS NOT NULL",
    )
    .bind(record_key)
    .fetch_one(&mut connection)
    .await?;
    let ends = sqlx::query_as(
        "SELECT message_id, challenge, state, created_at, updated_at, expires_at, code_lived,
             (SELECT min(died_at) FROM test_death AS death
              WHERE death.record_key = test_end.record_key
                  AND death.challenge = test_end.challenge) AS code_died_at
         FROM test_end WHERE record_key = $1",
    )
    .bind(record_key)
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    Ok((pending, ends))
}
