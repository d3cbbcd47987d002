//! Settings of a session, and checks of the server by one.

use rand::Rng as _;
use sqlx::{
    AssertSqlSafe, Connection as _, Decode, Executor as _, PgConnection, Postgres, Row as _, Type,
};

use super::{super::StoreError, load};
use crate::system_random::os_rng;
use otpd_rules::RecordKey;

/// Settings of every session. Those of the planner keep a plan right, whatever the tables held when
/// it was made. Requests only find rows by their keys and join them with a batch.
pub const SESSION_OPTIONS: [(&str, &str); 6] = [
    // Every statement is a complete compare-and-set, so a stricter level, which the database may
    // have as its default, adds conflicts and no safety.
    ("default_transaction_isolation", "read committed"),
    // A plan for the present number of keys may scan the whole table if that number is large. A
    // generic plan is made once and kept.
    ("plan_cache_mode", "force_generic_plan"),
    // A plan that was made while the table was empty would scan it, and be kept while the table
    // grows.
    ("enable_seqscan", "off"),
    // A plan that was made while the table had one row would go through the whole batch for each
    // row. A hash table of the batch is right for every size.
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    // Compilation takes longer than the compiled statement.
    ("jit", "off"),
];

/// Size of the row that [`probe_write`] writes: about that of a request's row.
const PROBE_ROW_BYTES: usize = 1_024;

/// Order in which two connections are asked for their session. A pooler that gives each transaction
/// the next session of a list, whatever its length, cannot answer all of these as two sessions
/// would.
const SESSION_PROBE_SEQUENCE: [usize; 6] = [0, 0, 1, 0, 1, 1];

/// Applies [`SESSION_OPTIONS`] to a new session. It uses a statement, because poolers do not pass on
/// the options of a connection.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let settings = SESSION_OPTIONS.map(|(name, value)| format!("SET {name} = '{value}';"));
    connection.execute(AssertSqlSafe(settings.concat())).await?;
    Ok(())
}

/// Returns the single value of a statement. The statement is not prepared, because that may fail if
/// a pooler shares sessions, which is not known yet.
async fn fetch_scalar<T>(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<T, sqlx::Error>
where
    T: for<'a> Decode<'a, Postgres> + Type<Postgres>,
{
    sqlx::raw_sql(statement)
        .fetch_one(connection)
        .await?
        .try_get(0)
}

/// Verifies that the server accepts writes. A standby does not, nor does a server that its operator,
/// or a full disk, made read-only.
pub(super) async fn ensure_writable(connection: &mut PgConnection) -> Result<(), StoreError> {
    let read_only: String = fetch_scalar(connection, "SHOW transaction_read_only").await?;
    if read_only == "off" {
        Ok(())
    } else {
        let problem = "the database is read-only".to_owned();
        Err(StoreError::Unavailable(problem))
    }
}

/// Returns the timeline of the server: the number of promotions of a standby before its present
/// writes. Of two servers that both accept writes, the one that was promoted last is the primary.
/// Zero if the server does not report it.
pub(super) async fn timeline(connection: &mut PgConnection) -> i64 {
    // The timeline is the first eight hexadecimal digits of the name.
    let name: Result<String, _> =
        fetch_scalar(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    name.ok()
        .and_then(|name| i64::from_str_radix(name.get(..8)?, 16).ok())
        .unwrap_or_default()
}

/// Verifies that the database loads a record as requests do first, and accepts writes.
pub(super) async fn ping(connection: &mut PgConnection) -> Result<(), StoreError> {
    // No recipient has this key.
    let unused_key: [&[u8]; 1] = [&[0; size_of::<RecordKey>()]];
    load::load(connection, &unused_key, &[]).await?;
    ensure_writable(connection).await
}

/// Verifies that the database accepts the writes of a request, and rolls them back. Only a write
/// detects a full disk, a lock or a missing permission.
///
/// It consumes the connection. If it is cancelled while a transaction begins, that transaction stays
/// open and sqlx does not know of it. A pool would take such a connection back, and later writes on
/// it would be acknowledged and never committed.
pub(super) async fn probe_write(mut connection: PgConnection) -> Result<(), StoreError> {
    let mut key = [0; size_of::<RecordKey>()];
    os_rng().fill_bytes(&mut key);
    let padding = [0; PROBE_ROW_BYTES];
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "INSERT INTO otp_record (
             record_key, version, caller, purpose, challenge, state, channel, created_at,
             expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at,
             memory, written_at, removable_at
         ) VALUES ($1, 0, '', '', $2, 'spent', '', 0, 0, 0, 0, 0, 0, 0, 0, $3, 0, 0)",
        &key[..],
        &key[..16],
        &padding[..],
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "INSERT INTO otp_message (
             record_key, message_id, version, challenge, channel, predecessors, state,
             provider, history, created_at, updated_at, expires_at, removable_at
         ) VALUES ($1, $2, 0, $2, '', 0, 'dropped', '', $3, 0, 0, 0, 0)",
        &key[..],
        &key[..16],
        &padding[..],
    )
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.rollback().await?)
}

/// Verifies that two connections are two sessions, as they are without a pooler or with one in
/// session mode. In transaction mode, settings and prepared statements would be those of another
/// client.
pub(super) async fn ensure_session_pooling(
    first: &mut PgConnection,
    second: &mut PgConnection,
) -> Result<(), StoreError> {
    let mut sessions = [None; 2];
    for number in SESSION_PROBE_SEQUENCE {
        let connection = if number == 0 {
            &mut *first
        } else {
            &mut *second
        };
        let session: i32 = fetch_scalar(connection, "SELECT pg_backend_pid()").await?;
        let before = sessions[number].replace(session);
        if before.is_some_and(|before| before != session) || sessions[0] == sessions[1] {
            return Err(StoreError::Unavailable(
                "a pooler before the database gives each transaction another session; \
                 set it to pool by session (PgBouncer: pool_mode = session), \
                 or name the database itself in DATABASE_URL"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}
