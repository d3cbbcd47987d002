//! Working set of a batch: the loaded state, and on top of it the decisions.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::{DecidedWrites, Job};
use crate::store::{
    ExpectedLimit, LimitWrite, LoadedState, MessageWrite, RecordWrite, RowVersion, SealedBytes,
    StoreClock, StoreError, VersionedLimit, VersionedRecord, WriteBatch, WriteResult,
};
use otpd_rules::{BatchedLimit, LimitKey, Record, RecordKey, Timestamp};

/// The state of a batch between its load and its write.
#[derive(Debug)]
pub(super) struct WorkingSet {
    clock: StoreClock,
    /// The store's time when the first job is decided. All are decided at this instant, so
    /// that their charges on one rate limit can be added up.
    now: Timestamp,
    /// Version of all rows that this batch writes.
    version: RowVersion,
    records: HashMap<RecordKey, RecordSlot>,
    /// Records that exist and cannot be read, with the reason.
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

/// Part of the write of a changed record.
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

/// View of a job on the store: as it will be once the decisions before it in its batch are
/// committed.
#[derive(Debug)]
pub struct WorkingSetView<'a>(&'a WorkingSet);

impl WorkingSetView<'_> {
    /// Returns the instant at which all jobs of this batch are decided.
    pub fn now(&self) -> Timestamp {
        self.0.now
    }

    /// Returns the version of all rows that this batch writes.
    pub fn version(&self) -> RowVersion {
        self.0.version
    }

    /// Returns the record of `key`, if there is one.
    pub fn record(&self, key: &RecordKey) -> Option<&Record<SealedBytes>> {
        self.0.records.get(key).map(|slot| &slot.record)
    }

    /// Returns the instant at which a rate limit will be full; `None` if it is full.
    pub fn limit(&self, key: &LimitKey) -> Option<Timestamp> {
        Some(self.0.limits.get(key)?.limit.full_at)
    }

    /// Returns the version of a rate limit at the load.
    pub fn loaded_limit(&self, key: &LimitKey) -> Option<RowVersion> {
        self.0.limits.get(key)?.loaded
    }
}

impl WorkingSet {
    /// Returns the working set of a batch that writes `version`.
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

    /// Returns the reason why a record cannot be read, if so.
    pub fn unreadable(&self, key: &RecordKey) -> Option<&StoreError> {
        self.unreadable.get(key)
    }

    pub fn view(&self) -> WorkingSetView<'_> {
        WorkingSetView(self)
    }

    /// Applies a decision about the record of `key`.
    pub fn apply(&mut self, key: RecordKey, change: DecidedWrites) {
        let DecidedWrites {
            record,
            limits,
            message,
        } = change;
        let charged = limits.iter().map(|(key, _)| *key);
        if let Some((record, removable_at)) = record {
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
                    // The charges of earlier decisions of the batch must be written as well.
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

    /// Adds a message to be replaced.
    pub fn replace(&mut self, message: MessageWrite) {
        self.messages.push(message);
    }

    /// Returns whether a job's decision consists of writes, or depends on writes, of this
    /// batch.
    pub fn is_pending(&self, job: &dyn Job) -> bool {
        let limit_changed = |key| self.limit_changed(key);
        self.record_changed(&job.record()) || job.limits().iter().any(limit_changed)
    }

    fn record_changed(&self, key: &RecordKey) -> bool {
        let slot = self.records.get(key);
        slot.is_some_and(|slot| slot.changed.is_some())
    }

    fn limit_changed(&self, key: &LimitKey) -> bool {
        self.limits.get(key).is_some_and(LimitSlot::is_changed)
    }

    /// Returns the writes, no row twice, and the keys to compare their result with.
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

/// Keys of all rows that a batch writes.
pub(super) struct CommitDependencies {
    records: HashSet<RecordKey>,
    limits: HashSet<LimitKey>,
}

impl CommitDependencies {
    /// Returns whether all writes that a job's decision consists of, or depends on, were done.
    /// (It may ask for more: for changes of others after it. Then a committed decision is made
    /// once more, and finds its own outcome.)
    pub fn is_satisfied(&self, job: &dyn Job, written: &WriteResult) -> bool {
        let key = &job.record();
        let is_record_written = !self.records.contains(key) || written.records.contains(key);
        let is_limit_written = |key| !self.limits.contains(key) || written.limits.contains_key(key);
        is_record_written && job.limits().iter().all(is_limit_written)
    }
}
