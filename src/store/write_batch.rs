//! What is to be written, and what was.

use std::collections::{HashMap, HashSet};

use super::{RowVersion, SealedBytes};
use otpd_rules::{LimitDelta, LimitKey, MessageId, OutboxMessage, Record, RecordKey, Timestamp};

/// What is to be written in one transaction. No key is in it twice.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// Limits.
    pub limits: Vec<LimitWrite>,
    /// Records.
    pub records: Vec<RecordWrite>,
    /// Messages: new ones, each of which is written only if the record that it is about
    /// is, by the same transaction; and old ones.
    pub messages: Vec<MessageWrite>,
}

impl WriteBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.records.is_empty() && self.messages.is_empty()
    }
}

/// Update of a limit, which is written if the limit has room for it.
#[derive(Clone, Copy, Debug)]
pub struct LimitWrite {
    /// Which limit.
    pub key: LimitKey,
    /// Condition besides the room.
    pub expected: ExpectedLimit,
    /// The version that it gets.
    pub version: RowVersion,
    /// The update.
    pub delta: LimitDelta,
}

/// Condition on a stored limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedLimit {
    /// It does not exist.
    Absent,
    /// It exists, in whatever state.
    Present,
    /// It still has this version.
    Unchanged(RowVersion),
}

/// A record to be written if it is unchanged.
#[derive(Clone, Debug)]
pub struct RecordWrite {
    /// Which record.
    pub key: RecordKey,
    /// The version that it must still have; `None`: it must not exist.
    pub expected: Option<RowVersion>,
    /// The version that it gets.
    pub version: RowVersion,
    /// What it becomes.
    pub record: Record<SealedBytes>,
    /// From when on a sweep may remove it.
    pub removable_at: Timestamp,
    /// Limits among the same [`WriteBatch`] that it is charged to: unless all of them are
    /// written, it is not. (They may be although it is not: the request has then paid
    /// them when it is decided again.)
    pub limits: Vec<LimitKey>,
}

/// A message to be written: a new one, or one that is unchanged.
#[derive(Clone, Debug)]
pub struct MessageWrite {
    /// The record whose code it carries.
    pub key: RecordKey,
    /// The version that it must still have; `None`: it is new.
    pub expected: Option<RowVersion>,
    /// The version that it gets.
    pub version: RowVersion,
    /// What it becomes.
    pub message: OutboxMessage<SealedBytes>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteResult {
    /// Limits, with the instants when they are full again.
    pub limits: HashMap<LimitKey, Timestamp>,
    /// Records, and with them their new messages.
    pub records: HashSet<RecordKey>,
    /// Messages that were there before.
    pub messages: HashSet<MessageId>,
}
