//! Migration that all stores share.

use sqlx::migrate::{Migrate, Migrator};

use super::StoreError;

/// Runs the missing migrations of `embedded`. Ignores applied migrations that it does not know,
/// because a newer version may have migrated the schema further already.
pub(super) async fn run(
    embedded: &Migrator,
    connection: &mut (impl Migrate + Send),
) -> Result<(), StoreError> {
    let mut migrator = Migrator::with_migrations(embedded.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name(embedded.table_name.clone());
    // Not `run`: the compiler cannot prove that its future may move between threads.
    let done = migrator.run_direct(None, connection, false).await;
    done.map_err(|error| StoreError::Unavailable(format!("migration failed: {error}")))
}
