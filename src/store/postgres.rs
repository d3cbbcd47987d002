//! PostgreSQL: the store that any number of replicas share.

mod census;
mod columns;
mod connect_tls;
mod hosts;
mod load;
mod messages;
mod migrate;
mod pooled_connection;
mod session;
mod url;
mod write;

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::Connection as _;

use super::{
    DeliveredMessage, FoundMessage, LaneCursor, LoadedState, PurgeStats, RecordStore, StoreError,
    StoreOptions, StoreStats, UNENDED_KEPT, WriteBatch, WriteResult, with_timeout,
};
use hosts::HostPool;
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};
use pooled_connection::PooledConnection;
pub use session::SESSION_OPTIONS;

/// What the column full_hour counts in.
const MILLISECONDS_OF_AN_HOUR: i64 = 3_600_000;

/// How often something is read again that the database gave up for another
/// transaction's sake.
const MAX_CONFLICT_RETRIES: u32 = 3;

/// How often a connection is asked for that the server refuses while there are others,
/// and how long one of those is given to become free: statements take milliseconds.
const MAX_ACQUIRE_RETRIES: u32 = 20;
const ACQUIRE_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Records in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    servers: HostPool,
    timeout: Duration,
    max_connections: u32,
    /// Whether the last write failed, or did not end in time, for a reason that may be
    /// the database's.
    cannot_write: AtomicBool,
}

impl PostgresStore {
    /// The store at `url`; connects when it is used.
    ///
    /// # Errors
    /// [`StoreError::Url`] where the URL cannot be read.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        Ok(Self {
            servers: HostPool::open(url, options)?,
            timeout: options.timeout,
            max_connections: options.max_connections,
            cannot_write: AtomicBool::new(false),
        })
    }

    /// Finds the server that takes writes, and brings its schema up to date.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut one = self.servers.connect().await?;
        let mut other = self.servers.connect().await?;
        self.in_time(session::ensure_session_pooling(&mut one, &mut other))
            .await?;
        migrate::migrate(&mut one, &mut other, self.timeout).await?;
        self.in_time(async {
            one.close().await?;
            Ok(other.close().await?)
        })
        .await
    }

    pub(super) async fn hold_to_index_key(&self, ours: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        // Not one of the pool, which may be left over from another server, or from before
        // this one took writes.
        let mut connection = self.servers.connect().await?;
        self.in_time(async {
            sqlx::query!(
                "INSERT INTO otp_index_key (fingerprint) VALUES ($1) ON CONFLICT (only_row) DO NOTHING",
                ours.as_slice(),
            )
            .execute(&mut connection)
            .await?;
            let held = sqlx::query_scalar!("SELECT fingerprint FROM otp_index_key");
            Ok(held.fetch_one(&mut connection).await?)
        })
        .await
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let asked = async { session::ping(&mut *self.acquire().await?).await };
        let alive = self.in_time(asked).await.is_ok();
        if alive && !self.cannot_write.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !alive {
            // The idle connections are of the same age as the one that failed: requests
            // need not find out one by one.
            let pool = self.servers.pool();
            while let Some(idle) = pool.try_acquire() {
                drop(idle.detach());
            }
        }
        // The pool only says that it waited too long, or that a connection that had
        // died while idle is dead; a connection of its own knows better. And it may be
        // another server that takes writes now.
        let mut connection = self.servers.connect().await?;
        self.in_time(session::ping(&mut connection)).await?;
        if self.cannot_write.load(Ordering::Relaxed) {
            self.in_time(session::probe_write(connection)).await?;
            self.cannot_write.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A connection of the pool. Where the server refuses another one, such as after a
    /// change of the password, one of those that there are is waited for.
    async fn acquire(&self) -> Result<PooledConnection, sqlx::Error> {
        let pool = self.servers.pool();
        let mut refusals = 0;
        loop {
            match pool.acquire().await {
                Ok(connection) => return Ok(PooledConnection::new(connection, self.timeout)),
                Err(sqlx::Error::Database(_))
                    if pool.size() > 0 && refusals < MAX_ACQUIRE_RETRIES =>
                {
                    refusals += 1;
                    tokio::time::sleep(ACQUIRE_RETRY_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Awaits the database, but not longer than the configured time-out.
    fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        // In a box at once: what connects is large, and every caller would carry it.
        with_timeout(self.timeout, Box::pin(work))
    }

    pub(super) async fn census(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        self.in_time(async { census::take(&mut *self.acquire().await?, now).await })
            .await
    }

    pub(super) async fn deliveries(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        self.in_time(async { census::deliveries(&mut *self.acquire().await?, &records).await })
            .await
    }

    /// All connections, and the idle ones.
    pub(super) fn connections(&self) -> (u32, usize) {
        let pool = self.servers.pool();
        (pool.size(), pool.num_idle())
    }

    pub(super) async fn close(&self) {
        self.servers.pool().close().await;
    }

    async fn load_once(
        &self,
        records: &[&[u8]],
        limits: &[&[u8]],
    ) -> Result<LoadedState, sqlx::Error> {
        load::load(&mut *self.acquire().await?, records, limits).await
    }
}

impl RecordStore for PostgresStore {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        let limits: Vec<&[u8]> = limits.iter().map(|key| key.0.as_slice()).collect();
        // After a restart of the database each idle connection fails once.
        let tries = self.max_connections + 1;
        let mut result = self.load_once(&records, &limits).await;
        for _ in 1..tries {
            match &result {
                Err(error) if is_end_of_session(error) => {
                    result = self.load_once(&records, &limits).await;
                }
                _ => break,
            }
        }
        Ok(result?)
    }

    async fn write(&self, changes: &WriteBatch) -> Result<WriteResult, StoreError> {
        let doubt = WriteOutcomeGuard(&self.cannot_write);
        let mut connection = self.acquire().await?;
        let written = if changes.limits.is_empty() && changes.records.is_empty() {
            messages::replace(&mut connection, &changes.messages).await
        } else {
            write::write(&mut connection, changes).await
        };
        match written {
            // The server may have become another one's standby. It is found out by the
            // next sign of life; until then nobody else need meet it.
            Err(StoreError::Unavailable(_)) => connection.discard(),
            _ => doubt.disarm(),
        }
        written
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        let mut tries = 0;
        loop {
            tries += 1;
            let loaded = messages::load(&mut *self.acquire().await?, &records).await;
            match loaded {
                Err(StoreError::Conflict(_)) if tries < MAX_CONFLICT_RETRIES => {}
                // Others are faster all the time; for whoever asks it is no answer.
                Err(StoreError::Conflict(cause)) => break Err(StoreError::Unavailable(cause)),
                loaded => break loaded,
            }
        }
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        self.in_time(async { messages::lanes(&mut *self.acquire().await?).await })
            .await
    }

    async fn due_messages(&self, turns: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        self.in_time(async { messages::due(&mut *self.acquire().await?, turns).await })
            .await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        self.in_time(async {
            // Oldest first, which is the order of an index; and deleted in the order of the
            // keys, which is that of whoever writes. An array, because a join would be
            // planned once, for tables as small as they were then.
            let mut connection = self.acquire().await?;
            let records = sqlx::query!(
                "DELETE FROM otp_record
                 WHERE removable_at <= $1 AND record_key = ANY (ARRAY (
                     SELECT record_key FROM otp_record WHERE removable_at <= $1
                     ORDER BY removable_at LIMIT $2
                 ))",
                now.milliseconds(),
                i64::from(limit),
            );
            let records = records.execute(&mut *connection).await?;
            let limits = sqlx::query!(
                "DELETE FROM otp_limit
                 WHERE full_hour < $1 AND limit_key = ANY (ARRAY (
                     SELECT limit_key FROM otp_limit WHERE full_hour < $1
                     ORDER BY full_hour LIMIT $2
                 ))",
                now.milliseconds() / MILLISECONDS_OF_AN_HOUR,
                i64::from(limit),
            );
            let limits = limits.execute(&mut *connection).await?;
            let messages = sqlx::query!(
                "DELETE FROM otp_message
                 WHERE removable_at <= $1 AND (due_at IS NULL OR removable_at <= $3)
                     AND record_key = ANY (ARRAY (
                         SELECT record_key FROM otp_message
                         WHERE removable_at <= $1 AND (due_at IS NULL OR removable_at <= $3)
                         ORDER BY removable_at LIMIT $2
                     ))",
                now.milliseconds(),
                i64::from(limit),
                now.saturating_sub(UNENDED_KEPT).milliseconds(),
            );
            let messages = messages.execute(&mut *connection).await?;
            Ok(PurgeStats {
                records: records.rows_affected(),
                limits: limits.rows_affected(),
                messages: messages.rows_affected(),
            })
        })
        .await
    }
}

/// Holds a write to have failed until it is known better, also where nobody waits for
/// its end any more.
struct WriteOutcomeGuard<'a>(&'a AtomicBool);

impl WriteOutcomeGuard<'_> {
    fn disarm(self) {
        self.0.store(false, Ordering::Relaxed);
        std::mem::forget(self);
    }
}

impl Drop for WriteOutcomeGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the connection or the session behind it had ended (SQLSTATE class 57P:
/// shutdown, crash, or an administrator), which says nothing about the next one.
fn is_end_of_session(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(error, sqlx::Error::Io(_)) || code.is_some_and(|code| code.starts_with("57P"))
}

/// A key of so many bytes, as the schema has it.
fn to_array<const BYTES: usize>(key: Vec<u8>, column: &str) -> Result<[u8; BYTES], sqlx::Error> {
    let corrupt = |_| sqlx::Error::Decode(StoreError::Corrupt(column.to_owned()).into());
    key.try_into().map_err(corrupt)
}
