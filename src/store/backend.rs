//! The store that the configuration chose.

use std::future::Future;

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    DeliveredMessage, FoundMessage, LaneCursor, LoadedState, PostgresStore, PurgeStats,
    RecordStore, SqliteStore, StoreError, StoreOptions, StoreStats, WriteBatch, WriteResult,
    instrument::StatementTimer,
};
use crate::metrics::{StatementKind, StatementMetrics};
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};

/// The store that the configuration chose, with an account of what it does.
///
/// The engine's futures are boxed here. They take up to 50 KiB, and without optimization
/// each future around them would put copies of that on the stack.
#[derive(Debug)]
pub struct RecordStoreHandle {
    engine: Backend,
    metrics: StatementMetrics,
}

#[derive(Debug)]
enum Backend {
    /// PostgreSQL: any number of replicas.
    Postgres(PostgresStore),
    /// SQLite: one machine.
    Sqlite(SqliteStore),
}

impl RecordStoreHandle {
    /// The store at `url`. Connects only when it is used.
    ///
    /// # Errors
    /// [`StoreError::Url`] where no store is named.
    pub fn open(url: &SecretString, options: &StoreOptions) -> Result<Self, StoreError> {
        let url = url.expose_secret();
        let engine = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                PostgresStore::open(url, options).map(Backend::Postgres)
            }
            Some("sqlite") => SqliteStore::open(url, options).map(Backend::Sqlite),
            _ => Err(StoreError::Url(
                "names no store that otpd knows; give postgres://… or sqlite://…".to_owned(),
            )),
        };
        Ok(Self {
            engine: engine?,
            metrics: StatementMetrics::default(),
        })
    }

    /// The same store, with its account in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: StatementMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Brings the schema up to date. Any number of replicas may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the cause.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.engine {
            Backend::Postgres(store) => Box::pin(store.migrate()).await,
            Backend::Sqlite(store) => Box::pin(store.migrate()).await,
        }
    }

    /// Holds the store to the index key of this `fingerprint`: the first to come
    /// writes it down, all others must have the same.
    ///
    /// # Errors
    /// [`StoreError::IndexKeyMismatch`] where they have not.
    pub async fn verify_index_key(&self, fingerprint: &[u8; 32]) -> Result<(), StoreError> {
        let held = match &self.engine {
            Backend::Postgres(store) => store.hold_to_index_key(fingerprint).await?,
            Backend::Sqlite(store) => store.hold_to_index_key(fingerprint).await?,
        };
        if held == fingerprint {
            Ok(())
        } else {
            Err(StoreError::IndexKeyMismatch)
        }
    }

    /// Asks the store for a sign of life.
    ///
    /// # Errors
    /// Why there is none; found out by a connection of its own where the pool
    /// cannot tell.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.instrument(StatementKind::Probe, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.probe()).await,
                Backend::Sqlite(store) => Box::pin(store.probe()).await,
            }
        })
        .await
    }

    /// Counts what is there `now`.
    ///
    /// # Errors
    /// The store's.
    pub async fn census(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        self.instrument(StatementKind::Census, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.census(now)).await,
                Backend::Sqlite(store) => Box::pin(store.census(now)).await,
            }
        })
        .await
    }

    /// Loads the messages of records that providers have taken, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn deliveries(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        self.instrument(StatementKind::Deliveries, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.deliveries(records)).await,
                Backend::Sqlite(store) => Box::pin(store.deliveries(records)).await,
            }
        })
        .await
    }

    /// How many connections are idle, and how many in use.
    pub fn connections(&self) -> (u32, u32) {
        let (all, idle) = match &self.engine {
            Backend::Postgres(store) => store.connections(),
            Backend::Sqlite(store) => store.connections(),
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(all);
        (idle, all - idle)
    }

    /// Ends every connection, after the statements that still run.
    pub async fn close(&self) {
        match &self.engine {
            Backend::Postgres(store) => store.close().await,
            Backend::Sqlite(store) => store.close().await,
        }
    }

    /// Awaits the engine, and keeps account of that.
    async fn instrument<T>(
        &self,
        statement: StatementKind,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let system = match &self.engine {
            Backend::Postgres(_) => "postgresql",
            Backend::Sqlite(_) => "sqlite",
        };
        let stopwatch = StatementTimer::start(&self.metrics, statement, system);
        let result = work.await;
        stopwatch.stop(&result);
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
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.load(records, limits)).await,
                Backend::Sqlite(store) => Box::pin(store.load(records, limits)).await,
            }
        })
        .await
    }

    async fn write(&self, changes: &WriteBatch) -> Result<WriteResult, StoreError> {
        let statement = if changes.limits.is_empty() && changes.records.is_empty() {
            StatementKind::Settle
        } else {
            StatementKind::Write
        };
        self.instrument(statement, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.write(changes)).await,
                Backend::Sqlite(store) => Box::pin(store.write(changes)).await,
            }
        })
        .await
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        self.instrument(StatementKind::Messages, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.load_messages(records)).await,
                Backend::Sqlite(store) => Box::pin(store.load_messages(records)).await,
            }
        })
        .await
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        self.instrument(StatementKind::Due, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.waiting_lanes()).await,
                Backend::Sqlite(store) => Box::pin(store.waiting_lanes()).await,
            }
        })
        .await
    }

    async fn due_messages(&self, turns: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        self.instrument(StatementKind::Due, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.due_messages(turns)).await,
                Backend::Sqlite(store) => Box::pin(store.due_messages(turns)).await,
            }
        })
        .await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        let swept = self.instrument(StatementKind::Sweep, async {
            match &self.engine {
                Backend::Postgres(store) => Box::pin(store.sweep(now, limit)).await,
                Backend::Sqlite(store) => Box::pin(store.sweep(now, limit)).await,
            }
        });
        let swept = swept.await?;
        self.metrics.swept(swept);
        Ok(swept)
    }
}
