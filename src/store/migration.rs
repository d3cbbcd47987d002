//! Migrator that all stores share.

use sqlx::migrate::Migrator;

/// Returns a migrator for the `embedded` migrations. It ignores applied migrations that it does
/// not know, because a newer version may have migrated the schema further already.
pub(super) fn migrator(embedded: &Migrator) -> Migrator {
    let mut migrator = Migrator::with_migrations(embedded.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name(embedded.table_name.clone());
    migrator
}
