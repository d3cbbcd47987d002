//! A store in memory with faults on demand.

mod record_store;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::store::{
    DeliveredMessage, ExpectedLimit, FoundMessage, LaneCursor, LoadedState, LockedRows,
    MessageWrite, Place, PurgeStats, RecordStore, RecordWrite, RowVersion, SealedBytes, StoreClock,
    StoreError, StoreStats, VersionedLimit, VersionedMessage, VersionedRecord, WriteBatch,
    WriteResult,
};
use otpd_rules::{
    AttemptLog, CallerName, Challenge, ChallengeNonce, ChallengeState, Channel, FailureCounter,
    IdempotencyLog, LimitKey, MessageId, MessageState, OutboxMessage, Purpose, Record, RecordKey,
    SendLimits, Timestamp,
};

/// The store's clock at each load.
pub const NOW: Timestamp = Timestamp::from_milliseconds(1_000_000);

/// Fault of the store in place of one load or write.
#[derive(Debug)]
pub enum Instead {
    /// Fails before anything happens.
    Fail(StoreError),
    /// Does it, and loses the acknowledgement.
    DoAndFail,
    /// Never answers.
    Hang,
    /// Has another replica change a record first.
    Overtake(RecordKey),
    /// Has another replica charge a limit first, a hundred times.
    ChargeLimit(LimitKey),
}

#[derive(Debug, Default)]
struct Contents {
    records: HashMap<RecordKey, VersionedRecord>,
    limits: HashMap<LimitKey, VersionedLimit>,
    messages: HashMap<MessageId, RowVersion>,
    loads: Vec<usize>,
    writes: Vec<WriteBatch>,
    instead_of_loads: VecDeque<Instead>,
    instead_of_writes: VecDeque<Instead>,
    /// Records of each load of messages.
    message_loads: Vec<Vec<RecordKey>>,
    /// Records that the store neither loads nor writes.
    poisoned: HashSet<RecordKey>,
    /// Records whose messages cannot be read.
    poisoned_messages: HashSet<RecordKey>,
    /// Records whose row another session has locked.
    locked: HashSet<RecordKey>,
    /// Records whose row another session is inserting, of which a query for locks knows nothing.
    inserted: HashSet<RecordKey>,
    /// Number of records of each query for locks.
    lock_queries: Vec<usize>,
    /// Records that exist and cannot be read.
    unreadable: HashSet<RecordKey>,
    /// How long a write takes.
    write_time: Duration,
    versions: i64,
}

/// The store.
#[derive(Debug)]
pub struct InMemory {
    contents: Mutex<Contents>,
    /// One permit lets one load through, one lets one write through.
    loads: Semaphore,
    writes: Semaphore,
}

impl Default for InMemory {
    /// Returns a store that waits for `let_loads` and `let_writes`.
    fn default() -> Self {
        Self {
            contents: Mutex::default(),
            loads: Semaphore::new(0),
            writes: Semaphore::new(0),
        }
    }
}

impl InMemory {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents
            .lock()
            .expect("nobody panics while it is held")
    }

    pub fn let_loads(&self, count: usize) {
        self.loads.add_permits(count);
    }

    pub fn let_writes(&self, count: usize) {
        self.writes.add_permits(count);
    }

    pub fn instead_of_a_load(&self, instead: Instead) {
        self.contents().instead_of_loads.push_back(instead);
    }

    pub fn instead_of_a_write(&self, instead: Instead) {
        self.contents().instead_of_writes.push_back(instead);
    }

    /// Has each write take its time.
    pub fn slow_down(&self, write_time: Duration) {
        self.contents().write_time = write_time;
    }

    /// Makes a record unreadable.
    pub fn garble(&self, key: RecordKey) {
        self.contents().unreadable.insert(key);
    }

    pub fn poison(&self, key: RecordKey) {
        self.contents().poisoned.insert(key);
    }

    pub fn poison_messages(&self, key: RecordKey) {
        self.contents().poisoned_messages.insert(key);
    }

    /// Locks the row of a record.
    pub fn lock(&self, key: RecordKey) {
        self.contents().locked.insert(key);
    }

    /// Locks the row of a record as an insert of it does.
    pub fn lock_as_insert(&self, key: RecordKey) {
        self.contents().inserted.insert(key);
    }

    /// Returns the number of records of each query for locks.
    pub fn lock_queries(&self) -> Vec<usize> {
        self.contents().lock_queries.clone()
    }

    /// Ends the lock of the row of a record.
    pub fn unlock(&self, key: RecordKey) {
        self.contents().locked.remove(&key);
    }

    /// Returns the records of each load of messages.
    pub fn message_loads(&self) -> Vec<Vec<RecordKey>> {
        self.contents().message_loads.clone()
    }

    /// Adds a message, and returns its version.
    pub fn add_message(&self, id: MessageId) -> RowVersion {
        let mut contents = self.contents();
        let version = contents.next_version();
        contents.messages.insert(id, version);
        version
    }

    /// Returns the count of a record.
    pub fn counted(&self, key: RecordKey) -> u32 {
        let contents = self.contents();
        let stored = contents.records.get(&key);
        stored.map_or(0, |stored| stored.record.challenge.attempts)
    }

    /// How often a limit was charged.
    pub fn charged(&self, key: LimitKey) -> u64 {
        let contents = self.contents();
        let stored = contents.limits.get(&key);
        stored.map_or(0, |stored| NOW.duration_until(stored.full_at).as_secs())
    }

    /// How many records each load was about.
    pub fn loads(&self) -> Vec<usize> {
        self.contents().loads.clone()
    }

    /// Returns all writes.
    pub fn writes(&self) -> Vec<WriteBatch> {
        self.contents().writes.clone()
    }
}

impl Contents {
    fn next_version(&mut self) -> RowVersion {
        self.versions += 1;
        RowVersion(self.versions)
    }

    fn overtake(&mut self, key: RecordKey) {
        let version = self.next_version();
        let stored = self.records.get(&key);
        let count = stored.map_or(0, |stored| stored.record.challenge.attempts) + 100;
        let record = record(count);
        self.records
            .insert(key, VersionedRecord { version, record });
    }

    fn charge_limit(&mut self, key: LimitKey) {
        let version = self.next_version();
        let full_at = self.limits.get(&key).map_or(NOW, |limit| limit.full_at);
        let full_at = full_at.saturating_add(Duration::from_secs(100));
        self.limits.insert(key, VersionedLimit { version, full_at });
    }

    fn write(&mut self, changes: &WriteBatch) -> WriteResult {
        let mut written = WriteResult::default();
        let mut seen = HashSet::new();
        for change in &changes.limits {
            assert!(seen.insert(change.key), "a limit is there twice");
            let stored = self.limits.get(&change.key).copied();
            let is_expected = match change.expected {
                ExpectedLimit::Absent => stored.is_none(),
                ExpectedLimit::Present => stored.is_some(),
                ExpectedLimit::Unchanged(version) => {
                    stored.is_some_and(|stored| stored.version == version)
                }
            };
            let updated = change.delta.apply(stored.map(|stored| stored.full_at));
            if let Some(full_at) = updated.filter(|_| is_expected) {
                let version = change.version;
                self.limits
                    .insert(change.key, VersionedLimit { version, full_at });
                written.limits.insert(change.key, full_at);
            }
        }
        let mut seen = HashSet::new();
        for change in &changes.records {
            assert!(seen.insert(change.key), "a record is there twice");
            let stored = self.records.get(&change.key).map(|stored| stored.version);
            let paid = change
                .limits
                .iter()
                .all(|limit| written.limits.contains_key(limit));
            if stored == change.expected && paid {
                let (version, record) = (change.version, change.record.clone());
                self.records
                    .insert(change.key, VersionedRecord { version, record });
                written.records.insert(change.key);
            }
        }
        let mut seen = HashSet::new();
        for change in &changes.messages {
            let id = change.message.id;
            assert!(seen.insert(id), "a message is there twice");
            if change.expected.is_some() && self.messages.get(&id).copied() == change.expected {
                self.messages.insert(id, change.version);
                written.messages.insert(id);
            }
        }
        written
    }

    /// Has the next fault, if there is one.
    fn do_instead(&mut self, instead: Option<Instead>) -> Step {
        match instead {
            None => Step::Work,
            Some(Instead::Fail(error)) => Step::Fail(error),
            Some(Instead::DoAndFail) => Step::WorkAndFail,
            Some(Instead::Hang) => Step::Hang,
            Some(Instead::Overtake(key)) => {
                self.overtake(key);
                Step::Work
            }
            Some(Instead::ChargeLimit(key)) => {
                self.charge_limit(key);
                Step::Work
            }
        }
    }
}

enum Step {
    Work,
    Fail(StoreError),
    WorkAndFail,
    Hang,
}

pub fn unavailable() -> StoreError {
    StoreError::Unavailable("the test made it fail".to_owned())
}

pub const fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

pub const fn key(byte: u8) -> RecordKey {
    RecordKey([byte; 32])
}

pub const fn limit(byte: u8) -> LimitKey {
    LimitKey([byte; 32])
}

/// A change of a message that a store has under `expected`.
pub fn settlement(id: MessageId, expected: RowVersion, version: i64) -> MessageWrite {
    MessageWrite {
        key: key(0),
        expected: Some(expected),
        version: RowVersion(version),
        message: OutboxMessage {
            id,
            challenge: ChallengeNonce([7; 16]),
            channel: Channel::Sms,
            predecessors: 0,
            state: MessageState::Sent,
            provider: String::new(),
            history: AttemptLog::default(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: at(0),
            due_at: None,
        },
    }
}

pub fn record(count: u32) -> Record<SealedBytes> {
    Record {
        caller: CallerName::new("caller"),
        purpose: Purpose::default(),
        challenge: Challenge {
            nonce: ChallengeNonce([7; 16]),
            state: ChallengeState::Spent,
            channel: Channel::Sms,
            created_at: at(0),
            expires_at: at(0),
            attempts: count,
            sends: 1,
        },
        sent_at: at(0),
        failures: FailureCounter {
            count: 0,
            last_at: at(0),
        },
        send_limits: SendLimits::default(),
        memory: IdempotencyLog::default(),
        written_at: at(0),
    }
}
