//! Log of message ends and code deaths, written by triggers in PostgreSQL, so that the
//! check does not depend on the data of otpd: the end of each message, with the state of
//! its code then, and the death of each code.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often the database is asked whether all messages are final. It could tell by
/// itself, but only by a lock that all its commits would wait for.
const POLL: Duration = Duration::from_millis(100);

/// How long a message may stay under way: until its lease ends, 10 s after the last write
/// of a replica that died, and then a while, because the next one may fail as well.
const PATIENCE: Duration = Duration::from_secs(45);

/// How a message ended.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Ended {
    pub message_id: Vec<u8>,
    pub challenge: Vec<u8>,
    pub state: String,
    /// When it was asked for.
    pub created_at: i64,
    /// When it ended, as its replica knew the store's clock.
    pub updated_at: i64,
    /// When its code was to die.
    pub expires_at: i64,
    /// Whether its code lived when the end was written.
    pub code_lived: bool,
    /// When its code died before that time, if it did.
    pub code_died_at: Option<i64>,
}

impl Ended {
    /// When its code died, or will.
    pub fn death(&self) -> i64 {
        self.code_died_at
            .map_or(self.expires_at, |died| died.min(self.expires_at))
    }
}

/// Has the database of `url`, whose tables are there, note it from now on.
pub async fn install(url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("it runs");
    connection
        .execute(
            "CREATE TABLE test_death (record_key bytea, challenge bytea, died_at bigint);
             CREATE INDEX ON test_death (record_key);
             CREATE FUNCTION test_note_death() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 -- Not when it was decided, since it may be written much later.
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
             -- Also what becomes of a message after its end: nothing may.
             CREATE TRIGGER test_note_end AFTER UPDATE ON otp_message FOR EACH ROW
             WHEN (OLD.due_at IS NULL OR NEW.due_at IS NULL)
             EXECUTE FUNCTION test_note_end();",
        )
        .await
        .expect("the tables are there");
}

/// How the messages of a record ended, as soon as none is under way.
///
/// # Errors
/// That some still are, long after they should.
pub async fn ends(
    url: &str,
    up: &watch::Sender<bool>,
    record_key: &[u8],
) -> Result<Vec<Ended>, String> {
    let start = Instant::now();
    let mut turns = interval(POLL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let mut is_up = up.subscribe();
        // Its sender is borrowed.
        let _ = is_up.wait_for(|up| *up).await;
        // It may crash meanwhile; its log is durable.
        match look(url, record_key).await {
            Ok((0, ends)) => return Ok(ends),
            Ok((under_way, _)) if start.elapsed() > PATIENCE => {
                return Err(format!("{under_way} messages are nobody's"));
            }
            Err(error) if start.elapsed() > PATIENCE => return Err(error.to_string()),
            Ok(_) | Err(_) => {}
        }
    }
}

async fn look(url: &str, record_key: &[u8]) -> Result<(i64, Vec<Ended>), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let under_way = sqlx::query_scalar(
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
    Ok((under_way, ends))
}
