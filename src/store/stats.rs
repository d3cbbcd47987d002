//! What is looked at beside the work, for the metrics alone.

use otpd_rules::{ChallengeNonce, Channel, RecordKey, Timestamp};

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Messages that wait, or are being sent.
    pub messages_queued: u64,
    /// How long the oldest of them has been there, in milliseconds.
    pub oldest_queued: u64,
    /// Records that some answer depends on; an estimate where there are many.
    pub records_live: u64,
    /// Records that no answer depends on any more, until they are swept.
    pub records_dead: u64,
}

/// A message that a provider has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredMessage {
    /// The record whose code it carries.
    pub key: RecordKey,
    /// The challenge of that code.
    pub challenge: ChallengeNonce,
    /// The channel that was asked for.
    pub channel: Channel,
    /// The provider's configured name.
    pub provider: String,
}

/// The columns of a [`DeliveredMessage`].
#[derive(Debug, sqlx::FromRow)]
pub(super) struct DeliveredRow {
    pub record_key: Vec<u8>,
    pub challenge: Vec<u8>,
    pub channel: String,
    pub provider: String,
}

impl DeliveredRow {
    /// `None` where otpd cannot have written it.
    pub fn into_delivered(self) -> Option<DeliveredMessage> {
        Some(DeliveredMessage {
            key: RecordKey(self.record_key.try_into().ok()?),
            challenge: ChallengeNonce(self.challenge.try_into().ok()?),
            channel: Channel::from_name(&self.channel)?,
            provider: self.provider,
        })
    }
}

impl StoreStats {
    /// From what a store counts: messages, when the oldest of them was written, records
    /// in all, and those that are dead.
    pub(super) fn of(
        now: Timestamp,
        (queued, oldest): (i64, Option<i64>),
        records: i64,
        dead: i64,
    ) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            messages_queued: count(queued),
            oldest_queued: oldest
                .map_or(0, |oldest| count(now.milliseconds().saturating_sub(oldest))),
            records_live: count(records - dead),
            records_dead: count(dead),
        }
    }
}
