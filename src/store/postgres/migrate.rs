//! The schema of this version.

use std::time::Duration;

use sqlx::{PgConnection, migrate::Migrator};

use super::super::{StoreError, migration::migrator, with_timeout};
use crate::log_targets::STATE_CHANGE;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Runs the migrations that are missing by `connection`, however long they take while
/// `witness`, another session, sees that they are still at it.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    witness: &mut PgConnection,
    patience: Duration,
) -> Result<(), StoreError> {
    // Where nothing is to be done, the right to do it is not needed either: a server's
    // user need not be the owner of the schema.
    if with_timeout(patience, is_up_to_date(connection)).await? {
        return Ok(());
    }
    let session = async {
        let asked = sqlx::query_scalar("SELECT pg_backend_pid()");
        Ok(asked.fetch_one(&mut *connection).await?)
    };
    let session: i32 = with_timeout(patience, session).await?;
    // Of replicas that start together one does the work: sqlx takes an advisory lock.
    let migrated = async {
        let done = migrator(&MIGRATOR).run(connection).await;
        done.map_err(|error| StoreError::Unavailable(format!("migration failed: {error}")))
    };
    tokio::select! {
        migrated = migrated => migrated,
        lost = wait_for_session_end(session, witness, patience) => Err(lost),
    }
}

async fn is_up_to_date(connection: &mut PgConnection) -> Result<bool, StoreError> {
    // Asked beforehand, because a query of a missing table is an error in the server's log.
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('otp_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
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

/// Waits until the session that migrates is gone, or cannot be seen. Meanwhile it logs that
/// the migration takes time, and which sessions block it.
async fn wait_for_session_end(
    session: i32,
    witness: &mut PgConnection,
    patience: Duration,
) -> StoreError {
    let mut reported = None;
    loop {
        tokio::time::sleep(patience).await;
        let asked = async {
            let seen = sqlx::query_scalar(
                "SELECT pg_blocking_pids(pid) FROM pg_stat_activity WHERE pid = $1",
            );
            Ok(seen.bind(session).fetch_optional(&mut *witness).await?)
        };
        let blocked_by: Vec<i32> = match with_timeout(patience, asked).await {
            Ok(Some(sessions)) => sessions,
            Ok(None) => {
                return StoreError::Unavailable("the session that migrated is gone".to_owned());
            }
            Err(error) => return error,
        };
        if reported.as_ref() != Some(&blocked_by) {
            report(&blocked_by);
            reported = Some(blocked_by);
        }
    }
}

/// Logs why a migration is not done yet.
fn report(blocked_by: &[i32]) {
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
