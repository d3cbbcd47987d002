//! What is to be written, and what was.

use std::collections::HashSet;

use super::{Sealed, Version};
use crate::domain::{LimitKey, Message, Record, RecordKey, Timestamp};

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

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records.
    pub records: HashSet<RecordKey>,
    /// Limits.
    pub limits: HashSet<LimitKey>,
}
