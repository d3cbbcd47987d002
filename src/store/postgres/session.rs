//! Settings of a session, and checks of the server by one.

use std::time::Duration;

use rand::Rng as _;
use sqlx::{
    AssertSqlSafe, Decode, Executor as _, PgConnection, Postgres, Row as _, SqlSafeStr, Type,
};

use super::{super::StoreError, load, pooling::Pooling};
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

/// Share of the timeout of a statement that it may wait for a lock. Locks of other replicas are held
/// for one statement. A row that is locked for longer must not delay the requests about other rows,
/// so the wait leaves time to find that row, and to write the others.
const LOCK_TIMEOUT_DIVISOR: u32 = 4;

/// Size of the row that [`probe_write`] writes: about that of a request's row.
const PROBE_ROW_BYTES: usize = 1_024;

/// Settings of the sessions of one store: [`SESSION_OPTIONS`] and a bound on the wait for locks, as
/// the statements that set them.
#[derive(Clone, Debug)]
pub(super) struct SessionSettings {
    /// For the session.
    pub session: String,
    /// For the present transaction.
    pub transaction: String,
    /// For the role of otpd.
    pub role: String,
}

impl SessionSettings {
    /// Returns the settings for statements that may take `timeout`.
    pub fn new(timeout: Duration) -> Self {
        // Zero would mean no bound.
        let lock_timeout = (timeout / LOCK_TIMEOUT_DIVISOR).max(Duration::from_millis(1));
        let lock_timeout = format!("{}ms", lock_timeout.as_millis());
        let settings = SESSION_OPTIONS.into_iter();
        let settings: Vec<_> = settings.chain([("lock_timeout", &*lock_timeout)]).collect();
        let set = |is_local: bool| {
            let values = settings.iter().map(|(name, value)| {
                format!(
                    "set_config('{name}', {}, {is_local})",
                    expression(name, value)
                )
            });
            format!("SELECT {};", values.collect::<Vec<_>>().join(", "))
        };
        let role = settings
            .iter()
            .map(|(name, value)| format!("ALTER ROLE CURRENT_USER SET {name} = '{value}'"));
        Self {
            session: set(false),
            transaction: set(true),
            role: role.collect::<Vec<_>>().join("; "),
        }
    }

    /// Returns the query of whether a session has them without being asked.
    pub fn query_whether_set() -> AssertSqlSafe<String> {
        let settings = SESSION_OPTIONS.iter().map(|(name, value)| {
            format!("current_setting('{name}') = {}", expression(name, value))
        });
        let settings: Vec<String> = settings.collect();
        AssertSqlSafe(format!(
            "SELECT {} AND current_setting('lock_timeout') <> '0'",
            settings.join(" AND ")
        ))
    }
}

/// Returns the value of a setting as an expression. Citus plans a statement about its shards by the
/// values of the parameters, and fails with a generic plan.
fn expression(name: &str, value: &str) -> String {
    if name == "plan_cache_mode" {
        format!(
            "CASE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') \
             THEN 'auto' ELSE '{value}' END"
        )
    } else {
        format!("'{value}'")
    }
}

/// Returns the single value of a statement. The statement is not prepared, because that may fail if
/// a pooler shares sessions, which is not known yet.
pub(super) async fn fetch_scalar<T>(
    connection: &mut PgConnection,
    statement: impl SqlSafeStr,
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
pub(super) async fn probe_write(
    mut connection: PgConnection,
    pooling: Pooling,
    settings: &SessionSettings,
) -> Result<(), StoreError> {
    let mut key = [0; size_of::<RecordKey>()];
    os_rng().fill_bytes(&mut key);
    let padding = [0; PROBE_ROW_BYTES];
    pooling.begin_transaction(&mut connection, settings).await?;
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
    .execute(&mut connection)
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
    .execute(&mut connection)
    .await?;
    connection.execute("ROLLBACK").await?;
    Ok(())
}
