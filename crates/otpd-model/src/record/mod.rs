//! Rules 2 to 8 of one record.

mod limits;
mod send;
mod verify;

use limits::clamped;

use std::collections::BTreeSet;

use crate::{
    Call, Command, Context, DAY, HOUR, Nondeterminism, Observed, Outcome, Policy, Reply, SECOND,
    SharedLimits, TimeRange,
};

/// Time for which an expired code is reported as expired.
const EXPIRED_RETENTION: i64 = HOUR;
/// Maximum delay after failed attempts.
const MAX_FAILURE_DELAY: i64 = HOUR;
/// Life of a receipt.
const RECEIPT_LIFETIME: i64 = 300 * SECOND;

/// Reply of a cancellation that finds nothing.
pub(crate) const NOTHING_CANCELLED: Reply = Reply::Cancelled {
    cancelled: false,
    reset: false,
};
/// Status without a code.
pub(crate) const EMPTY_STATUS: Reply = Reply::Status {
    live: None,
    resend_at: None,
    blocked_until: None,
};

/// Returns a verify outcome without remaining attempts.
pub(crate) const fn verdict(outcome: Outcome, challenge: Option<usize>) -> Reply {
    Reply::Verdict {
        outcome,
        remaining: 0,
        challenge,
        verified_at: None,
        receipt: None,
    }
}

/// State of one (caller, recipient, purpose).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Ids of all its challenges, if known; the newest is last.
    ids: Vec<Option<String>>,
    end: End,
    /// Time at which the newest code expires.
    pub expires_at: TimeRange,
    attempts: u32,
    /// Numbers of the channels that carried the newest code.
    channels: BTreeSet<u8>,
    /// Time of the last send.
    pub sent_at: TimeRange,
    failures: u32,
    /// Time of the last failed attempt.
    pub failed_at: TimeRange,
    hour_full_at: TimeRange,
    day_full_at: TimeRange,
    outcomes: Vec<RecordedOutcome>,
    written_at: TimeRange,
}

/// Reason for which a code ended before it expired, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    None,
    Spent,
    Cancelled,
}

/// Reply that is returned again to a repeated request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RecordedOutcome {
    call: Call,
    reply: Reply,
    until: TimeRange,
}

impl Record {
    /// Returns the record of a first send.
    ///
    /// # Errors
    /// Refusal of the send.
    pub(crate) fn first(
        context: &mut Context,
        limits: &mut SharedLimits,
    ) -> Result<(Self, Reply), Reply> {
        let mut record = Self {
            ids: Vec::new(),
            end: End::Cancelled,
            expires_at: TimeRange::LONG_AGO,
            attempts: 0,
            channels: BTreeSet::new(),
            sent_at: TimeRange::LONG_AGO,
            failures: 0,
            failed_at: TimeRange::LONG_AGO,
            hour_full_at: TimeRange::LONG_AGO,
            day_full_at: TimeRange::LONG_AGO,
            outcomes: Vec::new(),
            written_at: TimeRange::LONG_AGO,
        };
        let reply = record.send(context, limits);
        match reply {
            Reply::Sent { .. } => Ok((record, reply)),
            refusal => Err(refusal),
        }
    }

    /// Returns the known ids of its challenges; the newest is last.
    pub fn challenges(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.ids.iter().filter_map(Option::as_deref)
    }

    /// Returns the number of failed attempts that count at `now`.
    pub fn failures_at(&self, policy: &Policy, now: i64) -> u32 {
        let reset_at = self.failed_at.plus(policy.failure_memory);
        if now < reset_at.earliest {
            self.failures
        } else {
            0
        }
    }

    /// Returns true if the challenge of that number has that id. A challenge without an id
    /// gets it.
    pub(crate) fn bind_challenge(&mut self, challenge: usize, id: &str) -> bool {
        if self.ids[challenge].is_none() && !self.challenges().any(|known| known == id) {
            self.ids[challenge] = Some(id.to_owned());
        }
        self.ids[challenge].as_deref() == Some(id)
    }

    /// Uses the challenge id of a verdict: it is that of the newest challenge, unless the
    /// verdict is an old one that is returned again.
    pub(crate) fn assume_newest(&mut self, observed: &Observed, choices: &mut Nondeterminism) {
        if let Observed::Verdict {
            challenge, outcome, ..
        } = observed
            && matches!(outcome, Outcome::Verified | Outcome::WrongCode)
            && self.ids[self.newest()].is_none()
            && choices.either()
        {
            self.bind_challenge(self.newest(), challenge);
        }
    }

    pub(crate) fn decide(&mut self, context: &mut Context, limits: &mut SharedLimits) -> Reply {
        self.repair_clock_rollback(context);
        if let Some(reply) = self.replay(context) {
            return reply;
        }
        match &context.call.command {
            Command::Send { .. } => self.send(context, limits),
            Command::Verify {
                code, challenge, ..
            } => self.verify(code, challenge.as_deref(), context, limits),
            Command::Cancel {
                challenge,
                reset_failures,
                ..
            } => self.cancel(challenge.as_deref(), *reset_failures, context),
            Command::Status { challenge, .. } => self.status(challenge.as_deref(), context),
        }
    }

    fn newest(&self) -> usize {
        self.ids.len() - 1
    }

    /// Returns true if the request selects the newest challenge. A challenge without a
    /// known id may be the one of the request.
    fn selects_newest(&mut self, challenge: Option<&str>, choices: &mut Nondeterminism) -> bool {
        let Some(id) = challenge else { return true };
        let newest = self.newest();
        match &self.ids[newest] {
            Some(known) => known == id,
            None => choices.either() && self.bind_challenge(newest, id),
        }
    }

    fn is_live(&self, context: &mut Context) -> bool {
        self.end == End::None
            && self.attempts < context.policy.max_attempts
            && context.choices.before(context.now, self.expires_at)
    }

    /// Rule 8: if the clock stepped back before the last write, the code is dead, and each
    /// wait is limited to its own length.
    fn repair_clock_rollback(&mut self, context: &mut Context) {
        let now = context.now;
        if !(context.may_step_back && context.choices.before(now, self.written_at)) {
            return;
        }
        if self.end == End::None {
            self.end = End::Cancelled;
        }
        let policy = context.policy;
        self.expires_at = self.expires_at.min(now);
        self.sent_at = self.sent_at.min(now);
        self.failed_at = self.failed_at.min(now);
        self.hour_full_at = clamped(self.hour_full_at, policy.sends_per_hour, HOUR, now);
        self.day_full_at = clamped(self.day_full_at, policy.sends_per_day, DAY, now);
        for outcome in &mut self.outcomes {
            outcome.until = outcome.until.min(now.plus(policy.request_memory));
        }
        self.written_at = now;
    }

    /// Rule 7: the same request gets its first reply again.
    fn replay(&self, context: &mut Context) -> Option<Reply> {
        let id = context.call.request_id.as_ref()?;
        let rpc = |call: &Call| std::mem::discriminant(&call.command);
        let is_same = |known: &&RecordedOutcome| {
            known.call.request_id.as_ref() == Some(id) && rpc(&known.call) == rpc(context.call)
        };
        // A later reply to the same id was written after the earlier one was forgotten.
        let known = self.outcomes.iter().rfind(is_same)?;
        if !context.choices.before(context.now, known.until) {
            return None;
        }
        if fields(&known.call) != fields(context.call) {
            return Some(Reply::refused("REQUEST_INVALID"));
        }
        let mut reply = known.reply.clone();
        if let Reply::Sent {
            challenge, code, ..
        } = &mut reply
        {
            *code = *challenge == self.newest() && self.is_live(context);
        }
        // A receipt is not issued again after its end, nor before its start.
        if let Reply::Verdict { receipt, .. } = &mut reply
            && let Some((at, _)) = receipt
        {
            let (at, choices) = (*at, &mut *context.choices);
            let is_alive = !choices.before(context.now, at)
                && choices.before(context.now, at.plus(RECEIPT_LIFETIME));
            *receipt = receipt.take().filter(|_| is_alive);
        }
        Some(reply)
    }

    fn record_outcome(&mut self, reply: &Reply, context: &mut Context) {
        self.written_at = context.now;
        if context.may_step_back {
            // A forgotten outcome stays forgotten, even if the clock is before its end again.
            let now = context.now;
            self.outcomes
                .retain(|known| context.choices.before(now, known.until));
        }
        if context.call.request_id.is_some() {
            self.outcomes.push(RecordedOutcome {
                call: context.call.clone(),
                reply: reply.clone(),
                until: context.now.plus(context.policy.request_memory),
            });
        }
    }

    /// Cancels the live code, and resets the failed attempts if the request asks for it.
    fn cancel(
        &mut self,
        challenge: Option<&str>,
        reset_failures: bool,
        context: &mut Context,
    ) -> Reply {
        let is_selected = self.selects_newest(challenge, context.choices);
        let cancelled = is_selected && self.is_live(context);
        let reset = is_selected && reset_failures && self.counted_failures(context) > 0;
        let reply = Reply::Cancelled { cancelled, reset };
        if cancelled {
            self.end = End::Cancelled;
        }
        if reset {
            self.failures = 0;
        }
        if cancelled || reset {
            self.record_outcome(&reply, context);
        }
        reply
    }

    fn status(&mut self, challenge: Option<&str>, context: &mut Context) -> Reply {
        if !self.selects_newest(challenge, context.choices) {
            return EMPTY_STATUS;
        }
        let remaining = context.policy.max_attempts.saturating_sub(self.attempts);
        let live = self
            .is_live(context)
            .then(|| (self.newest(), self.expires_at, remaining));
        let resend_at = self.resend_at(context.policy);
        Reply::Status {
            live,
            resend_at: context
                .choices
                .before(context.now, resend_at)
                .then_some(resend_at),
            blocked_until: self.lockout(context).map(|(until, _)| until),
        }
    }

    /// Returns the end of the cool-down; a success ends it at once.
    pub fn resend_at(&self, policy: &Policy) -> TimeRange {
        match self.end {
            End::Spent => self.sent_at,
            _ => self.sent_at.plus(policy.resend_after),
        }
    }

    /// Returns the number of consecutive failed attempts that still count.
    fn counted_failures(&self, context: &mut Context) -> u32 {
        let reset_at = self.failed_at.plus(context.policy.failure_memory);
        let is_counted = self.failures > 0 && context.choices.before(context.now, reset_at);
        if is_counted { self.failures } else { 0 }
    }

    /// Rule 5: returns the end of the lockout and the reason of its refusals, if attempts
    /// are refused.
    fn lockout(&self, context: &mut Context) -> Option<(TimeRange, &'static str)> {
        let failures = self.counted_failures(context);
        let until = self.locked_until(context.policy, failures)?;
        let reason = if self.failures >= context.policy.failure_limit {
            "VERIFY_LOCKED"
        } else {
            "VERIFY_DELAYED"
        };
        context
            .choices
            .before(context.now, until)
            .then_some((until, reason))
    }

    /// Returns the end of the lockout after `failures` failed attempts, if there is one.
    pub fn locked_until(&self, policy: &Policy, failures: u32) -> Option<TimeRange> {
        if failures >= policy.failure_limit {
            return Some(self.failed_at.plus(policy.failure_memory));
        }
        let times = failures / policy.max_attempts;
        let delay = policy.failure_delay << times.saturating_sub(1).min(30);
        (times > 0 && failures.is_multiple_of(policy.max_attempts))
            .then(|| self.failed_at.plus(delay.min(MAX_FAILURE_DELAY)))
    }

    /// Returns the times at which a reply changes, for tests that move the clock there.
    pub fn boundaries(&self, policy: &Policy) -> Vec<i64> {
        let until = self.outcomes.last().map(|known| known.until);
        let receipt = self.outcomes.last().and_then(|known| match &known.reply {
            Reply::Verdict { receipt, .. } => receipt.as_ref(),
            _ => None,
        });
        [
            Some(self.expires_at),
            Some(self.expires_at.plus(-policy.resend_after)),
            Some(self.expires_at.plus(EXPIRED_RETENTION)),
            Some(self.resend_at(policy)),
            self.locked_until(policy, self.failures),
            Some(self.failed_at.plus(policy.failure_memory)),
            until,
            receipt.map(|(at, _)| at.plus(RECEIPT_LIFETIME)),
        ]
        .into_iter()
        .flatten()
        .map(|at| at.earliest)
        .collect()
    }
}

/// Returns the fields that distinguish requests with the same id. The client's address is
/// not one of them.
fn fields(call: &Call) -> (Call, Command) {
    let mut command = call.command.clone();
    if let Command::Send { network, .. } | Command::Verify { network, .. } = &mut command {
        *network = None;
    }
    let call = Call {
        command: Command::Status {
            challenge: None,
            by_challenge: false,
        },
        ..call.clone()
    };
    (call, command)
}
