//! Rules 2, 3 and 5, and the order of the checks of a verification.

use super::{
    EXPIRED_RETENTION, End, Record,
    limits::{charge, clamp, consume_all, failures, longest},
    verdict,
};
use crate::{Command, Context, Outcome, Reply, SharedLimits};

impl Record {
    /// Rules 2, 3 and 5, in the order of the checks.
    pub(super) fn verify(
        &mut self,
        submitted: &str,
        challenge: Option<&str>,
        context: &mut Context,
        limits: &mut SharedLimits,
    ) -> Reply {
        let Command::Verify {
            network, receipt, ..
        } = &context.call.command
        else {
            unreachable!("only verifications are decided here");
        };
        let (now, policy, newest) = (context.now, context.policy, self.newest());
        let shared = failures(network.as_deref(), context);
        if let Some((until, reason)) = self.lockout(context) {
            clamp(shared, limits, now);
            return Reply::wait(reason, until.since(now));
        }
        let forgotten_at = self.expires_at.plus(EXPIRED_RETENTION);
        if self.end != End::None
            || !self.selects_newest(challenge, context.choices)
            || !context.choices.before(now, forgotten_at)
        {
            return verdict(Outcome::NotFound, None);
        }
        if !context.choices.before(now, self.expires_at) {
            return verdict(Outcome::Expired, Some(newest));
        }
        if self.attempts >= policy.max_attempts {
            return verdict(Outcome::AttemptsExhausted, Some(newest));
        }
        if submitted.len() != policy.code_length {
            clamp(shared, limits, now);
            return Reply::refused("CODE_MALFORMED");
        }
        let consumed = match consume_all(&shared, limits, context) {
            Ok(consumed) => consumed,
            Err(waits) => {
                clamp(shared, limits, now);
                let longest = longest(waits, context.choices);
                return Reply::Refused {
                    reason: "VERIFY_LIMIT",
                    limit: longest.map(|(name, _)| name),
                    wait: longest.map(|(_, wait)| wait),
                    live: None,
                };
            }
        };
        self.attempts += 1;
        let code = self.ids[newest]
            .as_ref()
            .and_then(|id| context.codes.get(id));
        let is_correct = match code {
            Some(code) => code == submitted,
            None => context.choices.either(),
        };
        let mut remaining = 0;
        let outcome = if is_correct {
            self.end = End::Spent;
            self.failures = 0;
            Outcome::Verified
        } else {
            charge(shared, consumed, limits);
            self.failures = self.counted_failures(context) + 1;
            self.failed_at = now;
            remaining = policy.max_attempts - self.attempts;
            Outcome::WrongCode
        };
        let challenge = Some(newest);
        let verified_at = is_correct.then_some(now);
        let receipt = verified_at.filter(|_| receipt.is_some());
        let reply = Reply::Verdict {
            outcome,
            remaining,
            challenge,
            verified_at,
            receipt: receipt.map(|at| (at.second(), self.channels.clone())),
        };
        self.record_outcome(&reply, context);
        reply
    }
}
