//! What a batch works on: what was loaded, and on top of it what was decided.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::{
    DecidedWrites, Job, MessageWrite, RowVersion, SealedBytes, StoreClock, VersionedRecord,
    WriteResult,
};
use crate::store::{
    ExpectedLimit, LimitWrite, LoadedState, RecordWrite, StoreError, VersionedLimit, WriteBatch,
};
use otpd_rules::{BatchedLimit, LimitKey, Record, RecordKey, Timestamp};

/// The state of a batch between its load and its write.
#[derive(Debug)]
pub(super) struct WorkingSet {
    clock: StoreClock,
    /// The store's clock when the first job is decided about. All are decided at this
    /// instant, so that their charges on one limit can be added up.
    now: Timestamp,
    /// The version of everything that this batch writes.
    version: RowVersion,
    records: HashMap<RecordKey, RecordSlot>,
    /// Records that exist and cannot be read.
    unreadable: HashMap<RecordKey, StoreError>,
    limits: HashMap<LimitKey, LimitSlot>,
    messages: Vec<MessageWrite>,
}

#[derive(Debug)]
struct RecordSlot {
    loaded: Option<RowVersion>,
    record: Record<SealedBytes>,
    changed: Option<PendingWrite>,
}

/// What a changed record is written with.
#[derive(Debug)]
struct PendingWrite {
    removable_at: Timestamp,
    limits: Vec<LimitKey>,
}

#[derive(Debug)]
struct LimitSlot {
    loaded: Option<RowVersion>,
    limit: BatchedLimit,
}

impl LimitSlot {
    fn is_changed(&self) -> bool {
        self.limit.delta.is_some()
    }
}

/// What a job sees: the store as it will be once what was decided before it in its batch
/// has been written.
#[derive(Debug)]
pub struct WorkingSetView<'a>(&'a WorkingSet);

impl WorkingSetView<'_> {
    /// The instant at which everything in this batch is decided.
    pub fn now(&self) -> Timestamp {
        self.0.now
    }

    /// The version of everything that this batch writes.
    pub fn version(&self) -> RowVersion {
        self.0.version
    }

    /// A record.
    pub fn record(&self, key: &RecordKey) -> Option<&Record<SealedBytes>> {
        self.0.records.get(key).map(|slot| &slot.record)
    }

    /// When a limit is full again; `None` if it is.
    pub fn limit(&self, key: &LimitKey) -> Option<Timestamp> {
        Some(self.0.limits.get(key)?.limit.full_at)
    }

    /// The version that a limit had at the load.
    pub fn loaded_limit(&self, key: &LimitKey) -> Option<RowVersion> {
        self.0.limits.get(key)?.loaded
    }
}

impl WorkingSet {
    /// A board of what was loaded, for a batch that writes `version`.
    pub fn new(snapshot: LoadedState, version: RowVersion) -> Self {
        let record = |(key, VersionedRecord { version, record })| {
            let slot = RecordSlot {
                loaded: Some(version),
                record,
                changed: None,
            };
            (key, slot)
        };
        let limit = |(key, VersionedLimit { version, full_at })| {
            let slot = LimitSlot {
                loaded: Some(version),
                limit: BatchedLimit::new(full_at),
            };
            (key, slot)
        };
        Self {
            clock: snapshot.clock,
            now: snapshot.clock.now(),
            version,
            records: snapshot.records.into_iter().map(record).collect(),
            unreadable: snapshot.unreadable,
            limits: snapshot.limits.into_iter().map(limit).collect(),
            messages: Vec::new(),
        }
    }

    pub fn clock(&self) -> StoreClock {
        self.clock
    }

    /// Returns why a record of a job cannot be read, if so.
    pub fn unreadable(&self, job: &dyn Job) -> Option<&StoreError> {
        let mut records = job.records().iter();
        records.find_map(|key| self.unreadable.get(key))
    }

    pub fn view(&self) -> WorkingSetView<'_> {
        WorkingSetView(self)
    }

    /// Takes in what a job decided about the record of `key`.
    pub fn apply(&mut self, key: Option<RecordKey>, change: DecidedWrites) {
        let DecidedWrites {
            record,
            limits,
            message,
        } = change;
        let charged = limits.iter().map(|(key, _)| *key);
        if let Some((key, (record, removable_at))) = key.zip(record) {
            match self.records.entry(key) {
                Entry::Vacant(vacant) => {
                    vacant.insert(RecordSlot {
                        loaded: None,
                        record,
                        changed: Some(PendingWrite {
                            removable_at,
                            limits: charged.collect(),
                        }),
                    });
                }
                Entry::Occupied(mut occupied) => {
                    let slot = occupied.get_mut();
                    slot.record = record;
                    // What was charged before this in the batch is still to be waited for.
                    let before = slot.changed.take().map(|changed| changed.limits);
                    let mut all = before.unwrap_or_default();
                    all.extend(charged);
                    slot.changed = Some(PendingWrite {
                        removable_at,
                        limits: all,
                    });
                }
            }
        }
        for (key, update) in limits {
            let slot = self.limits.entry(key).or_insert(LimitSlot {
                loaded: None,
                limit: BatchedLimit::new(self.now),
            });
            slot.limit.update(update, self.now);
        }
        self.messages.extend(message);
    }

    /// Has a message replaced.
    pub fn replace(&mut self, message: MessageWrite) {
        self.messages.push(message);
    }

    /// Whether a job's decision is of, or rests on, what is still to be written.
    pub fn is_pending(&self, job: &dyn Job) -> bool {
        let record_changed = |key| self.record_changed(key);
        let limit_changed = |key| self.limit_changed(key);
        job.records().iter().any(record_changed) || job.limits().iter().any(limit_changed)
    }

    fn record_changed(&self, key: &RecordKey) -> bool {
        let slot = self.records.get(key);
        slot.is_some_and(|slot| slot.changed.is_some())
    }

    fn limit_changed(&self, key: &LimitKey) -> bool {
        self.limits.get(key).is_some_and(LimitSlot::is_changed)
    }

    /// What is to be written, nothing twice; and what to hold against what was.
    pub fn into_write_batch(self) -> (WriteBatch, CommitDependencies) {
        let version = self.version;
        let limits = self.limits.into_iter().filter_map(|(key, slot)| {
            let expected = match slot.loaded {
                None => ExpectedLimit::Absent,
                Some(loaded) if slot.limit.is_clamped => ExpectedLimit::Unchanged(loaded),
                Some(_) => ExpectedLimit::Present,
            };
            Some(LimitWrite {
                key,
                expected,
                version,
                delta: slot.limit.delta?,
            })
        });
        let records = self.records.into_iter().filter_map(|(key, slot)| {
            let mut changed = slot.changed?;
            changed.limits.sort_unstable();
            changed.limits.dedup();
            Some(RecordWrite {
                key,
                expected: slot.loaded,
                version,
                record: slot.record,
                removable_at: changed.removable_at,
                limits: changed.limits,
            })
        });
        let changes = WriteBatch {
            limits: limits.collect(),
            records: records.collect(),
            messages: self.messages,
        };
        let pending = CommitDependencies {
            records: changes.records.iter().map(|change| change.key).collect(),
            limits: changes.limits.iter().map(|change| change.key).collect(),
        };
        (changes, pending)
    }
}

/// What a batch is about to write.
pub(super) struct CommitDependencies {
    records: HashSet<RecordKey>,
    limits: HashSet<LimitKey>,
}

impl CommitDependencies {
    /// Whether everything was written that a job's decision is of, or rests on. (It may
    /// ask for more: for what others changed after it. Then a decision that stands is
    /// made once more, and finds its own answer.)
    pub fn is_satisfied(&self, job: &dyn Job, written: &WriteResult) -> bool {
        let record_stands = |key| !self.records.contains(key) || written.records.contains(key);
        let limit_stands = |key| !self.limits.contains(key) || written.limits.contains_key(key);
        job.records().iter().all(record_stands) && job.limits().iter().all(limit_stands)
    }
}
