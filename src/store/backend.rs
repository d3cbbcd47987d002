//! Selection of the store by the URL of the database.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Database, Pool};

use super::{RecordStore, SqliteStore, StoreError, StoreOptions, postgres::PostgresStore};

/// Returns the store at `url`. It connects on first use.
///
/// # Errors
/// [`StoreError::Url`] if the URL names no store, or not a usable one.
pub fn open(
    url: &SecretString,
    options: &StoreOptions,
) -> Result<Box<dyn RecordStore>, StoreError> {
    let url = url.expose_secret();
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => Ok(Box::new(PostgresStore::open(url, options)?)),
        Some("sqlite") => Ok(Box::new(SqliteStore::open(url, options)?)),
        _ => Err(StoreError::Url(
            "unknown scheme; give postgres://… or sqlite://…".to_owned(),
        )),
    }
}

/// Returns the numbers of idle and of used connections.
pub(super) fn idle_and_used<DB: Database>(pool: &Pool<DB>) -> (u32, u32) {
    let all = pool.size();
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(all);
    (idle, all - idle)
}
