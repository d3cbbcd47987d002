//! What a session must be like, and what it is asked to find out.

use rand::{Rng as _, rand_core::UnwrapErr, rngs::SysRng};
use sqlx::{
    AssertSqlSafe, Connection as _, Decode, Executor as _, PgConnection, Postgres, Row as _, Type,
};

use super::{super::StoreError, load};
use otpd_rules::RecordKey;

/// Settings of every session. Those of the planner keep a plan right whatever the tables
/// held when it was made: requests only find rows by their keys and match them with a
/// batch.
pub const SESSION_OPTIONS: [(&str, &str); 6] = [
    // Every statement is a compare-and-set of its own, so that a stricter level, which
    // the database may have as its default, adds conflicts and no safety.
    ("default_transaction_isolation", "read committed"),
    // A plan made for the number of keys at hand may scan the whole table once that
    // number is large. A generic one is made once, and kept.
    ("plan_cache_mode", "force_generic_plan"),
    // One that was made while the table was empty would scan it, and be kept while the
    // table grows.
    ("enable_seqscan", "off"),
    // One that was made while the table had one row would go through the whole batch for
    // each. A hash table of the batch is right for every size.
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    // Compiling takes longer than what is compiled.
    ("jit", "off"),
];

/// How large the row is that [`probe_write`] writes: about what a request writes.
const PROBE_ROW_BYTES: usize = 1_024;

/// In which order two sessions are asked who they are. A pooler that gives each
/// transaction another session, in turn, from a list of whatever length, cannot answer
/// all of these as two sessions would.
const SESSION_PROBE_SEQUENCE: [usize; 6] = [0, 0, 1, 0, 1, 1];

/// Has a new session plan as requests need it. A statement, because poolers do not pass
/// on what a client asks for when it connects.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let ask = SESSION_OPTIONS.map(|(name, value)| format!("SET {name} = '{value}';"));
    connection.execute(AssertSqlSafe(ask.concat())).await?;
    Ok(())
}

/// The one value that a statement yields. It is not prepared: that may fail where a pooler
/// shares sessions, which is yet to be found out.
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

/// Whether the server takes writes. A standby does not, nor does a server that its
/// operator, or a full disk, made read-only.
pub(super) async fn ensure_writable(connection: &mut PgConnection) -> Result<(), StoreError> {
    let read_only: String = fetch_scalar(connection, "SHOW transaction_read_only").await?;
    if read_only == "off" {
        Ok(())
    } else {
        let problem = "the database is read-only".to_owned();
        Err(StoreError::Unavailable(problem))
    }
}

/// How often a standby was promoted before this server wrote: of two servers that both
/// take writes the one that was promoted last is the one that is meant. Zero where the
/// server does not tell.
pub(super) async fn timeline(connection: &mut PgConnection) -> i64 {
    // The first eight hexadecimal digits of the name.
    let name: Result<String, _> =
        fetch_scalar(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    name.ok()
        .and_then(|name| i64::from_str_radix(name.get(..8)?, 16).ok())
        .unwrap_or_default()
}

/// Whether the database does what requests do first, and lets them write.
pub(super) async fn ping(connection: &mut PgConnection) -> Result<(), StoreError> {
    // About a record that is nobody's.
    let nobody: [&[u8]; 1] = [&[0; size_of::<RecordKey>()]];
    load::load(connection, &nobody, &[]).await?;
    ensure_writable(connection).await
}

/// Whether the database takes what a request writes; nothing of it stays. A full disk,
/// a lock or a missing permission is seen by nothing less.
///
/// The connection ends with it. Whoever gives up while a transaction begins leaves one
/// open, of which sqlx does not know: a pool would take such a connection back, and what
/// is then written by it would be acknowledged and never committed.
pub(super) async fn probe_write(mut connection: PgConnection) -> Result<(), StoreError> {
    let mut key = [0; size_of::<RecordKey>()];
    UnwrapErr(SysRng).fill_bytes(&mut key);
    let filling = [0; PROBE_ROW_BYTES];
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "INSERT INTO otp_record (
             record_key, version, caller, purpose, challenge, state, channel, created_at,
             expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at,
             memory, written_at, removable_at
         ) VALUES ($1, 0, '', '', $2, 'spent', '', 0, 0, 0, 0, 0, 0, 0, 0, $3, 0, 0)",
        &key[..],
        &key[..16],
        &filling[..],
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
        &filling[..],
    )
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.rollback().await?)
}

/// Whether two connections are two sessions, as they are without a pooler, or with one
/// in session mode. In its transaction mode, settings and prepared statements are those
/// of whoever came before.
pub(super) async fn ensure_session_pooling(
    one: &mut PgConnection,
    other: &mut PgConnection,
) -> Result<(), StoreError> {
    let mut known = [None; 2];
    for number in SESSION_PROBE_SEQUENCE {
        let connection = if number == 0 { &mut *one } else { &mut *other };
        let session: i32 = fetch_scalar(connection, "SELECT pg_backend_pid()").await?;
        let before = known[number].replace(session);
        if before.is_some_and(|before| before != session) || known[0] == known[1] {
            return Err(StoreError::Unavailable(
                "a pooler before the database gives each transaction another session; \
                 have it pool by session (PgBouncer: pool_mode = session), \
                 or name the database itself in DATABASE_URL"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}
