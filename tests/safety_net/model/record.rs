//! Rules 2 to 8 of one record.

use super::{
    Ask, Case, DAY, Doubt, HOUR, Limits, Moment, Outcome, Policy, Reply, Told, words::Call,
};

/// How long a dead code is told as expired.
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

/// A verdict that leaves no attempt to tell of.
pub const fn verdict(outcome: Outcome, challenge: Option<usize>) -> Reply {
    Reply::Verdict {
        outcome,
        remaining: 0,
        challenge,
        verified_at: None,
    }
}

/// What is known of one (caller, recipient, purpose).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The names of all its challenges, where they are known; the last one is newest.
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

    fn remember(&mut self, reply: &Reply, case: &Case) {
        self.written_at = case.now;
        if case.call.id.is_some() {
            self.remembered.push(Remembered {
                call: case.call.clone(),
                reply: reply.clone(),
                until: case.now.plus(case.policy.request_memory),
            });
        }
    }

    /// Rules 1, 4 and 6.
    fn send(&mut self, case: &mut Case, limits: &mut Limits) -> Reply {
        let Ask::Send { network, .. } = &case.call.ask else {
            unreachable!("only sends are sent here");
        };
        let (now, policy) = (case.now, case.policy);
        let mut shared = shared(network.as_deref(), "ip_sends_per_hour", case);
        let taken = self.permit_send(case, shared.as_ref(), limits);
        let (hour, day, by_network) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                settle(shared.take(), limits, now);
                return refusal;
            }
        };
        self.hour_full_at = hour;
        self.day_full_at = day;
        charge(shared, by_network, limits);
        let worth_repeating = self.lives(case)
            && !case
                .doubt
                .before(self.expires_at, now.plus(policy.resend_after));
        if !worth_repeating {
            self.names.push(None);
            self.end = End::None;
            self.attempts = 0;
            self.expires_at = now.plus(policy.code_ttl);
        }
        self.sent_at = now;
        let reply = Reply::Sent {
            challenge: self.newest(),
            expires_at: self.expires_at,
            resend_at: now.plus(policy.resend_after),
            resent: worth_repeating,
            code: true,
        };
        self.remember(&reply, case);
        reply
    }

    /// Whether a message may go out now; what the limits then are.
    fn permit_send(
        &mut self,
        case: &mut Case,
        shared: Option<&Shared>,
        limits: &Limits,
    ) -> Result<(Moment, Moment, Option<Moment>), Reply> {
        let (now, policy) = (case.now, case.policy);
        if let Some((until, reason)) = self.block(case)
            && !case.doubt.before(until, now.plus(policy.code_ttl))
        {
            return Err(Reply::wait(reason, until.since(now)));
        }
        let resend_at = self.resend_at(policy);
        if case.doubt.before(now, resend_at) {
            let live = self.lives(case).then(|| (self.newest(), self.expires_at));
            let wait = Some(resend_at.since(now));
            return Err(Reply::Refused {
                reason: "RESEND_TOO_SOON",
                limit: None,
                wait,
                live,
            });
        }
        let hour = take(
            self.hour_full_at,
            policy.sends_per_hour,
            HOUR,
            now,
            case.doubt,
        );
        let day = take(self.day_full_at, policy.sends_per_day, DAY, now, case.doubt);
        let network = shared.map(|shared| shared.take(limits, case)).transpose();
        // Who waits for the longest is not refused by another limit afterwards.
        let mut longest: Option<(&'static str, Moment)> = None;
        for (name, wait) in [
            ("ip_sends_per_hour", network.as_ref().err()),
            ("sends_per_hour", hour.as_ref().err()),
            ("sends_per_day", day.as_ref().err()),
        ] {
            if let Some(&wait) = wait
                && longest.is_none_or(|(_, other)| !case.doubt.before(wait, other))
            {
                longest = Some((name, wait));
            }
        }
        match (hour, day, network, longest) {
            (Ok(hour), Ok(day), Ok(network), _) => Ok((hour, day, network)),
            (.., longest) => Err(Reply::Refused {
                reason: "SEND_LIMIT",
                limit: longest.map(|(name, _)| name),
                wait: longest.map(|(_, wait)| wait),
                live: None,
            }),
        }
    }

    /// Rules 2, 3 and 5, in the order of a verification.
    fn verify(
        &mut self,
        typed: &str,
        challenge: Option<&str>,
        case: &mut Case,
        limits: &mut Limits,
    ) -> Reply {
        let Ask::Verify { network, .. } = &case.call.ask else {
            unreachable!("only answers are judged here");
        };
        let (now, policy, newest) = (case.now, case.policy, self.newest());
        let shared = shared(network.as_deref(), "ip_failures_per_hour", case);
        if let Some((until, reason)) = self.block(case) {
            settle(shared, limits, now);
            return Reply::wait(reason, until.since(now));
        }
        let forgotten_at = self.expires_at.plus(EXPIRED_TOLD_FOR);
        if self.end != End::None
            || !self.admits(challenge, case.doubt)
            || !case.doubt.before(now, forgotten_at)
        {
            return verdict(Outcome::NotFound, None);
        }
        if !case.doubt.before(now, self.expires_at) {
            return verdict(Outcome::Expired, Some(newest));
        }
        if self.attempts >= policy.max_attempts {
            return verdict(Outcome::AttemptsExhausted, Some(newest));
        }
        if typed.len() != policy.code_length {
            settle(shared, limits, now);
            return Reply::refused("CODE_MALFORMED");
        }
        let taken = shared
            .as_ref()
            .map(|shared| shared.take(limits, case))
            .transpose();
        let taken = match taken {
            Ok(taken) => taken,
            Err(wait) => {
                settle(shared, limits, now);
                return Reply::Refused {
                    reason: "VERIFY_LIMIT",
                    limit: Some("ip_failures_per_hour"),
                    wait: Some(wait),
                    live: None,
                };
            }
        };
        self.attempts += 1;
        let code = self.names[newest]
            .as_ref()
            .and_then(|name| case.codes.get(name));
        let right = match code {
            Some(code) => code == typed,
            None => case.doubt.either(),
        };
        let mut remaining = 0;
        let outcome = if right {
            self.end = End::Spent;
            self.failures = 0;
            Outcome::Verified
        } else {
            charge(shared, taken, limits);
            self.failures = self.remembered_failures(case) + 1;
            self.failed_at = now;
            remaining = policy.max_attempts - self.attempts;
            Outcome::WrongCode
        };
        let challenge = Some(newest);
        let verified_at = right.then_some(now);
        let reply = Reply::Verdict {
            outcome,
            remaining,
            challenge,
            verified_at,
        };
        self.remember(&reply, case);
        reply
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

/// What makes a request the same as another of that id: not the client's address.
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

/// A limit that records share.
struct Shared {
    key: (usize, &'static str, String),
    count: i64,
}

fn shared(network: Option<&str>, limit: &'static str, case: &Case) -> Option<Shared> {
    let count = match limit {
        "ip_sends_per_hour" => case.policy.ip_sends_per_hour,
        _ => case.policy.ip_failures_per_hour,
    };
    let key = (case.call.name.caller, limit, network?.to_owned());
    Some(Shared { key, count })
}

impl Shared {
    fn take(&self, limits: &Limits, case: &mut Case) -> Result<Moment, Moment> {
        let full_at = limits.get(&self.key).copied().unwrap_or(Moment::LONG_AGO);
        take(full_at, self.count, HOUR, case.paid, case.doubt)
    }
}

fn charge(shared: Option<Shared>, taken: Option<Moment>, limits: &mut Limits) {
    if let (Some(shared), Some(taken)) = (shared, taken) {
        limits.insert(shared.key, taken);
    }
}

/// Rule 8 for a limit that a refused request looked at: it is full again after one
/// burst at most.
fn settle(shared: Option<Shared>, limits: &mut Limits, now: Moment) {
    if let Some(shared) = shared
        && let Some(full_at) = limits.get_mut(&shared.key)
    {
        *full_at = full_at.min(now.plus(burst(shared.count, HOUR)));
    }
}

/// How long it takes to refill one, rounded up, so that no period holds too many.
const fn interval(count: i64, period: i64) -> i64 {
    (period + count - 1) / count
}

const fn burst(count: i64, period: i64) -> i64 {
    interval(count, period) * count
}

/// Rule 6, the generic cell rate algorithm: takes one, and tells when all will be there
/// again; or tells how long to wait for one.
fn take(
    full_at: Moment,
    count: i64,
    period: i64,
    now: Moment,
    doubt: &mut Doubt,
) -> Result<Moment, Moment> {
    if !doubt.before(now, full_at) {
        return Ok(now.plus(interval(count, period)));
    }
    let latest = now.plus(burst(count, period));
    let next = full_at.min(latest).plus(interval(count, period));
    if doubt.before(latest, next) {
        Err(next.since(latest))
    } else {
        Ok(next)
    }
}
