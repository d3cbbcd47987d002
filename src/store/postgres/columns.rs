//! Writes of a batch as arrays, one for each column, which `UNNEST` takes.

use super::super::{
    ExpectedLimit, LimitWrite, MessageWrite, RecordWrite,
    rows::{count_column, memory_column, record_state_columns},
    rows::{history_column, message_state_columns},
};
use otpd_rules::Timestamp;

/// Columns of the limits, in the order of their keys, so that batches of two replicas cannot
/// deadlock.
#[derive(Default)]
pub(super) struct LimitColumns<'a> {
    pub limit_key: Vec<&'a [u8]>,
    pub is_new: Vec<bool>,
    pub expected: Vec<Option<i64>>,
    pub version: Vec<i64>,
    pub floor: Vec<i64>,
    pub latest: Vec<i64>,
    pub cost: Vec<i64>,
}

impl<'a> LimitColumns<'a> {
    pub fn new(writes: &'a [LimitWrite]) -> Self {
        let mut limits: Vec<_> = writes.iter().collect();
        limits.sort_unstable_by_key(|limit| limit.key);
        let mut columns = Self::default();
        for limit in limits {
            let (is_new, expected) = match limit.expected {
                ExpectedLimit::Absent => (true, None),
                ExpectedLimit::Present => (false, None),
                ExpectedLimit::Unchanged(version) => (false, Some(version.0)),
            };
            columns.limit_key.push(&limit.key.0);
            columns.is_new.push(is_new);
            columns.expected.push(expected);
            columns.version.push(limit.version.0);
            columns.floor.push(limit.delta.floor.milliseconds());
            columns.latest.push(limit.delta.latest.milliseconds());
            columns.cost.push(limit.delta.cost);
        }
        columns
    }
}

/// Columns of the limits that each record is charged to.
#[derive(Default)]
pub(super) struct RecordLimitColumns<'a> {
    pub record_key: Vec<&'a [u8]>,
    pub limit_key: Vec<&'a [u8]>,
}

impl<'a> RecordLimitColumns<'a> {
    pub fn new(writes: &'a [RecordWrite]) -> Self {
        let mut columns = Self::default();
        for record in writes {
            for limit in &record.limits {
                columns.record_key.push(&record.key.0);
                columns.limit_key.push(&limit.0);
            }
        }
        columns
    }
}

/// Columns of the records, in the order of their keys.
#[derive(Default)]
pub(super) struct RecordColumns<'a> {
    pub record_key: Vec<&'a [u8]>,
    pub expected: Vec<Option<i64>>,
    pub version: Vec<i64>,
    pub caller: Vec<&'a str>,
    pub purpose: Vec<&'a str>,
    pub challenge: Vec<&'a [u8]>,
    pub state: Vec<&'a str>,
    pub sealed: Vec<Option<&'a [u8]>>,
    pub channel: Vec<&'a str>,
    pub created_at: Vec<i64>,
    pub expires_at: Vec<i64>,
    pub attempts: Vec<i32>,
    pub sends: Vec<i32>,
    pub sent_at: Vec<i64>,
    pub failures: Vec<i32>,
    pub failed_at: Vec<i64>,
    pub hour_full_at: Vec<i64>,
    pub day_full_at: Vec<i64>,
    pub memory: Vec<Vec<u8>>,
    pub written_at: Vec<i64>,
    pub removable_at: Vec<i64>,
}

impl<'a> RecordColumns<'a> {
    pub fn new(writes: &'a [RecordWrite]) -> Self {
        let mut records: Vec<_> = writes.iter().collect();
        records.sort_unstable_by_key(|write| write.key);
        let mut columns = Self::default();
        for write in records {
            let record = &write.record;
            let (state, sealed) = record_state_columns(&record.challenge.state);
            columns.record_key.push(&write.key.0);
            columns
                .expected
                .push(write.expected.map(|version| version.0));
            columns.version.push(write.version.0);
            columns.caller.push(record.caller.as_str());
            columns.purpose.push(record.purpose.as_str());
            columns.challenge.push(&record.challenge.nonce.0);
            columns.state.push(state);
            columns.sealed.push(sealed);
            columns.channel.push(record.challenge.channel.name());
            columns
                .created_at
                .push(record.challenge.created_at.milliseconds());
            columns
                .expires_at
                .push(record.challenge.expires_at.milliseconds());
            columns
                .attempts
                .push(count_column(record.challenge.attempts));
            columns.sends.push(count_column(record.challenge.sends));
            columns.sent_at.push(record.sent_at.milliseconds());
            columns.failures.push(count_column(record.failures.count));
            columns
                .failed_at
                .push(record.failures.last_at.milliseconds());
            columns
                .hour_full_at
                .push(record.send_limits.hour_full_at.milliseconds());
            columns
                .day_full_at
                .push(record.send_limits.day_full_at.milliseconds());
            columns.memory.push(memory_column(&record.memory));
            columns.written_at.push(record.written_at.milliseconds());
            columns.removable_at.push(write.removable_at.milliseconds());
        }
        columns
    }
}

/// Columns of the messages, in the order of their keys.
#[derive(Default)]
pub(super) struct MessageColumns<'a> {
    pub record_key: Vec<&'a [u8]>,
    pub message_id: Vec<&'a [u8]>,
    pub expected: Vec<Option<i64>>,
    pub version: Vec<i64>,
    pub challenge: Vec<&'a [u8]>,
    pub channel: Vec<&'a str>,
    pub predecessors: Vec<i32>,
    pub state: Vec<&'a str>,
    pub sealed: Vec<Option<&'a [u8]>>,
    pub provider: Vec<&'a str>,
    pub history: Vec<Vec<u8>>,
    pub created_at: Vec<i64>,
    pub updated_at: Vec<i64>,
    pub expires_at: Vec<i64>,
    pub due_at: Vec<Option<i64>>,
    pub removable_at: Vec<i64>,
}

impl<'a> MessageColumns<'a> {
    pub fn new(mut writes: Vec<&'a MessageWrite>) -> Self {
        writes.sort_unstable_by_key(|write| (write.key, write.message.id));
        let mut columns = Self::default();
        for write in writes {
            let message = &write.message;
            let (state, sealed) = message_state_columns(&message.state);
            columns.record_key.push(&write.key.0);
            columns.message_id.push(&message.id.0);
            columns
                .expected
                .push(write.expected.map(|version| version.0));
            columns.version.push(write.version.0);
            columns.challenge.push(&message.challenge.0);
            columns.channel.push(message.channel.name());
            columns
                .predecessors
                .push(count_column(message.predecessors));
            columns.state.push(state);
            columns.sealed.push(sealed);
            columns.provider.push(&message.provider);
            columns.history.push(history_column(&message.history));
            columns.created_at.push(message.created_at.milliseconds());
            columns.updated_at.push(message.updated_at.milliseconds());
            columns.expires_at.push(message.expires_at.milliseconds());
            columns
                .due_at
                .push(message.due_at.map(Timestamp::milliseconds));
            columns
                .removable_at
                .push(message.removable_at().milliseconds());
        }
        columns
    }
}
