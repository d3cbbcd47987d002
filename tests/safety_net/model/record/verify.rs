//! Rules 2, 3 and 5, and the order of a verification.

use super::{
    super::{Ask, Case, Limits, Outcome, Reply},
    EXPIRED_TOLD_FOR, End, Record,
    limits::{charge, failures, longest, settle, take_each},
    verdict,
};

impl Record {
    /// Rules 2, 3 and 5, in the order of a verification.
    pub(super) fn verify(
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
        let shared = failures(network.as_deref(), case);
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
        let taken = match take_each(&shared, limits, case) {
            Ok(taken) => taken,
            Err(waits) => {
                settle(shared, limits, now);
                let longest = longest(waits, case.doubt);
                return Reply::Refused {
                    reason: "VERIFY_LIMIT",
                    limit: longest.map(|(name, _)| name),
                    wait: longest.map(|(_, wait)| wait),
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
}
