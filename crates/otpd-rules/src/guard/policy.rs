//! Settings of the guard. The defaults are the ones with which docs/guard.md was measured.

use std::time::Duration;

use super::Share;

/// Settings that turn counts into a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardPolicy {
    /// Conversion that is assumed of a caller without a past.
    pub usual_conversion: Share,
    /// A cell is suspicious if its conversion is below this share of the usual one.
    pub conversion_ratio: Share,
    /// Probability of a low conversion, in 10 minutes or an hour, from which on a block is
    /// slowed down.
    pub slow_confidence: Share,
    /// The same, from which on a block is refused.
    pub suspect_confidence: Share,
    /// The same for a day, which gives an attacker more time and chance more occasions.
    pub day_confidence: Share,
    /// The same for a block whose numbers are used in sequence.
    pub sequential_confidence: Share,
    /// Probability of a low conversion from which on a country is held to a number of messages.
    pub country_confidence: Share,
    /// Messages an hour to which a country is held, if its peak is lower.
    pub country_floor: u32,
    /// Multiple of its own peak below which a country is never refused.
    pub country_peak_factor: u32,
    /// Messages of a country that may wait for their first verifications at the same time.
    pub country_pending: u32,
    /// Unanswered messages of a block within a day that count for its country, too. Further
    /// ones are the block's own matter, so that a few blocks do not close a country.
    pub block_share: u32,
    /// Messages to a block that a replica sends before it knows those of the other replicas.
    pub unmerged_limit: u32,
    /// Interval of the messages to a slow block.
    pub slow_interval: Duration,
    /// Multiple of the time until a resend in a slow cell.
    pub slow_resend_factor: u32,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self {
            usual_conversion: Share::from_millionths(650_000),
            conversion_ratio: Share::from_millionths(500_000),
            slow_confidence: Share::from_millionths(950_000),
            suspect_confidence: Share::from_millionths(990_000),
            day_confidence: Share::from_millionths(999_000),
            sequential_confidence: Share::from_millionths(900_000),
            country_confidence: Share::from_millionths(999_000),
            country_floor: 200,
            country_peak_factor: 2,
            country_pending: 200,
            block_share: 6,
            unmerged_limit: 8,
            slow_interval: Duration::from_mins(1),
            slow_resend_factor: 2,
        }
    }
}
