//! Decision about one send.

use crate::Timestamp;

use super::{Assessment, Cell, GuardPolicy, Verdict};

/// Class of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendClass {
    /// The recipient verified a code of this caller before.
    Returning,
    /// The allow list contains the recipient.
    AllowListed,
    /// Neither.
    Ordinary,
}

/// Verdicts on the cells of a send, and the state that a slow block is held to.
#[derive(Clone, Copy, Debug)]
pub struct SendAssessment<'a> {
    /// Verdict on the recipient's block.
    pub block: &'a Assessment,
    /// Verdict on the recipient's country.
    pub country: &'a Assessment,
    /// Counts of the recipient's block.
    pub block_cell: &'a Cell,
    /// Messages to the block that this replica sent, and the other replicas do not know of.
    pub unmerged: u32,
    /// True if an outage of the provider explains a low conversion.
    pub provider_is_down: bool,
}

/// Result of a decision about a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The message may be sent.
    Allowed {
        /// Multiple of the time until a resend.
        resend_factor: u32,
    },
    /// The message is refused.
    Refused(Cause),
}

/// Cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The recipient's block is suspect.
    Block,
    /// The recipient's country is suspect, and the block has few answers or none.
    Country,
    /// The block is slow, and had a message within the interval.
    SlowBlock,
    /// This replica sent many messages to the block that other replicas do not know of yet.
    Unmerged,
}

/// Decides about a send of `class`. Only an ordinary one can be refused.
pub fn admit(
    class: SendClass,
    send: SendAssessment<'_>,
    policy: &GuardPolicy,
    now: Timestamp,
) -> Admission {
    let allowed = Admission::Allowed { resend_factor: 1 };
    if class != SendClass::Ordinary || send.provider_is_down {
        return allowed;
    }
    let refused = Admission::Refused;
    if send.block.verdict == Verdict::Suspect {
        return refused(Cause::Block);
    }
    if send.country.verdict == Verdict::Suspect && !has_answers(send.block_cell, now) {
        return refused(Cause::Country);
    }
    if send.unmerged >= policy.unmerged_limit {
        return refused(Cause::Unmerged);
    }
    let slow_since = now.saturating_sub(policy.slow_interval);
    if send.block.verdict == Verdict::Slow && send.block_cell.sends_since(slow_since, now) > 0 {
        return refused(Cause::SlowBlock);
    }
    if send.block.verdict.max(send.country.verdict) == Verdict::Slow {
        return Admission::Allowed {
            resend_factor: policy.slow_resend_factor,
        };
    }
    allowed
}

/// Returns true if at least half of the last day's messages to the block were verified. Such a
/// block stays open while its country is refused.
fn has_answers(block: &Cell, now: Timestamp) -> bool {
    let day = block.last_day(now);
    day.verified > 0 && day.unanswered() <= day.verified
}
