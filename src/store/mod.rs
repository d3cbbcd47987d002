//! Where records are kept. A store loads and writes what it is told, and says what
//! time it is; it decides nothing.
//!
//! [`RecordStore`] is the contract, which every store proves by one conformance suite.
//! [`Store`] is the one that the configuration chose.

pub mod availability;
pub mod batcher;
mod borrowed;
mod census;
mod change;
mod clock;
mod connect_parameters;
mod message_row;
mod migration;
mod postgres;
mod row;
mod sqlite;
mod stopwatch;

use std::{collections::HashMap, future::Future, time::Duration};

use rand::Rng;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::error::ErrorKind;

use crate::{
    domain::{LimitKey, Message, Record, RecordKey, Timestamp},
    metrics::{Statement, StatementMetrics},
};
use batcher::BatchOptions;
use stopwatch::Stopwatch;

pub use crate::metrics::Swept;
pub use census::{Census, Delivered};
pub use change::{Changes, LimitChange, MessageChange, RecordChange, Written};
pub use clock::Clock;
pub use postgres::{PostgresStore, SESSION_OPTIONS};
pub use sqlite::SqliteStore;

/// What is secret, as a store sees it: encrypted and authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

/// Tells one write of a record from every other; random, so that a record that was
/// removed and made again cannot repeat one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub i64);

impl Version {
    /// A new one.
    pub fn random(random: &mut impl Rng) -> Self {
        Self(random.next_u64().cast_signed())
    }
}

/// A record as it was loaded.
#[derive(Clone, Debug)]
pub struct Versioned {
    /// What a writer must name to replace it.
    pub version: Version,
    /// The record.
    pub record: Record<Sealed>,
}

/// A shared limit as it was loaded.
#[derive(Clone, Copy, Debug)]
pub struct VersionedLimit {
    /// What a writer must name to replace it.
    pub version: Version,
    /// When it will be full again.
    pub full_at: Timestamp,
}

/// What a load saw.
#[derive(Debug)]
pub struct Snapshot {
    /// The store's clock at the load.
    pub clock: Clock,
    /// Those of the asked-for records that exist.
    pub records: HashMap<RecordKey, Versioned>,
    /// Those of the asked-for limits that exist.
    pub limits: HashMap<LimitKey, VersionedLimit>,
}

/// A message as it was loaded.
#[derive(Clone, Debug)]
pub struct VersionedMessage {
    /// The record whose code it carries.
    pub key: RecordKey,
    /// What a writer must name to replace it.
    pub version: Version,
    /// The message.
    pub message: Message<Sealed>,
}

/// Keeps records and limits. Every method takes whole batches, and costs the same
/// number of round trips whatever their size.
///
/// The methods stand here with their bounds spelled out, because `async fn` in a
/// public trait would leave it open whether their futures can move between threads.
pub trait RecordStore: Send + Sync + 'static {
    /// Loads records, limits and the store's clock, which is read not before they
    /// are.
    fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Writes, durably and in one transaction, what of `changes` is as expected. No
    /// key may be in it twice.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: everything that was as expected was written, or
    /// nothing. All others: nothing was.
    fn write(&self, changes: &Changes) -> impl Future<Output = Result<Written, StoreError>> + Send;

    /// Loads the messages of records, each record's oldest first.
    fn load_messages(
        &self,
        records: &[RecordKey],
    ) -> impl Future<Output = Result<Vec<VersionedMessage>, StoreError>> + Send;

    /// Loads up to `limit` messages that somebody has to look after now, oldest first.
    /// So has each that was written later than now, since the clock stepped back.
    fn due_messages(
        &self,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<VersionedMessage>, StoreError>> + Send;

    /// Removes up to `limit` records that are removable at `now`, as many limits that
    /// are full (some stores leave them for an hour), and the removable messages that are
    /// final of as many records, and returns how many.
    fn sweep(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Swept, StoreError>> + Send;
}

/// Why a store did not do what it was told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or not in time.
    #[error("{0}")]
    Unavailable(String),
    /// The database gave up the transaction for another one's sake; trying again
    /// helps.
    #[error("transaction given up: {0}")]
    Conflict(String),
    /// It holds something that otpd never wrote.
    #[error("the store holds what otpd did not write: {0}")]
    Corrupt(String),
    /// It does not take what it was told to write.
    #[error("the store refused: {0}")]
    Refused(String),
    /// Its records were made with another index key.
    #[error(
        "keys: the database's records were made with another index key; use the keys that it was first started with, or empty the otp_ tables for a fresh start"
    )]
    OtherIndexKey,
    /// `database_url` names no store.
    #[error("database_url: {0}")]
    Url(String),
}

impl StoreError {
    /// Sorts a database's error by what can be done about it.
    fn from_database(error: &sqlx::Error) -> Self {
        const SERIALIZATION_FAILURE: &str = "40001";
        const DEADLOCK_DETECTED: &str = "40P01";
        const DATA_EXCEPTION: &str = "22";

        let database_error = error.as_database_error();
        let code = database_error.and_then(sqlx::error::DatabaseError::code);
        let kind = database_error.map(sqlx::error::DatabaseError::kind);
        match (error, code.as_deref(), kind) {
            (_, Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED), _) => {
                Self::Conflict(error.to_string())
            }
            (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _, _) => {
                Self::Corrupt(error.to_string())
            }
            (_, Some(code), Some(kind))
                if code.starts_with(DATA_EXCEPTION) || !matches!(kind, ErrorKind::Other) =>
            {
                Self::Refused(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::from_database(&error)
    }
}

/// Awaits a store, but not longer than it may take.
///
/// # Errors
/// [`StoreError::Unavailable`] where it takes longer, and those of `work`.
pub fn in_time<T>(
    may_take: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> impl Future<Output = Result<T, StoreError>> {
    let work = tokio::time::timeout(may_take, work);
    let no_answer = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
    async move { work.await.unwrap_or_else(no_answer) }
}

/// The store that the configuration chose, with an account of what it does.
#[derive(Debug)]
pub struct Store {
    engine: Engine,
    metrics: StatementMetrics,
}

#[derive(Debug)]
enum Engine {
    /// PostgreSQL: any number of replicas.
    Postgres(PostgresStore),
    /// SQLite: one machine.
    Sqlite(SqliteStore),
}

impl Store {
    /// The store at `url`. Connects only when it is used.
    ///
    /// # Errors
    /// [`StoreError::Url`] where no store is named.
    pub fn open(url: &SecretString, options: &StoreOptions) -> Result<Self, StoreError> {
        let url = url.expose_secret();
        let engine = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                PostgresStore::open(url, options).map(Engine::Postgres)
            }
            Some("sqlite") => SqliteStore::open(url, options).map(Engine::Sqlite),
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
    pub fn counted(self, metrics: StatementMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Brings the schema up to date. Any number of replicas may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the cause.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Postgres(store) => store.migrate().await,
            Engine::Sqlite(store) => store.migrate().await,
        }
    }

    /// Holds the store to the index key of this `fingerprint`: the first to come
    /// writes it down, all others must have the same.
    ///
    /// # Errors
    /// [`StoreError::OtherIndexKey`] where they have not.
    pub async fn hold_to_index_key(&self, fingerprint: &[u8; 32]) -> Result<(), StoreError> {
        let held = match &self.engine {
            Engine::Postgres(store) => store.hold_to_index_key(fingerprint).await?,
            Engine::Sqlite(store) => store.hold_to_index_key(fingerprint).await?,
        };
        if held == fingerprint {
            Ok(())
        } else {
            Err(StoreError::OtherIndexKey)
        }
    }

    /// Asks the store for a sign of life.
    ///
    /// # Errors
    /// Why there is none; found out by a connection of its own where the pool
    /// cannot tell.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.account(Statement::Probe, async {
            match &self.engine {
                Engine::Postgres(store) => store.probe().await,
                Engine::Sqlite(store) => store.probe().await,
            }
        })
        .await
    }

    /// Counts what is there `now`.
    ///
    /// # Errors
    /// The store's.
    pub async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        self.account(Statement::Census, async {
            match &self.engine {
                Engine::Postgres(store) => store.census(now).await,
                Engine::Sqlite(store) => store.census(now).await,
            }
        })
        .await
    }

    /// Loads the messages of records that providers have taken, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn deliveries(&self, records: &[RecordKey]) -> Result<Vec<Delivered>, StoreError> {
        self.account(Statement::Deliveries, async {
            match &self.engine {
                Engine::Postgres(store) => store.deliveries(records).await,
                Engine::Sqlite(store) => store.deliveries(records).await,
            }
        })
        .await
    }

    /// How many connections are idle, and how many in use.
    pub fn connections(&self) -> (u32, u32) {
        let (all, idle) = match &self.engine {
            Engine::Postgres(store) => store.connections(),
            Engine::Sqlite(store) => store.connections(),
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(all);
        (idle, all - idle)
    }

    /// Ends every connection, after the statements that still run.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Postgres(store) => store.close().await,
            Engine::Sqlite(store) => store.close().await,
        }
    }

    /// Awaits the engine, and keeps account of that.
    async fn account<T>(
        &self,
        statement: Statement,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let system = match &self.engine {
            Engine::Postgres(_) => "postgresql",
            Engine::Sqlite(_) => "sqlite",
        };
        let stopwatch = Stopwatch::start(&self.metrics, statement, system);
        let result = work.await;
        stopwatch.stop(&result);
        result
    }
}

impl RecordStore for Store {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<Snapshot, StoreError> {
        self.account(Statement::Load, async {
            match &self.engine {
                Engine::Postgres(store) => store.load(records, limits).await,
                Engine::Sqlite(store) => store.load(records, limits).await,
            }
        })
        .await
    }

    async fn write(&self, changes: &Changes) -> Result<Written, StoreError> {
        let statement = if changes.limits.is_empty() && changes.records.is_empty() {
            Statement::Settle
        } else {
            Statement::Write
        };
        self.account(statement, async {
            match &self.engine {
                Engine::Postgres(store) => store.write(changes).await,
                Engine::Sqlite(store) => store.write(changes).await,
            }
        })
        .await
    }

    async fn load_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<VersionedMessage>, StoreError> {
        self.account(Statement::Messages, async {
            match &self.engine {
                Engine::Postgres(store) => store.load_messages(records).await,
                Engine::Sqlite(store) => store.load_messages(records).await,
            }
        })
        .await
    }

    async fn due_messages(&self, limit: u32) -> Result<Vec<VersionedMessage>, StoreError> {
        self.account(Statement::Due, async {
            match &self.engine {
                Engine::Postgres(store) => store.due_messages(limit).await,
                Engine::Sqlite(store) => store.due_messages(limit).await,
            }
        })
        .await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<Swept, StoreError> {
        let swept = self.account(Statement::Sweep, async {
            match &self.engine {
                Engine::Postgres(store) => store.sweep(now, limit).await,
                Engine::Sqlite(store) => store.sweep(now, limit).await,
            }
        });
        let swept = swept.await?;
        self.metrics.swept(swept);
        Ok(swept)
    }
}

/// How a store is used: the `[store]` table of the configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// Connections to PostgreSQL at most, per replica.
    pub max_connections: u32,
    /// Requests at most that are loaded and written together, 1 to 4096.
    pub max_batch: u32,
    /// Requests at most that wait for that; more are refused at once with `OVERLOADED`.
    pub max_waiting: u32,
    /// How long a request may have to wait behind others, by the pace of the last batches;
    /// what would wait longer, or longer than its caller, is refused at once with
    /// `OVERLOADED`.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// How many groups of requests are on their way to the store at once; one is
    /// fastest where PostgreSQL is near.
    pub writers: u16,
    /// How long one statement, with the wait for a connection, may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How often the store is asked for a sign of life.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// How often records that no answer depends on are removed.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
}

impl StoreOptions {
    /// How requests are grouped.
    pub fn batches(&self) -> BatchOptions {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        BatchOptions {
            max_batch: count(self.max_batch),
            max_waiting: count(self.max_waiting),
            max_wait: self.max_wait,
            writers: usize::from(self.writers),
            timeout: self.timeout,
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            max_batch: 256,
            max_waiting: 4_096,
            max_wait: Duration::from_secs(1),
            writers: 1,
            timeout: Duration::from_secs(2),
            probe_interval: Duration::from_secs(1),
            sweep_interval: Duration::from_mins(1),
        }
    }
}
