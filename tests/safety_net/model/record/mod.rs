//! Rules 2 to 8 of one record.

mod limits;
mod send;
mod verify;

use limits::burst;

use super::{
    Ask, Case, DAY, Doubt, HOUR, Limits, Moment, Outcome, Policy, Reply, Told, types::Call,
};

/// Time for which a dead code is reported as expired.
const EXPIRED_TOLD_FOR: i64 = HOUR;
/// The longest wait after wrong answers.
const LONGEST_DELAY: i64 = HOUR;

pub const NOTHING_CANCELLED: Reply = Reply::Cancelled {
    cancelled: false,
    reset: false,
};
pub const NOTHING_KNOWN: Reply = Reply::Status {
    live: None,
    resend_at: None,
    blocked_until: None,
};

/// A verify outcome without remaining attempts.
pub const fn verdict(outcome: Outcome, challenge: Option<usize>) -> Reply {
    Reply::Verdict {
        outcome,
        remaining: 0,
        challenge,
        verified_at: None,
    }
}

/// State of one (caller, recipient, purpose).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Ids of all its challenges, if known; the newest is last.
    names: Vec<Option<String>>,
    end: End,
    pub expires_at: Moment,
    attempts: u32,
    pub sent_at: Moment,
    failures: u32,
    pub failed_at: Moment,
    hour_full_at: Moment,
    day_full_at: Moment,
    remembered: Vec<Remembered>,
    written_at: Moment,
}

/// How a code ended before its time, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    None,
    Spent,
    Cancelled,
}

/// An answer that is given again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Remembered {
    call: Call,
    reply: Reply,
    until: Moment,
}

impl Record {
    /// The record of a first send.
    pub fn first(case: &mut Case, limits: &mut Limits) -> Result<(Self, Reply), Reply> {
        let mut record = Self {
            names: Vec::new(),
            end: End::Cancelled,
            expires_at: Moment::LONG_AGO,
            attempts: 0,
            sent_at: Moment::LONG_AGO,
            failures: 0,
            failed_at: Moment::LONG_AGO,
            hour_full_at: Moment::LONG_AGO,
            day_full_at: Moment::LONG_AGO,
            remembered: Vec::new(),
            written_at: Moment::LONG_AGO,
        };
        let reply = record.send(case, limits);
        match reply {
            Reply::Sent { .. } => Ok((record, reply)),
            refusal => Err(refusal),
        }
    }

    /// The newest challenge's name, and those of older ones.
    pub fn challenges(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.names.iter().filter_map(Option::as_deref)
    }

    /// Whether the challenge of that number has that name, which is given to it if it
    /// has none.
    pub fn is_named(&mut self, challenge: usize, name: &str) -> bool {
        if self.names[challenge].is_none() && !self.challenges().any(|known| known == name) {
            self.names[challenge] = Some(name.to_owned());
        }
        self.names[challenge].as_deref() == Some(name)
    }

    /// A verdict names the challenge that it is about: the newest, unless it is an old
    /// verdict given again.
    pub fn learn(&mut self, told: &Told, doubt: &mut Doubt) {
        if let Told::Verdict {
            challenge, outcome, ..
        } = told
            && matches!(outcome, Outcome::Verified | Outcome::WrongCode)
            && self.names[self.newest()].is_none()
            && doubt.either()
        {
            self.is_named(self.newest(), challenge);
        }
    }

    pub fn answer(&mut self, case: &mut Case, limits: &mut Limits) -> Reply {
        self.survive_step_back(case);
        if let Some(reply) = self.recall(case) {
            return reply;
        }
        match &case.call.ask {
            Ask::Send { .. } => self.send(case, limits),
            Ask::Verify {
                typed, challenge, ..
            } => self.verify(typed, challenge.as_deref(), case, limits),
            Ask::Cancel {
                challenge, reset, ..
            } => self.cancel(challenge.as_deref(), *reset, case),
            Ask::Status { challenge, .. } => self.status(challenge.as_deref(), case),
        }
    }

    fn newest(&self) -> usize {
        self.names.len() - 1
    }

    /// Whether the newest challenge is the one that a caller means. One whose name nobody
    /// was told may be.
    fn admits(&mut self, challenge: Option<&str>, doubt: &mut Doubt) -> bool {
        let Some(name) = challenge else { return true };
        let newest = self.newest();
        match &self.names[newest] {
            Some(known) => known == name,
            None => doubt.either() && self.is_named(newest, name),
        }
    }

    fn lives(&self, case: &mut Case) -> bool {
        self.end == End::None
            && self.attempts < case.policy.max_attempts
            && case.doubt.before(case.now, self.expires_at)
    }

    /// Rule 8: should the clock step back before the last write, the code is dead, and
    /// waits are capped at their own length.
    fn survive_step_back(&mut self, case: &mut Case) {
        let now = case.now;
        if !(case.clock_steps_back && case.doubt.before(now, self.written_at)) {
            return;
        }
        if self.end == End::None {
            self.end = End::Cancelled;
        }
        self.expires_at = self.expires_at.min(now);
        self.sent_at = self.sent_at.min(now);
        self.failed_at = self.failed_at.min(now);
        self.hour_full_at = self
            .hour_full_at
            .min(now.plus(burst(case.policy.sends_per_hour, HOUR)));
        self.day_full_at = self
            .day_full_at
            .min(now.plus(burst(case.policy.sends_per_day, DAY)));
        for remembered in &mut self.remembered {
            remembered.until = remembered.until.min(now.plus(case.policy.request_memory));
        }
        self.written_at = now;
    }

    /// Rule 7: the same request gets its first answer again.
    fn recall(&self, case: &mut Case) -> Option<Reply> {
        let id = case.call.id.as_ref()?;
        let same = |known: &&Remembered| {
            known.call.id.as_ref() == Some(id)
                && std::mem::discriminant(&known.call.ask) == std::mem::discriminant(&case.call.ask)
        };
        // A later answer to the same id was written after the earlier was forgotten.
        let known = self.remembered.iter().rfind(same)?;
        if !case.doubt.before(case.now, known.until) {
            return None;
        }
        if fields(&known.call) != fields(case.call) {
            return Some(Reply::refused("REQUEST_INVALID"));
        }
        let mut reply = known.reply.clone();
        if let Reply::Sent {
            challenge, code, ..
        } = &mut reply
        {
            *code = *challenge == self.newest() && self.lives(case);
        }
        Some(reply)
    }

    fn remember(&mut self, reply: &Reply, case: &mut Case) {
        self.written_at = case.now;
        if case.clock_steps_back {
            // Dropped state stays dropped, even if the clock is then before its end.
            let now = case.now;
            self.remembered
                .retain(|known| case.doubt.before(now, known.until));
        }
        if case.call.id.is_some() {
            self.remembered.push(Remembered {
                call: case.call.clone(),
                reply: reply.clone(),
                until: case.now.plus(case.policy.request_memory),
            });
        }
    }

    /// Ends the live code, and forgets wrong answers if asked to.
    fn cancel(&mut self, challenge: Option<&str>, reset: bool, case: &mut Case) -> Reply {
        let named = self.admits(challenge, case.doubt);
        let cancelled = named && self.lives(case);
        let reset = named && reset && self.remembered_failures(case) > 0;
        let reply = Reply::Cancelled { cancelled, reset };
        if cancelled {
            self.end = End::Cancelled;
        }
        if reset {
            self.failures = 0;
        }
        if cancelled || reset {
            self.remember(&reply, case);
        }
        reply
    }

    fn status(&mut self, challenge: Option<&str>, case: &mut Case) -> Reply {
        if !self.admits(challenge, case.doubt) {
            return NOTHING_KNOWN;
        }
        let remaining = case.policy.max_attempts.saturating_sub(self.attempts);
        let live = self
            .lives(case)
            .then(|| (self.newest(), self.expires_at, remaining));
        let resend_at = self.resend_at(case.policy);
        Reply::Status {
            live,
            resend_at: case.doubt.before(case.now, resend_at).then_some(resend_at),
            blocked_until: self.block(case).map(|(until, _)| until),
        }
    }

    /// The end of the cool-down, which a success lifts.
    pub fn resend_at(&self, policy: &Policy) -> Moment {
        match self.end {
            End::Spent => self.sent_at,
            _ => self.sent_at.plus(policy.resend_after),
        }
    }

    /// Wrong answers in a row that still count.
    fn remembered_failures(&self, case: &mut Case) -> u32 {
        let forgotten_at = self.failed_at.plus(case.policy.failure_memory);
        let remembered = self.failures > 0 && case.doubt.before(case.now, forgotten_at);
        if remembered { self.failures } else { 0 }
    }

    /// Rule 5: until when answers are refused, and why, if they are.
    fn block(&self, case: &mut Case) -> Option<(Moment, &'static str)> {
        let until = self.blocked_until(case.policy, self.remembered_failures(case))?;
        let reason = if self.failures >= case.policy.failure_limit {
            "VERIFY_LOCKED"
        } else {
            "VERIFY_DELAYED"
        };
        case.doubt
            .before(case.now, until)
            .then_some((until, reason))
    }

    /// Until when so many wrong answers shut a record.
    pub fn blocked_until(&self, policy: &Policy, failures: u32) -> Option<Moment> {
        if failures >= policy.failure_limit {
            return Some(self.failed_at.plus(policy.failure_memory));
        }
        let times = failures / policy.max_attempts;
        let delay = policy.failure_delay << times.saturating_sub(1).min(30);
        (times > 0 && failures.is_multiple_of(policy.max_attempts))
            .then(|| self.failed_at.plus(delay.min(LONGEST_DELAY)))
    }

    /// Instants at which an answer changes, for tests that go there.
    pub fn edges(&self, policy: &Policy) -> Vec<i64> {
        let until = self.remembered.last().map(|known| known.until);
        [
            Some(self.expires_at),
            Some(self.expires_at.plus(-policy.resend_after)),
            Some(self.expires_at.plus(EXPIRED_TOLD_FOR)),
            Some(self.resend_at(policy)),
            self.blocked_until(policy, self.failures),
            Some(self.failed_at.plus(policy.failure_memory)),
            until,
        ]
        .into_iter()
        .flatten()
        .map(|moment| moment.earliest)
        .collect()
    }
}

/// Returns the fields that distinguish requests with the same id: not the client's address.
fn fields(call: &Call) -> (Call, Ask) {
    let mut ask = call.ask.clone();
    if let Ask::Send { network, .. } | Ask::Verify { network, .. } = &mut ask {
        *network = None;
    }
    let call = Call {
        ask: Ask::Status {
            challenge: None,
            by_challenge: false,
        },
        ..call.clone()
    };
    (call, ask)
}
