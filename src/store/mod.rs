//! Storage of records, limits and messages. A store loads and writes batches and reads the
//! clock of the database; it makes no decisions.
//!
//! [`RecordStore`] is the interface; every store passes the same conformance suite.
//! [`open`] returns the store that the configuration selects. [`InstrumentedStore`] adds metrics
//! and spans to any store.

mod backend;
mod clock;
pub mod health;
mod instrument;
mod metrics;
mod migration;
mod postgres;
mod rows;
mod sqlite;
mod stats;
mod waiting;
mod write_batch;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    time::Duration,
};

use async_trait::async_trait;
use rand::Rng;
use sqlx::error::ErrorKind;

use otpd_rules::{CallerName, LimitKey, MessageId, OutboxMessage, Record, RecordKey, Timestamp};

pub use backend::open;
pub use clock::StoreClock;
pub use instrument::InstrumentedStore;
pub use metrics::StatementMetrics;
pub use postgres::SESSION_OPTIONS;
pub use sqlite::SqliteStore;
pub use stats::{DeliveredMessage, PurgeStats, StoreStats};
pub use write_batch::{
    ExpectedLimit, LimitWrite, MessageWrite, RecordWrite, WriteBatch, WriteResult,
};

/// Additional retention of a message that never reached a final state. Replicas end every message
/// that they can read soon after its code has expired, so no replica could read this one.
pub const UNFINISHED_MESSAGE_RETENTION: Duration = Duration::from_hours(1);

/// Encrypted and authenticated bytes, the form in which a store sees secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBytes(pub Vec<u8>);

/// Version of a row, replaced by each write. It is random, so that a record that was removed and
/// created again cannot repeat an earlier version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowVersion(pub i64);

impl RowVersion {
    /// Returns a new random version.
    pub fn random(random: &mut impl Rng) -> Self {
        Self(random.next_u64().cast_signed())
    }
}

/// Loaded record with its version.
#[derive(Clone, Debug)]
pub struct VersionedRecord {
    /// Version that a write which replaces it must expect.
    pub version: RowVersion,
    /// Record itself.
    pub record: Record<SealedBytes>,
}

/// Loaded shared limit with its version.
#[derive(Clone, Copy, Debug)]
pub struct VersionedLimit {
    /// Version that a write which replaces it must expect.
    pub version: RowVersion,
    /// Time at which the limit is full again.
    pub full_at: Timestamp,
}

/// Result of a load.
#[derive(Debug)]
pub struct LoadedState {
    /// Clock of the store at the load.
    pub clock: StoreClock,
    /// Requested records that exist and can be read.
    pub records: HashMap<RecordKey, VersionedRecord>,
    /// Requested records that exist but cannot be read, each with the reason.
    pub unreadable: HashMap<RecordKey, StoreError>,
    /// Requested limits that exist.
    pub limits: HashMap<LimitKey, VersionedLimit>,
}

impl LoadedState {
    /// Returns a state without records and limits.
    pub fn empty(clock: StoreClock) -> Self {
        Self {
            clock,
            records: HashMap::new(),
            unreadable: HashMap::new(),
            limits: HashMap::new(),
        }
    }

    /// Adds the record of `key`, or the reason why it cannot be read.
    fn add(&mut self, key: RecordKey, record: Result<VersionedRecord, StoreError>) {
        match record {
            Ok(record) => {
                self.records.insert(key, record);
            }
            Err(error) => {
                self.unreadable.insert(key, error);
            }
        }
    }
}

/// Rows that another session keeps locked at the moment.
#[derive(Clone, Debug, Default)]
pub struct LockedRows {
    /// Records with a locked row.
    pub records: HashSet<RecordKey>,
    /// Limits with a locked row.
    pub limits: HashSet<LimitKey>,
}

/// Loaded message with its version.
#[derive(Clone, Debug)]
pub struct VersionedMessage {
    /// Record of the code that it carries.
    pub key: RecordKey,
    /// Version that a write which replaces it must expect.
    pub version: RowVersion,
    /// Message itself.
    pub message: OutboxMessage<SealedBytes>,
}

/// Message found by a query for a batch. A row that cannot be read does not affect the others.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    /// Record of the code that it carries.
    pub key: RecordKey,
    /// Caller of the lane that it waits in; empty if a version without lanes wrote it.
    pub lane: CallerName,
    /// Position in that lane.
    pub place: Place,
    /// The message, or the reason why it cannot be read.
    pub message: Result<VersionedMessage, StoreError>,
}

/// Position of a message in the lane of its caller, ordered from the oldest message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Time of the request for the message.
    pub created_at: Timestamp,
    /// Identifier, which orders messages of the same time.
    pub id: MessageId,
}

/// Part of a caller's lane to be read.
#[derive(Clone, Debug)]
pub struct LaneCursor {
    /// Caller of the lane.
    pub lane: CallerName,
    /// Last message that was read before.
    pub after: Option<Place>,
    /// Maximum number of messages.
    pub most: u32,
}

/// Store of records, limits and messages. A method that takes a batch needs the same number of
/// round trips whatever the size of the batch.
///
/// The futures are boxed. They take up to 50 KiB, and without optimization each future around
/// them would put copies of that on the stack.
#[async_trait]
pub trait RecordStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the name of the database system, as `db.system.name` of OpenTelemetry has it.
    fn system(&self) -> &'static str;

    /// Migrates the schema to this version. Any number of replicas may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the cause.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Stores this fingerprint of an index key if the store has none. Returns the stored one.
    async fn store_fingerprint(&self, own: &[u8; 32]) -> Result<Vec<u8>, StoreError>;

    /// Verifies that the records belong to the index key of this `fingerprint`. The first replica
    /// stores its fingerprint; all others must have the same one.
    ///
    /// # Errors
    /// [`StoreError::IndexKeyMismatch`] if the stored fingerprint differs.
    async fn verify_index_key(&self, fingerprint: &[u8; 32]) -> Result<(), StoreError> {
        if self.store_fingerprint(fingerprint).await? == fingerprint {
            Ok(())
        } else {
            Err(StoreError::IndexKeyMismatch)
        }
    }

    /// Loads records, limits and the store's clock. The clock is not read before them.
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError>;

    /// Writes the items of `batch` with matching expected versions, durably and in one transaction.
    /// No key may be in it twice.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the outcome is unknown: either all items with a matching
    /// version were written, or nothing was. After any other error nothing was written.
    async fn write(&self, batch: &WriteBatch) -> Result<WriteResult, StoreError>;

    /// Returns which of these rows other sessions keep locked at the moment, without waiting for
    /// them. Rows that are being inserted are not found.
    ///
    /// # Errors
    /// Those of the store, such as [`StoreError::Locked`] if a whole table is locked.
    async fn locked_rows(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LockedRows, StoreError>;

    /// Loads the messages of records, the oldest of each record first.
    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError>;

    /// Returns the lanes with messages that are not final: callers, and the empty name for
    /// messages of a version without lanes.
    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError>;

    /// Loads the due messages of these lanes, oldest first. A message that was written later than
    /// now is due as well, because the clock stepped back.
    async fn due_messages(&self, lanes: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError>;

    /// Loads the messages of records that providers have accepted, oldest first.
    async fn delivered_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError>;

    /// Removes up to `limit` records that are removable at `now`, as many limits that are full
    /// (some stores keep these for another hour), and the removable messages of as many records.
    /// Returns the numbers of removed rows. A message that is not final is kept for another
    /// [`UNFINISHED_MESSAGE_RETENTION`].
    async fn purge(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError>;

    /// Counts the records and messages as of `now`.
    async fn stats(&self, now: Timestamp) -> Result<StoreStats, StoreError>;

    /// Checks that the store answers.
    ///
    /// # Errors
    /// The cause if it does not. A separate connection finds it out if the pool does not
    /// report it.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Returns the numbers of idle and of used connections.
    fn connections(&self) -> (u32, u32);

    /// Closes all connections after the statements that still run.
    async fn close(&self);
}

/// Error of a store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer, or not in time.
    #[error("{0}")]
    Unavailable(String),
    /// The database aborted the transaction because of another one. A retry helps.
    #[error("transaction aborted because of another one: {0}")]
    Conflict(String),
    /// Another session holds the lock of a row for too long. Nothing was written.
    #[error("a row is locked by another session: {0}")]
    Locked(String),
    /// The store holds a value that otpd never wrote.
    #[error("the store holds a value that otpd did not write: {0}")]
    Corrupt(String),
    /// The store rejected a written value.
    #[error("the store rejected a value: {0}")]
    Refused(String),
    /// The records were made with another index key.
    #[error(
        "keys: the database's records were made with another index key; use the keys that it was first started with, or empty the otp_ tables for a fresh start"
    )]
    IndexKeyMismatch,
    /// `database_url` does not name a usable store.
    #[error("database_url: {0}")]
    Url(String),
}

impl StoreError {
    /// Classifies a database error by its remedy.
    fn from_database(error: &sqlx::Error) -> Self {
        const SERIALIZATION_FAILURE: &str = "40001";
        const DEADLOCK_DETECTED: &str = "40P01";
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        const DATA_EXCEPTION: &str = "22";

        let database_error = error.as_database_error();
        let code = database_error.and_then(sqlx::error::DatabaseError::code);
        let kind = database_error.map(sqlx::error::DatabaseError::kind);
        match (error, code.as_deref(), kind) {
            (_, Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED), _) => {
                Self::Conflict(error.to_string())
            }
            (_, Some(LOCK_NOT_AVAILABLE), _) => Self::Locked(error.to_string()),
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

/// Awaits `work` for at most `timeout`.
///
/// # Errors
/// [`StoreError::Unavailable`] if it takes longer, and the errors of `work`.
pub fn with_timeout<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> impl Future<Output = Result<T, StoreError>> {
    let work = tokio::time::timeout(timeout, work);
    let no_answer = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
    async move { work.await.unwrap_or_else(no_answer) }
}

/// Options of the store: the `[store]` table of the configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// Maximum number of connections to PostgreSQL, per replica; at least 1.
    pub max_connections: u32,
    /// Maximum number of requests that are loaded and written together, 1 to 4096.
    pub max_batch: u32,
    /// Maximum number of requests in the admission queue, at least 1; further ones are refused at
    /// once with `OVERLOADED`.
    pub queue_size: u32,
    /// Maximum wait of a request behind others, estimated from the duration of the last batches.
    /// A request that would wait longer, or beyond its deadline, is refused at once with
    /// `OVERLOADED`.
    #[serde(with = "humantime_serde")]
    pub max_queue_wait: Duration,
    /// Number of batches that are executed at the same time, at least 1. One is fastest if
    /// PostgreSQL is near.
    pub batch_writers: u16,
    /// Maximum duration of one statement, including the wait for a connection.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Interval of the health check of the store.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// Interval of purges, which remove records that no reply depends on. A purge follows a jump
    /// of the store's clock only if the next one confirms it.
    #[serde(with = "humantime_serde")]
    pub purge_interval: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            max_batch: 256,
            queue_size: 4_096,
            max_queue_wait: Duration::from_secs(1),
            batch_writers: 1,
            timeout: Duration::from_secs(2),
            probe_interval: Duration::from_secs(1),
            purge_interval: Duration::from_mins(1),
        }
    }
}
