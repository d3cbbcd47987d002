//! Store that the configuration selects.

use std::future::Future;

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    DeliveredMessage, FoundMessage, LaneCursor, LoadedState, PostgresStore, PurgeStats,
    RecordStore, SqliteStore, StoreError, StoreOptions, StoreStats, WriteBatch, WriteResult,
    instrument::StatementTimer,
    metrics::{StatementKind, StatementMetrics},
};
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};

/// Store that the configuration selects, with metrics and a span for each statement.
///
/// The futures of the backend are boxed here. They take up to 50 KiB, and without optimization
/// each future around them would put copies of that on the stack.
#[derive(Debug)]
pub struct RecordStoreHandle {
    backend: Backend,
    metrics: StatementMetrics,
}

#[derive(Debug)]
enum Backend {
    /// PostgreSQL, for any number of replicas.
    Postgres(PostgresStore),
    /// SQLite, for one machine.
    Sqlite(SqliteStore),
}

impl RecordStoreHandle {
    /// Returns the store at `url`. It connects on first use.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the URL names no store, or not a usable one.
    pub fn open(url: &SecretString, options: &StoreOptions) -> Result<Self, StoreError> {
        let url = url.expose_secret();
        let backend = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                PostgresStore::open(url, options).map(Backend::Postgres)
            }
            Some("sqlite") => SqliteStore::open(url, options).map(Backend::Sqlite),
            _ => Err(StoreError::Url(
                "unknown scheme; give postgres://… or sqlite://…".to_owned(),
            )),
        };
        Ok(Self {
            backend: backend?,
            metrics: StatementMetrics::default(),
        })
    }

    /// Returns the same store, which records its statements in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: StatementMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Migrates the schema to this version. Any number of replicas may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the cause.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Postgres(store) => Box::pin(store.migrate()).await,
            Backend::Sqlite(store) => Box::pin(store.migrate()).await,
        }
    }

    /// Verifies that the records belong to the index key of this `fingerprint`. The first replica
    /// stores its fingerprint; all others must have the same one.
    ///
    /// # Errors
    /// [`StoreError::IndexKeyMismatch`] if the stored fingerprint differs.
    pub async fn verify_index_key(&self, fingerprint: &[u8; 32]) -> Result<(), StoreError> {
        let stored = match &self.backend {
            Backend::Postgres(store) => store.store_fingerprint(fingerprint).await?,
            Backend::Sqlite(store) => store.store_fingerprint(fingerprint).await?,
        };
        if stored == fingerprint {
            Ok(())
        } else {
            Err(StoreError::IndexKeyMismatch)
        }
    }

    /// Checks that the store answers.
    ///
    /// # Errors
    /// The cause if it does not. A separate connection finds it out if the pool does not
    /// report it.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.instrument(StatementKind::Ping, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.probe()).await,
                Backend::Sqlite(store) => Box::pin(store.probe()).await,
            }
        })
        .await
    }

    /// Counts the records and messages as of `now`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn stats(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        self.instrument(StatementKind::Stats, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.stats(now)).await,
                Backend::Sqlite(store) => Box::pin(store.stats(now)).await,
            }
        })
        .await
    }

    /// Loads the messages of records that providers have accepted, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delivered_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        self.instrument(StatementKind::Attribution, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.delivered_messages(records)).await,
                Backend::Sqlite(store) => Box::pin(store.delivered_messages(records)).await,
            }
        })
        .await
    }

    /// Returns the numbers of idle and of used connections.
    pub fn connections(&self) -> (u32, u32) {
        let (all, idle) = match &self.backend {
            Backend::Postgres(store) => store.connections(),
            Backend::Sqlite(store) => store.connections(),
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(all);
        (idle, all - idle)
    }

    /// Closes all connections after the statements that still run.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Postgres(store) => store.close().await,
            Backend::Sqlite(store) => store.close().await,
        }
    }

    /// Awaits a statement and records its duration and result.
    async fn instrument<T>(
        &self,
        statement: StatementKind,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let system = match &self.backend {
            Backend::Postgres(_) => "postgresql",
            Backend::Sqlite(_) => "sqlite",
        };
        let timer = StatementTimer::start(&self.metrics, statement, system);
        let result = work.await;
        timer.stop(&result);
        result
    }
}

impl RecordStore for RecordStoreHandle {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        self.instrument(StatementKind::Load, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.load(records, limits)).await,
                Backend::Sqlite(store) => Box::pin(store.load(records, limits)).await,
            }
        })
        .await
    }

    async fn write(&self, batch: &WriteBatch) -> Result<WriteResult, StoreError> {
        let statement = if batch.limits.is_empty() && batch.records.is_empty() {
            StatementKind::UpdateMessages
        } else {
            StatementKind::Write
        };
        self.instrument(statement, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.write(batch)).await,
                Backend::Sqlite(store) => Box::pin(store.write(batch)).await,
            }
        })
        .await
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        self.instrument(StatementKind::LoadMessages, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.load_messages(records)).await,
                Backend::Sqlite(store) => Box::pin(store.load_messages(records)).await,
            }
        })
        .await
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        self.instrument(StatementKind::DueMessages, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.waiting_lanes()).await,
                Backend::Sqlite(store) => Box::pin(store.waiting_lanes()).await,
            }
        })
        .await
    }

    async fn due_messages(&self, lanes: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        self.instrument(StatementKind::DueMessages, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.due_messages(lanes)).await,
                Backend::Sqlite(store) => Box::pin(store.due_messages(lanes)).await,
            }
        })
        .await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        let purged = self.instrument(StatementKind::Purge, async {
            match &self.backend {
                Backend::Postgres(store) => Box::pin(store.purge(now, limit)).await,
                Backend::Sqlite(store) => Box::pin(store.purge(now, limit)).await,
            }
        });
        let purged = purged.await?;
        self.metrics.record_purge(purged);
        Ok(purged)
    }
}
