//! The rules beside a model of them, written in the plainest way.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::{
    super::*,
    Step,
    rules::{Reply, Request, Rules},
};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) struct World {
    pub rules: Rules,
    pub now: Timestamp,
    /// Wait of the last refusal.
    retry_after: Option<Duration>,
    earlier: Vec<(u8, Request)>,
    remembered: Vec<(u8, Request, Reply, Timestamp)>,
    failures: u32,
    failed_at: Timestamp,
    sent_at: Vec<Timestamp>,
    wrong_at: Vec<Timestamp>,
    judged: HashMap<[u8; 16], u32>,
}

impl World {
    pub fn new(policy: PurposePolicy) -> Self {
        let now = Timestamp::from_milliseconds(1_800_000_000_000);
        Self {
            rules: Rules::new(policy),
            now,
            retry_after: None,
            earlier: Vec::new(),
            remembered: Vec::new(),
            failures: 0,
            failed_at: now,
            sent_at: Vec::new(),
            wrong_at: Vec::new(),
            judged: HashMap::new(),
        }
    }

    pub fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait(milliseconds) => {
                self.now = self.now.saturating_add(Duration::from_millis(milliseconds));
                Ok(())
            }
            Step::WaitAsAdvised { early } => {
                let wait = self.retry_after.unwrap_or_default();
                let early = Duration::from_millis(early.into());
                self.now = self.now.saturating_add(wait.saturating_sub(early));
                Ok(())
            }
            Step::Send { id, voice } => self.check(id, Request::Send { voice }),
            Step::Verify { id, right } => {
                let digits = self.rules.digits(right, self.now);
                self.check(id, Request::Verify { digits })
            }
            Step::Cancel { id, reset } => self.check(id, Request::Cancel { reset }),
            Step::Again { .. } if self.earlier.is_empty() => Ok(()),
            Step::Again { which, changed } => {
                let (id, mut request) = which.get(&self.earlier).clone();
                if changed {
                    match &mut request {
                        Request::Send { voice: flag } | Request::Cancel { reset: flag } => {
                            *flag = !*flag;
                        }
                        Request::Verify { digits } => digits.replace_range(..1, "7"),
                    }
                }
                self.check(Some(id), request)
            }
        }
    }

    /// Makes a request, and compares the response and its effects with the model.
    fn check(&mut self, id: Option<u8>, request: Request) -> Result<(), TestCaseError> {
        let same_rpc =
            |other: &Request| std::mem::discriminant(other) == std::mem::discriminant(&request);
        let remembered = self
            .remembered
            .iter()
            .find(|(of, other, _, until)| Some(*of) == id && same_rpc(other) && self.now < *until)
            .cloned();
        let blocked_until = self.blocked_until();
        let done = self.rules.ask(id, &request, self.now);
        self.retry_after = done.reply.retry_after().or(self.retry_after);
        self.earlier.extend(id.map(|id| (id, request.clone())));

        if let Some((_, first_request, first_reply, _)) = remembered {
            prop_assert!(!done.wrote && !done.charged && !done.first);
            if first_request == request {
                prop_assert_eq!(done.reply, first_reply);
            } else {
                prop_assert!(done.reply.says_reused(), "{:?}", done.reply);
            }
            return self.check_failures();
        }
        prop_assert!(!done.reply.says_reused());
        match &done.reply {
            Reply::Sent { .. } => {
                prop_assert!(done.wrote && done.first);
                prop_assert!(blocked_until.is_none_or(|until| self.code_outlasts(until)));
                self.sent_at.push(self.now);
            }
            Reply::NotSent(refusal) => {
                prop_assert!(!done.wrote && !done.charged);
                let useless = blocked_until.filter(|&until| !self.code_outlasts(until));
                let refused_until = match refusal {
                    Refusal::Blocked(block) => Some(block.until),
                    _ => None,
                };
                prop_assert_eq!(refused_until, useless);
            }
            Reply::Verdict(VerifyOutcome::WrongCode { challenge, .. }) => {
                prop_assert!(done.wrote);
                prop_assert_eq!(blocked_until, None);
                self.failures = self.failures_now() + 1;
                self.failed_at = self.now;
                self.wrong_at.push(self.now);
                self.count(*challenge)?;
            }
            Reply::Verdict(VerifyOutcome::Verified { challenge, .. }) => {
                prop_assert!(done.wrote && !done.charged);
                prop_assert_eq!(blocked_until, None);
                self.failures = 0;
                self.count(*challenge)?;
            }
            Reply::Verdict(_) => {
                prop_assert!(!done.wrote && !done.charged);
                prop_assert_eq!(blocked_until, None);
            }
            Reply::NotJudged(refusal) => {
                prop_assert!(!done.wrote && !done.charged);
                let refused_until = match refusal {
                    Refusal::Blocked(block) => {
                        prop_assert_eq!(
                            block.locked,
                            self.failures >= self.rules.policy.failure_limit
                        );
                        Some(block.until)
                    }
                    _ => None,
                };
                prop_assert_eq!(refused_until, blocked_until);
            }
            Reply::Cancelled(cancelled) => {
                let reset = request == Request::Cancel { reset: true } && self.failures_now() > 0;
                prop_assert_eq!(cancelled.failures_reset, reset);
                prop_assert_eq!(done.wrote, reset || cancelled.challenge.is_some());
                if reset {
                    self.failures = 0;
                }
            }
            Reply::NotCancelled => unreachable!("only a reused id is refused"),
        }
        if let Some(id) = id.filter(|_| done.wrote) {
            let until = self.now.saturating_add(self.rules.policy.request_memory);
            self.remembered.push((id, request, done.reply, until));
        }
        self.check_failures()
    }

    fn failures_now(&self) -> u32 {
        if self.now
            < self
                .failed_at
                .saturating_add(self.rules.policy.failure_memory)
        {
            self.failures
        } else {
            0
        }
    }

    /// Returns the end of the lockout, by the words of rule 5.
    fn blocked_until(&self) -> Option<Timestamp> {
        let failures = self.failures_now();
        let mut delay = Duration::ZERO;
        if failures >= self.rules.policy.failure_limit {
            delay = self.rules.policy.failure_memory;
        } else if failures.is_multiple_of(self.rules.policy.max_attempts) {
            for round in 0..failures / self.rules.policy.max_attempts {
                delay = if round == 0 {
                    self.rules.policy.failure_delay
                } else {
                    delay * 2
                };
                delay = delay.min(HOUR);
            }
        }
        Some(self.failed_at.saturating_add(delay)).filter(|&until| self.now < until)
    }

    /// Returns true if a code that is issued now lives longer than a lockout.
    fn code_outlasts(&self, until: Timestamp) -> bool {
        until < self.now.saturating_add(self.rules.policy.code_ttl)
    }

    fn count(&mut self, challenge: ChallengeNonce) -> Result<(), TestCaseError> {
        let judged = self.judged.entry(challenge.0).or_default();
        *judged += 1;
        prop_assert!(*judged <= self.rules.policy.max_attempts);
        Ok(())
    }

    /// The counter equals the number of failed attempts since the last success or reset.
    fn check_failures(&self) -> Result<(), TestCaseError> {
        let stored = self.rules.record.as_ref();
        let stored = stored.map_or(0, |record| {
            record.failures.count_at(&self.rules.policy, self.now)
        });
        prop_assert_eq!(stored, self.failures_now());
        Ok(())
    }

    /// Checks that no window grants more than the burst and the refill.
    pub fn check_limits(&self) -> Result<(), TestCaseError> {
        let PurposePolicy {
            sends_per_hour,
            sends_per_day,
            ip_sends_per_hour,
            ip_failures_per_hour,
            ..
        } = self.rules.policy;
        for (taken, count, period) in [
            (&self.sent_at, sends_per_hour, HOUR),
            (&self.sent_at, sends_per_day, DAY),
            (&self.sent_at, ip_sends_per_hour, HOUR),
            (&self.wrong_at, ip_failures_per_hour, HOUR),
        ] {
            if count == 0 {
                continue;
            }
            let interval = period.as_millis().div_ceil(count.into());
            for (first, start) in taken.iter().enumerate() {
                for (number, end) in taken[first..].iter().enumerate() {
                    let refilled = start.duration_until(*end).as_millis() / interval;
                    prop_assert!((number as u128) < u128::from(count) + refilled);
                }
            }
        }
        Ok(())
    }
}
