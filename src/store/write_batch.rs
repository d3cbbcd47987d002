//! Batch of writes, and its result.

use std::collections::{HashMap, HashSet};

use super::{RowVersion, SealedBytes};
use otpd_rules::{LimitDelta, LimitKey, MessageId, OutboxMessage, Record, RecordKey, Timestamp};

/// Writes of one transaction. No key is in it twice.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// Writes of limits.
    pub limits: Vec<LimitWrite>,
    /// Writes of records.
    pub records: Vec<RecordWrite>,
    /// Writes of messages. A new message is written only if the same transaction writes the
    /// record of the code that it carries.
    pub messages: Vec<MessageWrite>,
}

impl WriteBatch {
    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.records.is_empty() && self.messages.is_empty()
    }
}

/// Update of a limit, which is written if the limit has room for it.
#[derive(Clone, Copy, Debug)]
pub struct LimitWrite {
    /// Key of the limit.
    pub key: LimitKey,
    /// Condition in addition to the room.
    pub expected: ExpectedLimit,
    /// New version.
    pub version: RowVersion,
    /// Update of the limit.
    pub delta: LimitDelta,
}

/// Condition on a stored limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedLimit {
    /// The limit does not exist.
    Absent,
    /// The limit exists, in any state.
    Present,
    /// The limit still has this version.
    Unchanged(RowVersion),
}

/// Write of a record, applied if the record is unchanged.
#[derive(Clone, Debug)]
pub struct RecordWrite {
    /// Key of the record.
    pub key: RecordKey,
    /// Version that the record must still have; `None` if it must not exist.
    pub expected: Option<RowVersion>,
    /// New version.
    pub version: RowVersion,
    /// New state of the record.
    pub record: Record<SealedBytes>,
    /// Time from which a purge may remove it.
    pub removable_at: Timestamp,
    /// Limits of the same [`WriteBatch`] that the record is charged to. The record is written only
    /// if all of them are. The limits may be written without the record; the request has then paid
    /// them when it is decided again.
    pub limits: Vec<LimitKey>,
}

/// Write of a new message, or of one that is unchanged.
#[derive(Clone, Debug)]
pub struct MessageWrite {
    /// Record of the code that it carries.
    pub key: RecordKey,
    /// Version that the message must still have; `None` if it is new.
    pub expected: Option<RowVersion>,
    /// New version.
    pub version: RowVersion,
    /// New state of the message.
    pub message: OutboxMessage<SealedBytes>,
}

/// Items that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteResult {
    /// Written limits, with the times at which they are full again.
    pub limits: HashMap<LimitKey, Timestamp>,
    /// Written records, and with them their new messages.
    pub records: HashSet<RecordKey>,
    /// Written messages that existed before.
    pub messages: HashSet<MessageId>,
}
