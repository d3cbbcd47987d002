//! One record, random requests to it, and the invariants that must hold after each.

use std::{collections::HashMap, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseResult};

use super::steps::{Named, SplitMix, Step, Typed};
use crate::*;

/// State of a challenge, as seen from outside.
struct Seen {
    code: OtpCode,
    expires_at: Timestamp,
    judged: u32,
    ended: bool,
}

/// One record, the requests to it so far, and the invariants that must hold.
pub(super) struct World {
    pub(super) policy: PurposePolicy,
    pub(super) now: Timestamp,
    random: SplitMix,
    pub(super) record: Option<Record>,
    challenges: HashMap<[u8; 16], Seen>,
    first: Option<ChallengeNonce>,
    pub(super) newest: Option<ChallengeNonce>,
    /// End of the cool-down, until which sends must be refused.
    cool_until: Timestamp,
}

fn caller() -> CallerName {
    CallerName::new("crm")
}

/// Returns the fingerprint of a request without a `request_id`.
fn identity(random: &mut SplitMix) -> RequestFingerprint {
    let mut id = [0; 16];
    random.fill_bytes(&mut id);
    RequestFingerprint {
        id,
        fields: [0; 16],
        writer: 0,
        named: false,
    }
}

pub(super) fn send_at(
    record: Option<Record>,
    policy: &PurposePolicy,
    now: Timestamp,
    random: &mut SplitMix,
) -> Decision<Result<SendOutcome, Refusal>> {
    let request = SendRequest {
        identity: identity(random),
        test: None,
        barred: None,
        caller: caller(),
        recipient: Recipient::from_canonical("+79991234567".to_owned()),
        purpose: Purpose::default(),
        channel: Channel::Sms,
        message: None,
    };
    send(record, &[], &request, policy, now, random)
}

impl World {
    pub(super) fn new(policy: PurposePolicy, seed: u64) -> Self {
        let now = Timestamp::from_milliseconds(1_000_000_000_000);
        Self {
            policy,
            now,
            random: SplitMix(seed),
            record: None,
            challenges: HashMap::new(),
            first: None,
            newest: None,
            cool_until: Timestamp::from_milliseconds(i64::MIN),
        }
    }

    fn filter(&self, named: Named) -> ChallengeSelector {
        let only =
            |nonce: Option<_>| nonce.map_or(ChallengeSelector::Foreign, ChallengeSelector::Only);
        match named {
            Named::Nothing => ChallengeSelector::Newest,
            Named::Newest => only(self.newest),
            Named::First => only(self.first),
            Named::Foreign => ChallengeSelector::Foreign,
        }
    }

    /// Returns the input of a person who got the newest code.
    pub(super) fn typed(&self, typed: Typed) -> SubmittedCode {
        let code = self.newest.map_or_else(
            || "0".repeat(usize::from(self.policy.code_length)),
            |nonce| self.challenges[&nonce.0].code.expose().to_owned(),
        );
        let text = match typed {
            Typed::Right => code,
            Typed::Wrong if code.starts_with('9') => format!("0{}", &code[1..]),
            Typed::Wrong => format!("9{}", &code[1..]),
            Typed::TooShort => code[1..].to_owned(),
        };
        SubmittedCode::parse(&text).unwrap()
    }

    pub(super) fn run(&mut self, step: Step) -> TestCaseResult {
        if let Step::Clock(milliseconds) = step {
            self.now = Timestamp::from_milliseconds(self.now.milliseconds() + milliseconds);
            return self.check_purge();
        }
        let before = self.record.clone();
        if before
            .as_ref()
            .is_some_and(|record| self.now < record.written_at)
        {
            // The clock stepped back: all live codes are invalidated, and a wait lasts
            // from now on at most its own length.
            for seen in self.challenges.values_mut() {
                seen.ended = true;
            }
            self.cool_until = self
                .cool_until
                .min(self.now.saturating_add(self.policy.resend_after));
        }
        let write = match step {
            Step::Send => self.send()?,
            Step::Verify(typed, named) => self.verify(typed, named)?,
            Step::Cancel(named) => self.cancel(named)?,
            Step::Status(named) => self.status(named)?,
            Step::Clock(_) => unreachable!("the clock was moved above"),
        };
        if let Some(record) = write {
            self.record = Some(record);
        }
        self.check_record()?;
        self.check_purge()
    }

    fn send(&mut self) -> Result<Option<Record>, TestCaseError> {
        let (record, now) = (self.record.clone(), self.now);
        let decision = send_at(record, &self.policy, now, &mut self.random);
        let sent = match decision.answer {
            Err(Refusal::ResendTooSoon { wait, .. }) => {
                prop_assert_eq!(wait, now.duration_until(self.cool_until));
                prop_assert!(!wait.is_zero());
                prop_assert!(wait <= self.policy.resend_after);
                return Ok(decision.write);
            }
            Err(other) => return Err(TestCaseError::fail(format!("refused: {other:?}"))),
            Ok(sent) => sent,
        };
        prop_assert!(now >= self.cool_until, "sent within the cool-down");
        prop_assert!(decision.write.is_some());
        let code = sent.code.expect("a first send returns the code");
        let known = self.challenges.get(&sent.challenge.0);
        prop_assert_eq!(sent.resent, known.is_some());
        if let Some(known) = known {
            prop_assert!(!known.ended, "a dead code was sent");
            prop_assert_eq!(self.newest, Some(sent.challenge));
            prop_assert_eq!(known.code.expose(), code.expose());
            prop_assert_eq!(known.expires_at, sent.expires_at);
            prop_assert!(now.duration_until(sent.expires_at) >= self.policy.resend_after);
        } else {
            prop_assert_eq!(sent.expires_at, now.saturating_add(self.policy.code_ttl));
            prop_assert_eq!(code.length(), u32::from(self.policy.code_length));
            let seen = Seen {
                code,
                expires_at: sent.expires_at,
                judged: 0,
                ended: false,
            };
            self.challenges.insert(sent.challenge.0, seen);
        }
        self.first.get_or_insert(sent.challenge);
        self.newest = Some(sent.challenge);
        self.cool_until = now.saturating_add(self.policy.resend_after);
        prop_assert_eq!(sent.resend_at, self.cool_until);
        Ok(decision.write)
    }

    fn verify(&mut self, typed: Typed, named: Named) -> Result<Option<Record>, TestCaseError> {
        let code = self.typed(typed);
        let request = VerifyRequest {
            identity: identity(&mut self.random),
            code,
            challenge: self.filter(named),
        };
        let decision = verify(self.record.clone(), &[], &request, &self.policy, self.now);
        let judged = match decision.answer {
            Ok(VerifyOutcome::Verified { challenge, at }) => {
                prop_assert!(matches!(typed, Typed::Right));
                prop_assert_eq!(at, self.now);
                // A success ends the cool-down.
                self.cool_until = Timestamp::from_milliseconds(i64::MIN);
                Some((challenge, None))
            }
            Ok(VerifyOutcome::WrongCode {
                challenge,
                attempts_remaining,
            }) => {
                prop_assert!(matches!(typed, Typed::Wrong));
                Some((challenge, Some(attempts_remaining)))
            }
            _ => None,
        };
        let Some((challenge, remaining)) = judged else {
            let attempts = |record: &Record| (record.challenge.nonce, record.challenge.attempts);
            if let Some(written) = &decision.write {
                prop_assert_eq!(Some(attempts(written)), self.record.as_ref().map(attempts));
            }
            return Ok(decision.write);
        };
        prop_assert_eq!(Some(challenge), self.newest);
        let seen = self.challenges.get_mut(&challenge.0).unwrap();
        prop_assert!(!seen.ended, "a dead code was checked");
        prop_assert!(self.now < seen.expires_at, "an expired code was checked");
        seen.judged += 1;
        let left = self.policy.max_attempts.checked_sub(seen.judged);
        prop_assert!(left.is_some(), "more attempts were checked than allowed");
        prop_assert!(remaining.is_none() || remaining == left);
        seen.ended = remaining.is_none() || left == Some(0);
        prop_assert_eq!(
            decision
                .write
                .as_ref()
                .map(|record| record.challenge.attempts),
            Some(seen.judged)
        );
        Ok(decision.write)
    }

    fn cancel(&mut self, named: Named) -> Result<Option<Record>, TestCaseError> {
        let identity = identity(&mut self.random);
        let request = CancelRequest {
            identity,
            challenge: self.filter(named),
            reset_failures: false,
        };
        let decision = cancel(self.record.clone(), &request, &self.policy, self.now);
        if let Some(challenge) = decision.answer.unwrap().challenge {
            let seen = self.challenges.get_mut(&challenge.0).unwrap();
            prop_assert!(!seen.ended && self.now < seen.expires_at);
            seen.ended = true;
        }
        Ok(decision.write)
    }

    fn status(&mut self, named: Named) -> Result<Option<Record>, TestCaseError> {
        let filter = self.filter(named);
        let decision = status(self.record.clone(), filter, &self.policy, self.now);
        if let Some(live) = decision.answer.live {
            let seen = &self.challenges[&live.challenge.0];
            prop_assert!(!seen.ended && self.now < seen.expires_at);
            prop_assert_eq!(live.expires_at, seen.expires_at);
            prop_assert_eq!(
                live.attempts_remaining,
                self.policy.max_attempts - seen.judged
            );
        }
        if let Some(resend_at) = decision.answer.resend_at {
            prop_assert_eq!(resend_at, self.cool_until);
            prop_assert!(self.now < resend_at);
        }
        Ok(decision.write)
    }

    /// No time of a record lies further ahead of its last write than its own length, and
    /// the live code is the one that was sent.
    fn check_record(&self) -> TestCaseResult {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let (challenge, written_at) = (&record.challenge, record.written_at);
        prop_assert!(
            written_at <= self.now,
            "the clock rollback was not repaired"
        );
        prop_assert!(record.sent_at <= written_at);
        prop_assert!(challenge.created_at <= written_at);
        prop_assert!(challenge.expires_at <= written_at.saturating_add(self.policy.code_ttl));
        let longest = self.policy.code_ttl + PurposePolicy::EXPIRED_RETENTION;
        let longest = longest
            .max(self.policy.resend_after)
            .max(self.policy.failure_memory);
        prop_assert!(record.purge_at(&self.policy) <= written_at.saturating_add(longest));
        let seen = &self.challenges[&challenge.nonce.0];
        if let ChallengeState::Live(secret) = &challenge.state {
            prop_assert!(!seen.ended);
            prop_assert_eq!(challenge.expires_at, seen.expires_at);
            prop_assert_eq!(secret.code.expose(), seen.code.expose());
            prop_assert_eq!(challenge.attempts, seen.judged);
        }
        Ok(())
    }

    /// Once the record may be purged, the next request gets the same response without it.
    fn check_purge(&self) -> TestCaseResult {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let removable_at = record.purge_at(&self.policy);
        prop_assert!(
            removable_at >= record.written_at,
            "purged before its last write"
        );
        for later in [0, 60_000, 86_400_000] {
            let at = removable_at
                .max(self.now)
                .saturating_add(Duration::from_millis(later));
            prop_assert_eq!(
                self.answers(Some(record), at),
                self.answers(None, at),
                "{} ms after {:?}",
                later,
                record
            );
        }
        Ok(())
    }

    /// Returns the responses to all possible next requests.
    fn answers(&self, record: Option<&Record>, at: Timestamp) -> Vec<String> {
        let policy = &self.policy;
        let sent = send_at(record.cloned(), policy, at, &mut SplitMix(7));
        let sent = sent.answer.map(|sent| {
            let code = sent
                .code
                .expect("a first send returns the code")
                .expose()
                .to_owned();
            (
                sent.challenge,
                code,
                sent.expires_at,
                sent.resend_at,
                sent.resent,
            )
        });
        let mut answers = vec![format!("{sent:?}")];
        for named in [Named::Nothing, Named::Newest, Named::First, Named::Foreign] {
            let challenge = self.filter(named);
            for typed in [Typed::Right, Typed::Wrong, Typed::TooShort] {
                let request = VerifyRequest {
                    identity: identity(&mut SplitMix(8)),
                    code: self.typed(typed),
                    challenge,
                };
                let verdict = verify(record.cloned(), &[], &request, policy, at).answer;
                answers.push(format!("{verdict:?}"));
            }
            let request = CancelRequest {
                identity: identity(&mut SplitMix(9)),
                challenge,
                reset_failures: false,
            };
            let cancelled = cancel(record.cloned(), &request, policy, at).answer;
            let status = status(record.cloned(), challenge, policy, at).answer;
            answers.push(format!("{cancelled:?} {status:?}"));
        }
        answers
    }
}
