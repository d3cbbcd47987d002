//! What every store's migrations have in common.

use sqlx::migrate::Migrator;

/// The migrations of this version. Those of a newer one, which may have brought the
/// schema further already, are none of its business.
pub(super) fn migrator(embedded: &Migrator) -> Migrator {
    let mut migrator = Migrator::with_migrations(embedded.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name(embedded.table_name.clone());
    migrator
}
