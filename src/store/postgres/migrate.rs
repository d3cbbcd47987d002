//! Migration of the schema.

use std::time::Duration;

use sqlx::{PgConnection, migrate::Migrator};

use super::super::{StoreError, migration, with_timeout};
use otpd_base::log_targets::STATE_CHANGE;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Runs the missing migrations on `connection`. They may take any time, as long as `watchdog`, a
/// second session, sees that they still run. Other statements take at most `timeout`.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    watchdog: &mut PgConnection,
    timeout: Duration,
) -> Result<(), StoreError> {
    // Without a missing migration the user needs no right to migrate, so that it need not be the
    // owner of the schema.
    if with_timeout(timeout, is_up_to_date(connection)).await? {
        return Ok(());
    }
    let session = async {
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()");
        Ok(pid.fetch_one(&mut *connection).await?)
    };
    let session: i32 = with_timeout(timeout, session).await?;
    // sqlx takes an advisory lock, so that one of several replicas that start together migrates.
    tokio::select! {
        migrated = migration::run(&MIGRATOR, connection) => migrated,
        lost = wait_for_session_end(session, watchdog, timeout) => Err(lost),
    }
}

async fn is_up_to_date(connection: &mut PgConnection) -> Result<bool, StoreError> {
    // Checked first, because a query of a missing table is an error in the server's log.
    let table_exists: bool = sqlx::query_scalar("SELECT to_regclass('otp_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !table_exists {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM otp_migrations WHERE success")
            .fetch_all(connection)
            .await?;
    Ok(MIGRATOR.iter().all(|migration| {
        applied.iter().any(|(version, checksum)| {
            *version == migration.version && checksum[..] == migration.checksum[..]
        })
    }))
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
            let blockers = sqlx::query_scalar(
                "SELECT pg_blocking_pids(pid) FROM pg_stat_activity WHERE pid = $1",
            );
            Ok(blockers
                .bind(session)
                .fetch_optional(&mut *watchdog)
                .await?)
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
