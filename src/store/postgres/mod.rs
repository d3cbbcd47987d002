//! PostgreSQL store, for any number of replicas.

mod columns;
mod connect_tls;
mod hosts;
mod load;
mod messages;
mod migrate;
mod pooled_connection;
mod pooling;
mod records;
mod session;
mod session_settings;
mod sql_script;
mod stats;
mod url;
mod write;

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::Connection as _;

use super::{
    DeliveredMessage, FoundMessage, LaneCursor, LoadedState, LockedRows, PurgeStats, RecordStore,
    StoreError, StoreOptions, StoreStats, UNFINISHED_MESSAGE_RETENTION, WriteBatch, WriteResult,
    backend::idle_and_used, with_timeout,
};
use hosts::HostPool;
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};
pub use session_settings::SESSION_OPTIONS;

/// Unit of the column `full_hour` in milliseconds.
const MILLISECONDS_OF_AN_HOUR: i64 = 3_600_000;

/// Maximum number of times that a read is tried if the database aborts it because of another
/// transaction.
const MAX_CONFLICT_RETRIES: u32 = 3;

/// Store in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    hosts: HostPool,
    timeout: Duration,
    max_connections: u32,
    /// True if the last write failed, or did not end in time, for a reason that may lie in the
    /// database.
    last_write_failed: AtomicBool,
}

impl PostgresStore {
    /// Returns the store at `url`. It connects on first use.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the URL cannot be read.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        Ok(Self {
            hosts: HostPool::open(url, options)?,
            timeout: options.timeout,
            max_connections: options.max_connections,
            last_write_failed: AtomicBool::new(false),
        })
    }

    /// Awaits the database for at most the configured timeout.
    fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        // Boxed here, because the future of a connection is large and every caller would hold it.
        with_timeout(self.timeout, Box::pin(work))
    }

    async fn load_once(
        &self,
        records: &[&[u8]],
        limits: &[&[u8]],
    ) -> Result<LoadedState, sqlx::Error> {
        let mut connection = self.hosts.acquire().await?;
        let loaded = load::load(&mut connection, records, limits).await?;
        connection.finish().await?;
        Ok(loaded)
    }
}

#[async_trait]
impl RecordStore for PostgresStore {
    fn system(&self) -> &'static str {
        "postgresql"
    }

    /// Finds the host that accepts writes, and migrates its schema.
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.hosts.connect().await?;
        let mut watchdog = self.hosts.connect().await?;
        self.hosts
            .detect_pooling(&mut connection, &mut watchdog)
            .await?;
        migrate::migrate(&mut connection, &mut watchdog, self.timeout).await?;
        self.with_timeout(async {
            connection.close().await?;
            Ok(watchdog.close().await?)
        })
        .await
    }

    async fn store_fingerprint(&self, own: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        // A new connection: those of the pool may lead to another host, or date from before this
        // host accepted writes.
        let mut connection = self.hosts.connect_prepared().await?;
        let (pooling, settings) = self.hosts.sessions();
        self.with_timeout(async {
            pooling.begin(&mut connection, settings).await?;
            sqlx::query!(
                "INSERT INTO otp_index_key (fingerprint) VALUES ($1) ON CONFLICT (only_row) DO NOTHING",
                own.as_slice(),
            )
            .execute(&mut connection)
            .await?;
            let stored = sqlx::query_scalar!("SELECT fingerprint FROM otp_index_key");
            let stored = stored.fetch_one(&mut connection).await?;
            pooling.commit(&mut connection).await?;
            Ok(stored)
        })
        .await
    }

    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        let limits: Vec<&[u8]> = limits.iter().map(|key| key.0.as_slice()).collect();
        // After a restart of the database each idle connection fails once.
        let max_attempts = self.max_connections + 1;
        let mut result = self.load_once(&records, &limits).await;
        for _ in 1..max_attempts {
            match &result {
                Err(error) if is_end_of_session(error) => {
                    result = self.load_once(&records, &limits).await;
                }
                _ => break,
            }
        }
        Ok(result?)
    }

    async fn write(&self, batch: &WriteBatch) -> Result<WriteResult, StoreError> {
        let guard = WriteOutcomeGuard(&self.last_write_failed);
        let mut connection = self.hosts.acquire().await?;
        let written = if batch.limits.is_empty() && batch.records.is_empty() {
            messages::update(&mut connection, &batch.messages).await
        } else if records::are_updated_alone(batch) {
            records::update(&mut connection, &batch.records).await
        } else {
            write::write(&mut connection, batch).await
        };
        match &written {
            Ok(_) => {
                connection.finish().await?;
                guard.disarm();
            }
            // The host may have become a standby of another one. The next health check finds that
            // out; until then no other request should use this connection.
            Err(StoreError::Unavailable(_)) => connection.discard(),
            // A trial write finds out whether only a row is locked, or all writes wait.
            Err(StoreError::Locked(_)) => {}
            Err(_) => guard.disarm(),
        }
        written
    }

    async fn locked_rows(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LockedRows, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        let limits: Vec<&[u8]> = limits.iter().map(|key| key.0.as_slice()).collect();
        self.with_timeout(async {
            let mut connection = self.hosts.acquire().await?;
            let locked = load::locked_rows(&mut connection, &records, &limits).await?;
            connection.finish().await?;
            Ok(locked)
        })
        .await
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let loaded = async {
                let mut connection = self.hosts.acquire().await?;
                let loaded = messages::load(&mut connection, &records).await?;
                connection.finish().await?;
                Ok(loaded)
            };
            match loaded.await {
                Err(StoreError::Conflict(_)) if attempts < MAX_CONFLICT_RETRIES => {}
                // Other transactions win each time, so the caller gets no answer.
                Err(StoreError::Conflict(cause)) => break Err(StoreError::Unavailable(cause)),
                loaded => break loaded,
            }
        }
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        self.with_timeout(async {
            let mut connection = self.hosts.acquire().await?;
            let lanes = messages::lanes(&mut connection).await?;
            connection.finish().await?;
            Ok(lanes)
        })
        .await
    }

    async fn due_messages(&self, lanes: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        self.with_timeout(async {
            let mut connection = self.hosts.acquire().await?;
            let due = messages::due(&mut connection, lanes).await?;
            connection.finish().await?;
            Ok(due)
        })
        .await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        self.with_timeout(async {
            // The oldest first, which is the order of an index. Deleted in the order of the keys,
            // as every write does. By an array, because a join would be planned once, for tables
            // as small as they were then.
            let mut connection = self.hosts.acquire().await?;
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
                now.saturating_sub(UNFINISHED_MESSAGE_RETENTION)
                    .milliseconds(),
            );
            let messages = messages.execute(&mut *connection).await?;
            connection.finish().await?;
            Ok(PurgeStats {
                records: records.rows_affected(),
                limits: limits.rows_affected(),
                messages: messages.rows_affected(),
            })
        })
        .await
    }

    async fn delivered_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        self.with_timeout(async {
            let mut connection = self.hosts.acquire().await?;
            let delivered = stats::delivered_messages(&mut connection, &records).await?;
            connection.finish().await?;
            Ok(delivered)
        })
        .await
    }

    async fn stats(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        self.with_timeout(async {
            let mut connection = self.hosts.acquire().await?;
            let stats = stats::count(&mut connection, now).await?;
            connection.finish().await?;
            Ok(stats)
        })
        .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let ping = async {
            let mut connection = self.hosts.acquire().await?;
            session::ping(&mut connection).await?;
            Ok(connection.finish().await?)
        };
        let alive = self.with_timeout(ping).await.is_ok();
        if alive && !self.last_write_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !alive {
            // The idle connections are as old as the one that failed. They are dropped now, so
            // that requests need not find out one by one.
            let pool = self.hosts.pool();
            while let Some(idle) = pool.try_acquire() {
                drop(idle.detach());
            }
        }
        // The pool reports only that it waited too long, or that an idle connection is dead. A new
        // connection finds the cause, and another host may accept writes by now.
        let mut connection = self.hosts.connect_prepared().await?;
        let (pooling, settings) = self.hosts.sessions();
        self.with_timeout(async {
            pooling.begin(&mut connection, settings).await?;
            session::ping(&mut connection).await?;
            Ok(pooling.commit(&mut connection).await?)
        })
        .await?;
        if self.last_write_failed.load(Ordering::Relaxed) {
            let trial = session::probe_write(connection, pooling, settings);
            self.with_timeout(trial).await?;
            self.last_write_failed.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn connections(&self) -> (u32, u32) {
        idle_and_used(&self.hosts.pool())
    }

    async fn close(&self) {
        self.hosts.pool().close().await;
    }
}

/// Marks a write as failed when dropped, unless it is disarmed: also if the caller no longer waits
/// for the end of the write.
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

/// Returns whether the error means that the connection or its session had ended (SQLSTATE class
/// 57P: shutdown, crash, or an administrator; class 08: a pooler lost its server). A new one may
/// work.
fn is_end_of_session(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(error, sqlx::Error::Io(_))
        || code.is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
}

/// Returns a key of the length that the schema enforces.
fn to_array<const BYTES: usize>(key: Vec<u8>, column: &str) -> Result<[u8; BYTES], sqlx::Error> {
    let corrupt = |_| sqlx::Error::Decode(StoreError::Corrupt(column.to_owned()).into());
    key.try_into().map_err(corrupt)
}
