//! Where records are kept. A store loads and writes what it is told, and says what
//! time it is; it decides nothing.
//!
//! [`RecordStore`] is the contract, which every store proves by one conformance suite.
//! [`Store`] is the one that the configuration chose.

pub mod availability;
mod borrowed;
mod connect_parameters;
mod message_row;
mod migration;
mod postgres;
mod row;
mod sqlite;

use std::{collections::HashMap, collections::HashSet, future::Future, time::Duration};

use rand::Rng;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use crate::domain::{LimitKey, Message, MessageId, Record, RecordKey, Timestamp};
pub use postgres::PostgresStore;
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

/// The store's clock, read once and carried on by this machine's monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    read: Timestamp,
    read_at: Instant,
    asked_at: Instant,
}

impl Clock {
    /// The store's clock as it read just now, in reply to what was asked at `asked_at`.
    pub fn read_now(read: Timestamp, asked_at: Instant) -> Self {
        Self {
            read,
            read_at: Instant::now(),
            asked_at,
        }
    }

    /// When it was asked for, by this machine's monotonic clock. A reply may be late, so
    /// only what happened before is sure to be in what was loaded with it.
    pub fn asked_at(&self) -> Instant {
        self.asked_at
    }

    /// What the store's clock says now.
    pub fn now(&self) -> Timestamp {
        self.read.plus(self.read_at.elapsed())
    }
}

/// What one request changes: limits; a record that is written only if all of these
/// limits are; and a message that is written only if the record is. (Limits may be
/// written although the record is not: whoever decides again has paid them already.)
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The record.
    pub record: Option<RecordChange>,
    /// A new message about the record.
    pub message: Option<MessageChange>,
    /// The limits.
    pub limits: Vec<LimitChange>,
}

/// A record to be written if it is unchanged.
#[derive(Clone, Debug)]
pub struct RecordChange {
    /// Which record.
    pub key: RecordKey,
    /// The version that it must still have; `None`: it must not exist.
    pub expected: Option<Version>,
    /// The version that it gets.
    pub version: Version,
    /// What it becomes.
    pub record: Record<Sealed>,
    /// From when on a sweep may remove it.
    pub removable_at: Timestamp,
}

/// A limit to be written if it is unchanged.
#[derive(Clone, Copy, Debug)]
pub struct LimitChange {
    /// Which limit.
    pub key: LimitKey,
    /// The version that it must still have; `None`: it must not exist.
    pub expected: Option<Version>,
    /// The version that it gets.
    pub version: Version,
    /// When it will be full again, and a sweep may remove it.
    pub full_at: Timestamp,
}

/// A message to be written: a new one, or one that is unchanged.
#[derive(Clone, Debug)]
pub struct MessageChange {
    /// The record whose code it carries.
    pub key: RecordKey,
    /// The version that it must still have; `None`: it is new.
    pub expected: Option<Version>,
    /// The version that it gets.
    pub version: Version,
    /// What it becomes.
    pub message: Message<Sealed>,
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

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records.
    pub records: HashSet<RecordKey>,
    /// Limits.
    pub limits: HashSet<LimitKey>,
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
    /// key may be twice in one batch.
    ///
    /// # Errors
    /// [`StoreError::Conflict`]: nothing was written. [`StoreError::Unavailable`]:
    /// everything that was as expected was written, or nothing.
    fn write(&self, changes: &[Change])
    -> impl Future<Output = Result<Written, StoreError>> + Send;

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

    /// Replaces, durably and in one transaction, those messages that are as expected,
    /// and returns which. No message may be twice in one batch, and none be new.
    fn write_messages(
        &self,
        changes: &[MessageChange],
    ) -> impl Future<Output = Result<HashSet<MessageId>, StoreError>> + Send;

    /// Removes up to `limit` records that are removable at `now`, as many limits that
    /// are full, and as many removable messages that are final, and returns how many
    /// in all.
    fn sweep(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

/// Why a store did not do what it was told.
#[derive(Debug, thiserror::Error)]
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

        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        match (error, code.as_deref()) {
            (_, Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED)) => {
                Self::Conflict(error.to_string())
            }
            (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => {
                Self::Corrupt(error.to_string())
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

/// The store that the configuration chose.
#[derive(Debug)]
pub enum Store {
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
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                PostgresStore::open(url, options).map(Self::Postgres)
            }
            Some("sqlite") => SqliteStore::open(url, options).map(Self::Sqlite),
            _ => Err(StoreError::Url(
                "names no store that otpd knows; give postgres://… or sqlite://…".to_owned(),
            )),
        }
    }

    /// Brings the schema up to date. Any number of replicas may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the cause.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(store) => store.migrate().await,
            Self::Sqlite(store) => store.migrate().await,
        }
    }

    /// Holds the store to the index key of this `fingerprint`: the first to come
    /// writes it down, all others must have the same.
    ///
    /// # Errors
    /// [`StoreError::OtherIndexKey`] where they have not.
    pub async fn hold_to_index_key(&self, fingerprint: &[u8; 32]) -> Result<(), StoreError> {
        let held = match self {
            Self::Postgres(store) => store.hold_to_index_key(fingerprint).await?,
            Self::Sqlite(store) => store.hold_to_index_key(fingerprint).await?,
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
        match self {
            Self::Postgres(store) => store.probe().await,
            Self::Sqlite(store) => store.probe().await,
        }
    }

    /// Ends every connection, after the statements that still run.
    pub async fn close(&self) {
        match self {
            Self::Postgres(store) => store.close().await,
            Self::Sqlite(store) => store.close().await,
        }
    }
}

impl RecordStore for Store {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<Snapshot, StoreError> {
        match self {
            Self::Postgres(store) => store.load(records, limits).await,
            Self::Sqlite(store) => store.load(records, limits).await,
        }
    }

    async fn write(&self, changes: &[Change]) -> Result<Written, StoreError> {
        match self {
            Self::Postgres(store) => store.write(changes).await,
            Self::Sqlite(store) => store.write(changes).await,
        }
    }

    async fn load_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<VersionedMessage>, StoreError> {
        match self {
            Self::Postgres(store) => store.load_messages(records).await,
            Self::Sqlite(store) => store.load_messages(records).await,
        }
    }

    async fn due_messages(&self, limit: u32) -> Result<Vec<VersionedMessage>, StoreError> {
        match self {
            Self::Postgres(store) => store.due_messages(limit).await,
            Self::Sqlite(store) => store.due_messages(limit).await,
        }
    }

    async fn write_messages(
        &self,
        changes: &[MessageChange],
    ) -> Result<HashSet<MessageId>, StoreError> {
        match self {
            Self::Postgres(store) => store.write_messages(changes).await,
            Self::Sqlite(store) => store.write_messages(changes).await,
        }
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        match self {
            Self::Postgres(store) => store.sweep(now, limit).await,
            Self::Sqlite(store) => store.sweep(now, limit).await,
        }
    }
}

/// How a store is used: the `[store]` table of the configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// Connections at most, per replica.
    pub max_connections: u32,
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

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            timeout: Duration::from_secs(2),
            probe_interval: Duration::from_secs(1),
            sweep_interval: Duration::from_mins(1),
        }
    }
}
