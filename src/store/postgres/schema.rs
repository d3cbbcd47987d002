//! The schema of this version.

use std::time::Duration;

use sqlx::{PgConnection, migrate::Migrator};

use super::super::{StoreError, in_time, migration::up_to_date};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Runs the migrations that are missing by `connection`, however long they take while
/// `witness`, another session, sees that they are still at it.
pub(super) async fn bring_up_to_date(
    connection: &mut PgConnection,
    witness: &mut PgConnection,
    patience: Duration,
) -> Result<(), StoreError> {
    // Where nothing is to be done, the right to do it is not needed either: a server's
    // user need not be the owner of the schema.
    if in_time(patience, is_up_to_date(connection)).await? {
        return Ok(());
    }
    let session = async {
        let asked = sqlx::query_scalar("SELECT pg_backend_pid()");
        Ok(asked.fetch_one(&mut *connection).await?)
    };
    let session: i32 = in_time(patience, session).await?;
    // Of replicas that start together one does the work: sqlx takes an advisory lock.
    let migrated = async {
        let done = up_to_date(&MIGRATOR).run(connection).await;
        done.map_err(|error| StoreError::Unavailable(format!("migration failed: {error}")))
    };
    tokio::select! {
        migrated = migrated => migrated,
        lost = end_of_session(session, witness, patience) => Err(lost),
    }
}

async fn is_up_to_date(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let applied: Result<Vec<(i64, Vec<u8>)>, _> =
        sqlx::query_as("SELECT version, checksum FROM otp_migrations WHERE success")
            .fetch_all(connection)
            .await;
    match applied {
        Ok(applied) => Ok(MIGRATOR.iter().all(|migration| {
            applied.iter().any(|(version, checksum)| {
                *version == migration.version && checksum[..] == migration.checksum[..]
            })
        })),
        // There is no such table yet.
        Err(sqlx::Error::Database(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a session is gone, or nobody can tell.
async fn end_of_session(
    session: i32,
    witness: &mut PgConnection,
    patience: Duration,
) -> StoreError {
    loop {
        tokio::time::sleep(patience).await;
        let asked = async {
            let seen =
                sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)");
            Ok(seen.bind(session).fetch_one(&mut *witness).await?)
        };
        match in_time(patience, asked).await {
            Ok(true) => {}
            Ok(false) => {
                return StoreError::Unavailable("the session that migrated is gone".to_owned());
            }
            Err(error) => return error,
        }
    }
}
