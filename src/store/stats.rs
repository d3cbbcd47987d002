//! Results of the queries that serve the metrics, and of a purge.

use otpd_rules::{ChallengeNonce, Channel, RecordKey, Timestamp};

/// Numbers of stored records and queued messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of messages that wait or are being sent.
    pub messages_queued: u64,
    /// Age of the oldest of these messages in milliseconds.
    pub oldest_queued: u64,
    /// Number of records that some reply depends on; an estimate if there are many.
    pub records_active: u64,
    /// Number of records that no reply depends on and that the next purge removes.
    pub records_purgeable: u64,
}

/// Numbers of rows that a purge has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeStats {
    /// Number of records.
    pub records: u64,
    /// Number of limits.
    pub limits: u64,
    /// Number of messages.
    pub messages: u64,
}

impl PurgeStats {
    /// Returns the number of all rows.
    pub const fn all(self) -> u64 {
        self.records + self.limits + self.messages
    }
}

/// Message that a provider has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredMessage {
    /// Record of the code that it carries.
    pub key: RecordKey,
    /// Challenge of that code.
    pub challenge: ChallengeNonce,
    /// Requested channel.
    pub channel: Channel,
    /// Configured name of the provider.
    pub provider: String,
}

/// Columns of a [`DeliveredMessage`].
#[derive(Debug, sqlx::FromRow)]
pub(super) struct DeliveredRow {
    pub record_key: Vec<u8>,
    pub challenge: Vec<u8>,
    pub channel: String,
    pub provider: String,
}

impl DeliveredRow {
    /// Returns the message, or `None` if otpd cannot have written the row.
    pub fn into_message(self) -> Option<DeliveredMessage> {
        Some(DeliveredMessage {
            key: RecordKey(self.record_key.try_into().ok()?),
            challenge: ChallengeNonce(self.challenge.try_into().ok()?),
            channel: Channel::from_name(&self.channel)?,
            provider: self.provider,
        })
    }
}

impl StoreStats {
    /// Returns the statistics of these counts: queued messages with the time of writing of the
    /// oldest, all records, and purgeable records.
    pub(super) fn from_counts(
        now: Timestamp,
        (queued, oldest): (i64, Option<i64>),
        records: i64,
        purgeable: i64,
    ) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            messages_queued: count(queued),
            oldest_queued: oldest
                .map_or(0, |oldest| count(now.milliseconds().saturating_sub(oldest))),
            records_active: count(records - purgeable),
            records_purgeable: count(purgeable),
        }
    }
}
