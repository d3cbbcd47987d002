//! Verdict on a cell.

use std::time::Duration;

use crate::Timestamp;

use super::{Baseline, Cell, Counts, GuardPolicy, Share, probability_below};

/// Weight of the prior of a block, in messages.
const BLOCK_PRIOR: u64 = 3;
/// Weight of the prior of a country, in messages.
const COUNTRY_PRIOR: u64 = 8;
/// Messages to neighbours from which on the numbers of a block count as a sequence. By chance,
/// one message of 40 goes to a neighbour.
const SEQUENCE: u32 = 4;

/// Result of an assessment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No suspicion.
    Free,
    /// Resends wait longer, and the number of messages is limited.
    Slow,
    /// Messages are refused.
    Suspect,
}

/// Window of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Last 10 minutes.
    TenMinutes,
    /// Last hour.
    Hour,
    /// Last day.
    Day,
}

/// Observation that led to a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The conversion in a window is lower than usual.
    LowConversion {
        /// Window with that conversion.
        window: Window,
        /// Messages in it, without those that cannot have been answered yet.
        counts: Counts,
        /// Conversion below which a cell is suspicious.
        threshold: Share,
        /// Probability that the conversion is below the threshold.
        probability: Share,
    },
    /// The numbers of the block were used in sequence.
    Sequence {
        /// Messages of the last hour.
        counts: Counts,
    },
    /// The country had more messages in the last hour than it is held to.
    HourlyLimit {
        /// Messages of the last hour.
        sends: u32,
        /// Number to which it is held.
        limit: u32,
    },
    /// More messages than usual wait for their first verifications.
    Pending {
        /// Messages that cannot have been answered yet.
        sends: u32,
        /// Number to which they are held.
        limit: u32,
    },
}

/// Verdict on a cell, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// Verdict.
    pub verdict: Verdict,
    /// Observations that led to it; none if the cell is free.
    pub reasons: Vec<Reason>,
}

impl Assessment {
    fn free() -> Self {
        Self {
            verdict: Verdict::Free,
            reasons: Vec::new(),
        }
    }

    fn add(&mut self, verdict: Verdict, reason: Reason) {
        self.verdict = self.verdict.max(verdict);
        self.reasons.push(reason);
    }
}

/// Assesses a block, of which `country` is the parent.
pub fn assess_block(
    block: &Cell,
    country: Baseline,
    policy: &GuardPolicy,
    now: Timestamp,
) -> Assessment {
    let mut assessment = Assessment::free();
    let hour = block.last_hour(now);
    // Not a share of all messages, which further messages could lower.
    let sequence = hour.sequential >= SEQUENCE.max(hour.verified);
    if sequence {
        assessment.reasons.push(Reason::Sequence { counts: hour });
    }
    let usual = country.conversion;
    for (window, counts, confidence) in [
        (
            Window::TenMinutes,
            block.last_ten_minutes(now),
            policy.suspect_confidence,
        ),
        (Window::Hour, hour, policy.suspect_confidence),
        (Window::Day, block.last_day(now), policy.day_confidence),
    ] {
        let in_sequence = sequence && window != Window::Day;
        let confidence = if in_sequence {
            confidence.min(policy.sequential_confidence)
        } else {
            confidence
        };
        let (threshold, probability) = low_conversion(usual, counts, BLOCK_PRIOR, policy);
        let verdict = if probability >= confidence {
            Verdict::Suspect
        } else if window != Window::Day && probability >= policy.slow_confidence {
            Verdict::Slow
        } else {
            continue;
        };
        assessment.add(
            verdict,
            Reason::LowConversion {
                window,
                counts,
                threshold,
                probability,
            },
        );
    }
    if assessment.verdict == Verdict::Free {
        return Assessment::free();
    }
    assessment
}

/// Assesses a country, of which `caller` is the parent.
pub fn assess_country(
    country: &Cell,
    caller: Baseline,
    policy: &GuardPolicy,
    now: Timestamp,
) -> Assessment {
    let mut assessment = Assessment::free();
    let usual = country.baseline(caller).conversion;
    let pending = country.pending(now);
    let hour = country.last_hour(now);
    let peak = country
        .peak(usual, now)
        .saturating_mul(policy.country_peak_factor);
    let verified = country.last_ten_minutes(now).verified;
    for (window, counts) in [
        (Window::TenMinutes, country.last_ten_minutes(now)),
        (Window::Hour, hour),
        (Window::Day, country.last_day(now)),
    ] {
        let answerable = Counts {
            sends: counts.sends.saturating_sub(pending),
            ..counts
        };
        let (threshold, probability) = low_conversion(usual, answerable, COUNTRY_PRIOR, policy);
        if probability >= policy.country_confidence {
            assessment.add(
                Verdict::Slow,
                Reason::LowConversion {
                    window,
                    counts: answerable,
                    threshold,
                    probability,
                },
            );
        }
    }
    let limit = policy.country_floor.max(peak);
    if assessment.verdict == Verdict::Slow && hour.sends >= limit {
        let sends = hour.sends;
        assessment.add(Verdict::Suspect, Reason::HourlyLimit { sends, limit });
    }
    // Each verification makes room for three more messages, so that honest traffic may grow as
    // fast as people answer.
    let limit = policy
        .country_pending
        .max(peak)
        .saturating_add(verified.saturating_mul(3));
    if pending >= limit {
        assessment.add(
            Verdict::Suspect,
            Reason::Pending {
                sends: pending,
                limit,
            },
        );
    }
    assessment
}

/// Returns the instant from which on the verdict of `assess` on the cell is below `verdict`, if
/// nothing is added to the cell. It comes at most 25 hours after the last message, when all
/// windows are empty.
pub fn release(
    cell: &Cell,
    verdict: Verdict,
    now: Timestamp,
    assess: impl Fn(&Cell, Timestamp) -> Assessment,
) -> Timestamp {
    let is_released = |time: &Timestamp| assess(cell, *time).verdict < verdict;
    if is_released(&now) {
        return now;
    }
    let mut changes = cell.next_changes(now);
    let last = now.saturating_add(Duration::from_hours(25));
    changes.find(is_released).unwrap_or(last)
}

/// Returns the conversion below which a cell is suspicious, and the probability that the
/// conversion behind `counts` is below it. The prior is a Beta distribution around the usual
/// conversion, which `weight` messages stand for.
fn low_conversion(
    usual: Share,
    counts: Counts,
    weight: u64,
    policy: &GuardPolicy,
) -> (Share, Share) {
    let threshold = usual.of(policy.conversion_ratio);
    let successes = usual.times(weight).max(1);
    let failures = (weight.saturating_sub(successes)).max(1);
    let probability = probability_below(
        threshold,
        successes + u64::from(counts.verified),
        failures + u64::from(counts.unanswered()),
    );
    (threshold, probability)
}
