//! Migration of the schema.

use std::{fmt::Write as _, time::Duration};

use sqlx::{
    AssertSqlSafe, Executor as _, PgConnection, Row as _,
    migrate::{Migration, Migrator},
};
use tokio::time::Instant;

use super::{
    super::{StoreError, with_timeout},
    pooling::fetch_scalar,
    sql_script,
};
use otpd_base::log_targets::STATE_CHANGE;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Key of the lock that the transaction of a migration holds, so that one of several replicas that
/// start together migrates: "otpd" in ASCII. A pooler may give each transaction another session, so
/// the lock cannot be one of the session, as that of sqlx is.
const LOCK_KEY: i64 = 0x6f74_7064;

/// Table of applied migrations, as sqlx creates it.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS otp_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
)";

/// Runs the missing migrations on `connection`. They may take any time, as long as `watchdog`, a
/// second connection, sees that they still run. Other statements take at most `timeout`. No
/// statement is prepared, because a pooler may give each transaction another session.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    watchdog: &mut PgConnection,
    timeout: Duration,
) -> Result<(), StoreError> {
    loop {
        // Without a missing migration the user needs no right to migrate, so that it need not be
        // the owner of the schema.
        let applied = with_timeout(timeout, async { Ok(applied(connection).await?) }).await?;
        let Some(migration) = first_missing(&applied)? else {
            return Ok(());
        };
        let session = with_timeout(timeout, async {
            // Each statement sees what other replicas did while this one waited for the lock.
            let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
            connection.execute(begin).await?;
            // The role may have a bound for requests. A migration waits, which is logged.
            connection.execute("SET LOCAL lock_timeout = 0").await?;
            Ok(fetch_scalar(connection, "SELECT pg_backend_pid()").await?)
        });
        let session: i32 = session.await?;
        tokio::select! {
            applied = apply(migration, connection) => applied.map_err(|error| {
                let version = migration.version;
                StoreError::Unavailable(format!("migration {version} failed: {error}"))
            })?,
            lost = wait_for_session_end(session, watchdog, timeout) => return Err(lost),
        }
    }
}

/// Applied migration.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
    is_complete: bool,
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    // Checked first, because a query of a missing table is an error in the server's log.
    let exists = "SELECT to_regclass('otp_migrations') IS NOT NULL";
    if !fetch_scalar::<bool>(connection, exists).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::raw_sql("SELECT version, checksum, success FROM otp_migrations")
        .fetch_all(connection)
        .await?;
    let applied = |row: &sqlx::postgres::PgRow| {
        Ok(Applied {
            version: row.try_get(0)?,
            checksum: row.try_get(1)?,
            is_complete: row.try_get(2)?,
        })
    };
    rows.iter().map(applied).collect()
}

/// Returns the first migration that is missing. Ignores applied migrations that it does not know,
/// because a newer version may have migrated the schema further already.
fn first_missing(applied: &[Applied]) -> Result<Option<&'static Migration>, StoreError> {
    for migration in MIGRATOR.iter() {
        let version = migration.version;
        let problem = match applied.iter().find(|applied| applied.version == version) {
            None => return Ok(Some(migration)),
            Some(applied) if !applied.is_complete => "was applied in part",
            Some(applied) if applied.checksum[..] != migration.checksum[..] => {
                "was applied with other statements"
            }
            Some(_) => continue,
        };
        return Err(StoreError::Unavailable(format!(
            "migration {version} {problem}; the database needs a restore, or the version of otpd that migrated it"
        )));
    }
    Ok(None)
}

/// Applies a migration in the open transaction, unless another replica was faster, and commits it.
/// Each statement is a message of its own, because Citus refuses several commands in one.
async fn apply(migration: &Migration, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let started_at = Instant::now();
    let lock = format!("SELECT pg_advisory_xact_lock({LOCK_KEY})");
    connection.execute(AssertSqlSafe(lock)).await?;
    connection.execute(CREATE_TABLE).await?;
    let version = migration.version;
    let is_applied =
        format!("SELECT EXISTS (SELECT FROM otp_migrations WHERE version = {version})");
    if !fetch_scalar::<bool>(connection, AssertSqlSafe(is_applied)).await? {
        for statement in sql_script::statements(migration.sql.as_str()) {
            let statement = AssertSqlSafe(statement.to_owned());
            connection.execute(statement).await?;
        }
        let insert = format!(
            "INSERT INTO otp_migrations (version, description, success, checksum, execution_time)
             VALUES ({version}, '{}', TRUE, '\\x{}', {})",
            migration.description.replace('\'', "''"),
            hexadecimal(&migration.checksum),
            started_at.elapsed().as_nanos(),
        );
        connection.execute(AssertSqlSafe(insert)).await?;
    }
    connection.execute("COMMIT").await?;
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Waits until the session that migrates has ended, or cannot be observed, and returns that as the
/// error. Meanwhile logs that the migration takes time, and the sessions that block it.
async fn wait_for_session_end(
    session: i32,
    watchdog: &mut PgConnection,
    timeout: Duration,
) -> StoreError {
    let mut reported = None;
    loop {
        tokio::time::sleep(timeout).await;
        let blockers = async {
            let blockers =
                format!("SELECT pg_blocking_pids(pid) FROM pg_stat_activity WHERE pid = {session}");
            let row = sqlx::raw_sql(AssertSqlSafe(blockers)).fetch_optional(&mut *watchdog);
            let row = row.await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        };
        let blocked_by: Vec<i32> = match with_timeout(timeout, blockers).await {
            Ok(Some(sessions)) => sessions,
            Ok(None) => {
                return StoreError::Unavailable(
                    "the session that ran the migration has ended".to_owned(),
                );
            }
            Err(error) => return error,
        };
        if reported.as_ref() != Some(&blocked_by) {
            log_progress(&blocked_by);
            reported = Some(blocked_by);
        }
    }
}

/// Logs the reason why a migration has not ended yet.
fn log_progress(blocked_by: &[i32]) {
    if blocked_by.is_empty() {
        tracing::info!(target: STATE_CHANGE, "[OTP] Migration is running");
    } else {
        tracing::warn!(
            target: STATE_CHANGE,
            ?blocked_by,
            "[OTP] Migration waits for a lock of other sessions"
        );
    }
}
