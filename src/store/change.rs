//! What is to be written, and what was.

use std::collections::HashSet;

use super::{Sealed, Version};
use crate::domain::{LimitKey, Message, MessageId, Record, RecordKey, Timestamp};

/// What is to be written in one transaction. No key is in it twice.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Limits.
    pub limits: Vec<LimitChange>,
    /// Records.
    pub records: Vec<RecordChange>,
    /// Messages: new ones, each of which is written only if the record that it is about
    /// is, by the same transaction; and old ones.
    pub messages: Vec<MessageChange>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.records.is_empty() && self.messages.is_empty()
    }
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
    /// Limits among the same [`Changes`] that it has been paid for with: unless all of
    /// them are written, it is not. (They may be although it is not: whoever decides
    /// again has paid them already.)
    pub limits: Vec<LimitKey>,
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

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Limits.
    pub limits: HashSet<LimitKey>,
    /// Records, and with them their new messages.
    pub records: HashSet<RecordKey>,
    /// Messages that were there before.
    pub messages: HashSet<MessageId>,
}
