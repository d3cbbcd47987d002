//! Where records are kept. A store loads and writes what it is told, and says what
//! time it is; it decides nothing.
//!
//! [`RecordStore`] is the contract, which every store proves by one conformance suite.
//! [`RecordStoreHandle`] is the one that the configuration chose.

mod backend;
mod clock;
pub mod health;
mod instrument;
mod message_row;
mod migration;
mod postgres;
mod record_row;
mod sqlite;
mod stats;
mod waiting;
mod write_batch;

use std::{collections::HashMap, future::Future, time::Duration};

use rand::Rng;
use sqlx::error::ErrorKind;

use otpd_rules::{CallerName, LimitKey, MessageId, OutboxMessage, Record, RecordKey, Timestamp};
use postgres::PostgresStore;

pub use crate::metrics::PurgeStats;
pub use backend::RecordStoreHandle;
pub use clock::StoreClock;
pub use postgres::SESSION_OPTIONS;
pub use sqlite::SqliteStore;
pub use stats::{DeliveredMessage, StoreStats};
pub use write_batch::{
    ExpectedLimit, LimitWrite, MessageWrite, RecordWrite, WriteBatch, WriteResult,
};

/// Time for which a message that never ended is kept longer. Replicas end every message that they
/// can read soon after its code has expired, so no replica could read this one.
pub const UNENDED_KEPT: Duration = Duration::from_hours(1);

/// What is secret, as a store sees it: encrypted and authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBytes(pub Vec<u8>);

/// Tells one write of a record from every other; random, so that a record that was
/// removed and made again cannot repeat one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowVersion(pub i64);

impl RowVersion {
    /// A new one.
    pub fn random(random: &mut impl Rng) -> Self {
        Self(random.next_u64().cast_signed())
    }
}

/// A record as it was loaded.
#[derive(Clone, Debug)]
pub struct VersionedRecord {
    /// What a writer must name to replace it.
    pub version: RowVersion,
    /// The record.
    pub record: Record<SealedBytes>,
}

/// A shared limit as it was loaded.
#[derive(Clone, Copy, Debug)]
pub struct VersionedLimit {
    /// What a writer must name to replace it.
    pub version: RowVersion,
    /// When it will be full again.
    pub full_at: Timestamp,
}

/// What a load saw.
#[derive(Debug)]
pub struct LoadedState {
    /// The store's clock at the load.
    pub clock: StoreClock,
    /// Those of the asked-for records that exist and can be read.
    pub records: HashMap<RecordKey, VersionedRecord>,
    /// Records that exist and cannot be read, each with the reason.
    pub unreadable: HashMap<RecordKey, StoreError>,
    /// Those of the asked-for limits that exist.
    pub limits: HashMap<LimitKey, VersionedLimit>,
}

impl LoadedState {
    /// A snapshot without any record or limit.
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

/// A message as it was loaded.
#[derive(Clone, Debug)]
pub struct VersionedMessage {
    /// The record whose code it carries.
    pub key: RecordKey,
    /// What a writer must name to replace it.
    pub version: RowVersion,
    /// The message.
    pub message: OutboxMessage<SealedBytes>,
}

/// Message that was found in a batch. A row that cannot be read harms no other one.
#[derive(Clone, Debug)]
pub struct FoundMessage {
    /// Record whose code it carries.
    pub key: RecordKey,
    /// Caller in whose lane it waits; empty if a version without lanes wrote it.
    pub lane: CallerName,
    /// Position in that lane.
    pub place: Place,
    /// The message, or the reason why it cannot be read.
    pub message: Result<VersionedMessage, StoreError>,
}

/// Position of a message in the lane of its caller: oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Instant at which the message was asked for.
    pub created_at: Timestamp,
    /// Distinguishes messages of one instant.
    pub id: MessageId,
}

/// Part of a caller's lane that is to be looked through.
#[derive(Clone, Debug)]
pub struct LaneCursor {
    /// Caller whose lane it is.
    pub lane: CallerName,
    /// Last message that was found in it before.
    pub after: Option<Place>,
    /// Maximum number of messages.
    pub most: u32,
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
    ) -> impl Future<Output = Result<LoadedState, StoreError>> + Send;

    /// Writes, durably and in one transaction, what of `changes` is as expected. No
    /// key may be in it twice.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: everything that was as expected was written, or
    /// nothing. All others: nothing was.
    fn write(
        &self,
        changes: &WriteBatch,
    ) -> impl Future<Output = Result<WriteResult, StoreError>> + Send;

    /// Loads the messages of records, each record's oldest first.
    fn load_messages(
        &self,
        records: &[RecordKey],
    ) -> impl Future<Output = Result<Vec<FoundMessage>, StoreError>> + Send;

    /// Returns the lanes with messages that are not final: callers, and the empty name for
    /// messages of a version that knew no lanes.
    fn waiting_lanes(&self) -> impl Future<Output = Result<Vec<CallerName>, StoreError>> + Send;

    /// Loads the messages of these lanes that have to be looked after now, oldest first.
    /// A message that was written later than now has to be, because the clock stepped back.
    fn due_messages(
        &self,
        turns: &[LaneCursor],
    ) -> impl Future<Output = Result<Vec<FoundMessage>, StoreError>> + Send;

    /// Removes up to `limit` records that are removable at `now`, as many limits that
    /// are full (some stores leave them for an hour), and the removable messages of as many
    /// records, and returns how many. A message that is not final is kept for another
    /// [`UNENDED_KEPT`].
    fn sweep(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<PurgeStats, StoreError>> + Send;
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
    IndexKeyMismatch,
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
pub fn with_timeout<T>(
    may_take: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> impl Future<Output = Result<T, StoreError>> {
    let work = tokio::time::timeout(may_take, work);
    let no_answer = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
    async move { work.await.unwrap_or_else(no_answer) }
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
    pub queue_size: u32,
    /// How long a request may have to wait behind others, by the pace of the last batches;
    /// what would wait longer, or longer than its caller, is refused at once with
    /// `OVERLOADED`.
    #[serde(with = "humantime_serde")]
    pub max_queue_wait: Duration,
    /// How many groups of requests are on their way to the store at once; one is
    /// fastest where PostgreSQL is near.
    pub batch_writers: u16,
    /// How long one statement, with the wait for a connection, may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How often the store is asked for a sign of life.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// Interval of sweeps, which remove records that no answer depends on. A sweep follows a
    /// jump of the store's clock only if the next one confirms it.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
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
            sweep_interval: Duration::from_mins(1),
        }
    }
}
