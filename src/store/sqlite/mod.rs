//! SQLite store, for one machine. It needs no other service.

mod file;
mod messages;
mod stats;
mod url;
mod write;

use std::path::PathBuf;

use async_trait::async_trait;
use sqlx::{
    Connection as _, FromRow as _, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::Instant;

use super::{
    DeliveredMessage, FoundMessage, LaneCursor, LoadedState, LockedRows, PurgeStats, RecordStore,
    RowVersion, StoreClock, StoreError, StoreOptions, StoreStats, UNFINISHED_MESSAGE_RETENTION,
    VersionedLimit, WriteBatch, WriteResult, backend::idle_and_used, migration, rows::RecordRow,
    rows::key_bytes, waiting::with_notice,
};
use url::DatabaseFile;

use otpd_base::log_targets::STATE_CHANGE;
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// Maximum number of connections: readers beside the one writer that SQLite allows.
const MAX_CONNECTIONS: u32 = 4;

/// Store in an SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    options: SqliteConnectOptions,
    file: DatabaseFile,
}

impl SqliteStore {
    /// Returns the store in the file that `url` names. It opens the file on first use.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the URL cannot be read or names no file.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let file = url::parse(url)?;
        let connect_options = SqliteConnectOptions::new()
            .filename(&file.path)
            // The migration creates the file with the right mode.
            .create_if_missing(false)
            .busy_timeout(options.timeout)
            // A commit is on the disk before it is acknowledged.
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(options.timeout)
            .test_before_acquire(false)
            .connect_lazy_with(connect_options.clone());
        Ok(Self {
            pool,
            options: connect_options,
            file,
        })
    }

    /// Returns the path of the database's file.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the URL cannot be read or names no file.
    pub fn path(url: &str) -> Result<PathBuf, StoreError> {
        Ok(url::parse(url)?.path)
    }
}

#[async_trait]
impl RecordStore for SqliteStore {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let path = &self.file.path;
        // Two connections that create a file or change its journal mode at the same time fail.
        // SQLite has no advisory lock, so a lock on a file beside it keeps processes apart.
        let notice = || {
            tracing::warn!(
                target: STATE_CHANGE,
                file = %path.display(),
                "[OTP] Waiting for another process that migrates the SQLite file"
            );
        };
        let lock = with_notice(notice, file::lock_beside(path)).await?;
        if !self.file.must_exist {
            file::create(path)?;
        }
        let notice = || {
            tracing::warn!(
                target: STATE_CHANGE,
                file = %path.display(),
                "[OTP] Migration waits for a lock of the SQLite file"
            );
        };
        with_notice(notice, async {
            let options = self.options.clone().journal_mode(SqliteJournalMode::Wal);
            let mut connection = SqliteConnection::connect_with(&options).await?;
            migration::run(&MIGRATOR, &mut connection).await?;
            Ok::<_, StoreError>(connection.close().await?)
        })
        .await?;
        file::warn_if_shared(path);
        drop(lock);
        Ok(())
    }

    async fn store_fingerprint(&self, own: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        // The key is given as 1, because SQLite numbers the rows itself if an integer primary key
        // is left out, whatever its default.
        sqlx::query(
            "INSERT INTO otp_index_key (only_row, fingerprint) VALUES (1, ?) ON CONFLICT DO NOTHING",
        )
        .bind(own.as_slice())
        .execute(&self.pool)
        .await?;
        Ok(sqlx::query_scalar("SELECT fingerprint FROM otp_index_key")
            .fetch_one(&self.pool)
            .await?)
    }

    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        let requested_at = Instant::now();
        let mut transaction = self.pool.begin().await?;
        let record_keys = records.iter().map(|key| key.0.as_slice());
        let rows = select_by_key(
            "SELECT * FROM otp_record WHERE record_key IN (",
            record_keys,
        )
        .build()
        .fetch_all(&mut *transaction)
        .await?;
        let limit_keys = limits.iter().map(|key| key.0.as_slice());
        let limit_rows: Vec<(Vec<u8>, i64, i64)> = select_by_key(
            "SELECT limit_key, version, full_at FROM otp_limit WHERE limit_key IN (",
            limit_keys,
        )
        .build_query_as()
        .fetch_all(&mut *transaction)
        .await?;
        let limits = limit_rows
            .into_iter()
            .map(|(key, version, full_at)| {
                let key = key
                    .try_into()
                    .map_err(|_| StoreError::Corrupt("limit_key".to_owned()))?;
                let full_at = Timestamp::from_milliseconds(full_at);
                Ok((
                    LimitKey(key),
                    VersionedLimit {
                        version: RowVersion(version),
                        full_at,
                    },
                ))
            })
            .collect::<Result<_, StoreError>>()?;
        // Read after the records, so that none of them was written later.
        let now: i64 = sqlx::query_scalar("SELECT now FROM otp_clock")
            .fetch_one(&mut *transaction)
            .await?;
        let clock = StoreClock::from_reading(Timestamp::from_milliseconds(now), requested_at);
        transaction.rollback().await?;
        let mut state = LoadedState {
            limits,
            ..LoadedState::empty(clock)
        };
        for row in rows {
            let key: Vec<u8> = row.try_get("record_key")?;
            let record = RecordRow::from_row(&row).map_err(StoreError::from);
            state.add(
                RecordKey(key_bytes(&key)),
                record.and_then(RecordRow::into_record),
            );
        }
        Ok(state)
    }

    async fn write(&self, batch: &WriteBatch) -> Result<WriteResult, StoreError> {
        let mut written = WriteResult::default();
        // A transaction that begins as a reader may fail to become the writer without waiting,
        // so this one begins as the writer.
        let mut connection = self.pool.acquire().await?;
        let notice = || tracing::warn!("[OTP] Waiting for a lock of the SQLite file");
        let mut transaction = with_notice(notice, connection.begin_with("BEGIN IMMEDIATE")).await?;
        for limit in &batch.limits {
            if let Some(full_at) = write::limit(&mut transaction, limit).await? {
                written.limits.insert(limit.key, full_at);
            }
        }
        for record in &batch.records {
            let mut charged = record.limits.iter();
            if charged.all(|limit| written.limits.contains_key(limit))
                && write::record(&mut transaction, record).await?
            {
                written.records.insert(record.key);
            }
        }
        for message in &batch.messages {
            if message.expected.is_some() {
                if messages::update(&mut transaction, message).await? {
                    written.messages.insert(message.message.id);
                }
            } else if written.records.contains(&message.key) {
                messages::insert(&mut transaction, message).await?;
            }
        }
        transaction.commit().await?;
        Ok(written)
    }

    /// Returns no rows, because SQLite has no locks of single rows.
    async fn locked_rows(
        &self,
        _records: &[RecordKey],
        _limits: &[LimitKey],
    ) -> Result<LockedRows, StoreError> {
        Ok(LockedRows::default())
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        messages::load(&self.pool, records).await
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        messages::lanes(&self.pool).await
    }

    async fn due_messages(&self, lanes: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        messages::due(&self.pool, lanes).await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        let run = async |statement: &'static str| {
            let query = sqlx::query(statement).bind(now.milliseconds()).bind(limit);
            let query = query.bind(
                now.saturating_sub(UNFINISHED_MESSAGE_RETENTION)
                    .milliseconds(),
            );
            query
                .execute(&self.pool)
                .await
                .map(|done| done.rows_affected())
        };
        Ok(PurgeStats {
            records: run("DELETE FROM otp_record WHERE record_key IN (
                     SELECT record_key FROM otp_record WHERE removable_at <= ?1 LIMIT ?2
                 )")
            .await?,
            limits: run("DELETE FROM otp_limit WHERE limit_key IN (
                     SELECT limit_key FROM otp_limit WHERE full_at <= ?1 LIMIT ?2
                 )")
            .await?,
            messages: run("DELETE FROM otp_message WHERE (record_key, message_id) IN (
                     SELECT record_key, message_id FROM otp_message
                     WHERE removable_at <= ?1 AND (due_at IS NULL OR removable_at <= ?3) LIMIT ?2
                 )")
            .await?,
        })
    }

    async fn delivered_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        stats::delivered_messages(&self.pool, records).await
    }

    async fn stats(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        stats::count(&self.pool, now).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let probe = sqlx::query("SELECT now FROM otp_clock").execute(&self.pool);
        match probe.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let path = &self.file.path;
                Err(match path.try_exists() {
                    Ok(false) => {
                        StoreError::Unavailable(format!("there is no file {}", path.display()))
                    }
                    _ => error.into(),
                })
            }
        }
    }

    fn connections(&self) -> (u32, u32) {
        idle_and_used(&self.pool)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn select_by_key<'a>(select: &str, keys: impl Iterator<Item = &'a [u8]>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind(key.to_vec());
    }
    query.push(")");
    query
}
