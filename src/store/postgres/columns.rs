//! Changes column by column, as `UNNEST` takes them.

use super::super::{
    ExpectedLimit, LimitWrite, MessageWrite, RecordWrite,
    message_row::{history_column, message_state_columns},
    record_row::{count_column, memory_column, record_state_columns},
};
use otpd_rules::Timestamp;

/// Limits column by column, as `UNNEST` takes them; in the order of their keys, so that
/// batches of two replicas cannot deadlock.
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
    pub fn of(changes: &'a [LimitWrite]) -> Self {
        let mut limits: Vec<_> = changes.iter().collect();
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

/// Which records need which limits.
#[derive(Default)]
pub(super) struct RecordLimitColumns<'a> {
    pub record_key: Vec<&'a [u8]>,
    pub limit_key: Vec<&'a [u8]>,
}

impl<'a> RecordLimitColumns<'a> {
    pub fn of(changes: &'a [RecordWrite]) -> Self {
        let mut columns = Self::default();
        for record in changes {
            for limit in &record.limits {
                columns.record_key.push(&record.key.0);
                columns.limit_key.push(&limit.0);
            }
        }
        columns
    }
}

/// Records, likewise.
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
    pub fn of(changes: &'a [RecordWrite]) -> Self {
        let mut records: Vec<_> = changes.iter().collect();
        records.sort_unstable_by_key(|change| change.key);
        let mut columns = Self::default();
        for change in records {
            let record = &change.record;
            let (state, sealed) = record_state_columns(&record.challenge.state);
            columns.record_key.push(&change.key.0);
            columns
                .expected
                .push(change.expected.map(|version| version.0));
            columns.version.push(change.version.0);
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
            columns
                .removable_at
                .push(change.removable_at.milliseconds());
        }
        columns
    }
}

/// Messages, likewise.
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
    pub fn of(mut changes: Vec<&'a MessageWrite>) -> Self {
        changes.sort_unstable_by_key(|change| (change.key, change.message.id));
        let mut columns = Self::default();
        for change in changes {
            let message = &change.message;
            let (state, sealed) = message_state_columns(&message.state);
            columns.record_key.push(&change.key.0);
            columns.message_id.push(&message.id.0);
            columns
                .expected
                .push(change.expected.map(|version| version.0));
            columns.version.push(change.version.0);
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
