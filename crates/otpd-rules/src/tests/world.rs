//! One record under random calls. The model must explain every reply, and each effect of a
//! decision must be that of the model.

use std::collections::HashMap;

use otpd_model::{self as model, Call, Codes, Model, Observed, RecordId, TimeRange};
use proptest::{prelude::*, test_runner::TestCaseResult};

use super::{
    conversion,
    steps::{Named, Origin, SplitMix, Step, Typed},
};
use crate::*;

pub(super) const RECIPIENT: &str = "+79991234567";

/// The rules and the model with their states.
pub(super) struct World {
    pub(super) policy: PurposePolicy,
    pub(super) now: Timestamp,
    random: SplitMix,
    pub(super) record: Option<Record>,
    /// States of the shared limits, by kind and subject.
    pub(super) limits: HashMap<(RateLimitKind, String), Timestamp>,
    pub(super) settings: model::Settings,
    pub(super) model: Model,
    codes: Codes,
    /// All challenges; the newest is last.
    pub(super) challenges: Vec<ChallengeNonce>,
    /// All calls with a `request_id`.
    repeatable: Vec<Call>,
    /// Wait of the last refusal.
    retry_after: i64,
    /// Times of first sends and of failed attempts, with their client networks.
    pub(super) sends: Vec<(TimeRange, Option<u8>)>,
    pub(super) failures: Vec<(TimeRange, Option<u8>)>,
}

impl World {
    pub(super) fn new(policy: PurposePolicy, seed: u64) -> Self {
        Self {
            now: Timestamp::from_milliseconds(1_000_000_000_000),
            random: SplitMix(seed),
            record: None,
            limits: HashMap::new(),
            settings: conversion::settings(&policy),
            policy,
            model: Model::default(),
            codes: Codes::new(),
            challenges: Vec::new(),
            repeatable: Vec::new(),
            retry_after: 0,
            sends: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn newest(&self) -> ChallengeNonce {
        *self.challenges.last().unwrap()
    }

    fn record_id() -> RecordId {
        RecordId {
            caller: 0,
            purpose: 0,
            recipient: RECIPIENT.to_owned(),
        }
    }

    pub(super) fn selector(&self, named: Named) -> ChallengeSelector {
        let only = |nonce: Option<&_>| {
            nonce.map_or(ChallengeSelector::Foreign, |nonce| {
                ChallengeSelector::Only(*nonce)
            })
        };
        match named {
            Named::Nothing => ChallengeSelector::Newest,
            Named::Newest => only(self.challenges.last()),
            Named::First => only(self.challenges.first()),
            Named::Foreign => ChallengeSelector::Foreign,
        }
    }

    fn challenge(&self, named: Named) -> Option<String> {
        match self.selector(named) {
            ChallengeSelector::Newest => None,
            ChallengeSelector::Only(nonce) => Some(conversion::challenge_id(nonce)),
            ChallengeSelector::Foreign => Some("foreign".to_owned()),
        }
    }

    /// Returns the input of a person who got the newest code.
    fn code(&self, typed: Typed) -> String {
        let newest = self.challenges.last();
        let code = newest.map_or_else(
            || "0".repeat(usize::from(self.policy.code_length)),
            |nonce| self.codes[&conversion::challenge_id(*nonce)].clone(),
        );
        match typed {
            Typed::Right => code,
            Typed::Wrong if code.starts_with('9') => format!("0{}", &code[1..]),
            Typed::Wrong => format!("9{}", &code[1..]),
            // The shortest code that can be parsed has four digits.
            Typed::TooShort if code.len() == 4 => format!("{code}0"),
            Typed::TooShort => code[1..].to_owned(),
        }
    }

    pub(super) fn typed(&self, typed: Typed) -> SubmittedCode {
        SubmittedCode::parse(&self.code(typed)).unwrap()
    }

    /// Runs a step and checks all invariants.
    pub(super) fn run(&mut self, step: Step) -> TestCaseResult {
        let (command, origin) = match step {
            Step::Clock(milliseconds) => return self.move_clock(milliseconds),
            Step::WaitUntil { which, offset } => {
                return match self.boundaries().as_slice() {
                    [] => Ok(()),
                    ahead => self.move_clock((which.get(ahead) + offset).max(0)),
                };
            }
            Step::WaitAsAdvised { early } => {
                return self.move_clock((self.retry_after - i64::from(early)).max(0));
            }
            Step::Again { .. } if self.repeatable.is_empty() => return Ok(()),
            Step::Again { which, changed } => {
                let mut call = which.get(&self.repeatable).clone();
                if changed {
                    change(&mut call.command);
                }
                return self.call(&call, None);
            }
            Step::Send { content, origin } => {
                let network = network(origin);
                let command = model::Command::Send {
                    content,
                    channel: 2 * content,
                    network,
                };
                (command, origin)
            }
            Step::Verify {
                typed,
                named,
                receipt,
                origin,
            } => {
                let command = model::Command::Verify {
                    code: self.code(typed),
                    challenge: self.challenge(named),
                    network: network(origin),
                    receipt,
                };
                (command, origin)
            }
            Step::Cancel {
                named,
                reset,
                origin,
            } => {
                let command = model::Command::Cancel {
                    challenge: self.challenge(named),
                    reset_failures: reset,
                    by_challenge: false,
                };
                (command, origin)
            }
            Step::Status(named) => {
                let command = model::Command::Status {
                    challenge: self.challenge(named),
                    by_challenge: false,
                };
                (command, super::steps::PLAIN)
            }
        };
        let call = Call {
            record: Self::record_id(),
            request_id: origin.id.map(|id| id.to_string()),
            command,
        };
        self.call(&call, origin.network)
    }

    /// Returns the durations until the times at which a reply changes.
    fn boundaries(&self) -> Vec<i64> {
        let record = self.model.record(&Self::record_id()).into_iter();
        let boundaries = record.flat_map(|record| record.boundaries(&self.settings.policies[0]));
        boundaries
            .map(|at| at - self.now.milliseconds())
            .filter(|wait| *wait > 0)
            .collect()
    }

    fn move_clock(&mut self, milliseconds: i64) -> TestCaseResult {
        self.now = Timestamp::from_milliseconds(self.now.milliseconds() + milliseconds);
        self.check_purge()
    }

    /// Makes a call, and compares its reply and its effects with the model.
    fn call(&mut self, call: &Call, network: Option<u8>) -> TestCaseResult {
        let now = TimeRange::exact(self.now.milliseconds());
        let repairs = self
            .record
            .as_ref()
            .is_some_and(|record| self.now < record.written_at);
        let command = conversion::command(call, &mut self.random);
        let limits = self.limits_of(call);
        let states: Vec<_> = limits.iter().map(|(_, state)| *state).collect();
        let state = State {
            record: self.record.clone(),
            limits: &states,
        };
        let mut context = Context {
            policy: &self.policy,
            now: self.now,
            random: &mut self.random,
        };
        let decision = decide(&command, state, &mut context);
        let observed = conversion::observed(&decision.outcome);
        let successors =
            self.model
                .successors(&self.settings, &self.codes, call, now, Some(&observed));
        prop_assert_eq!(
            successors.len(),
            1,
            "the model does not explain {:?} of {:?} at {:?}: {:#?}",
            observed,
            call,
            now,
            self.model
        );
        let after = successors.into_iter().next().unwrap();

        let is_change = after.record(&Self::record_id()) != self.model.record(&Self::record_id());
        let is_first_send = decision.message.is_some();
        let is_written = decision.record.is_some();
        prop_assert!(is_written || !is_change, "a change was not written");
        prop_assert!(
            !is_written || is_change || is_first_send,
            "an unneeded write"
        );
        if let Ok(Outcome::Sent(sent)) = &decision.outcome {
            prop_assert_eq!(sent.message.is_some(), is_first_send);
            prop_assert!(repairs || is_written == is_first_send);
            prop_assert!(call.request_id.is_some() || is_first_send);
        } else {
            prop_assert!(!is_first_send);
        }

        if let Ok(Outcome::Verdict(verdict, effects)) = &decision.outcome
            && !repairs
        {
            self.check_effects(*verdict, *effects, is_written, &after)?;
        }
        if is_written && is_first_send {
            self.sends.push((now, network));
        }
        if is_written
            && matches!(
                &observed,
                Observed::Verdict {
                    verified_at: None,
                    ..
                }
            )
            && !repairs
        {
            self.failures.push((now, network));
        }
        if let Observed::Sent {
            challenge, code, ..
        } = &observed
            && !code.is_empty()
            && self.codes.insert(challenge.clone(), code.clone()).is_none()
        {
            let record = decision.record.as_ref().unwrap();
            self.challenges.push(record.challenge.nonce);
        }
        if let Observed::Refused {
            wait: Some(wait), ..
        } = observed
        {
            self.retry_after = wait;
        }
        if call.request_id.is_some() {
            self.repeatable.push(call.clone());
        }
        self.model = after;
        self.record = decision.record.or(self.record.take());
        self.charge_limits(limits, decision.rate_limits);
        self.check_limits()?;
        self.check_record()?;
        if is_written {
            self.check_purge()?;
        }
        Ok(())
    }

    /// The effects of a first verification: the channel of a verified code, or the lockout that a
    /// failed attempt starts.
    fn check_effects(
        &self,
        verdict: VerifyOutcome,
        effects: VerifyEffects,
        is_first: bool,
        after: &Model,
    ) -> TestCaseResult {
        let is_verified = matches!(verdict, VerifyOutcome::Verified { .. });
        prop_assert_eq!(effects.verified.is_some(), is_first && is_verified);
        let is_failed = matches!(verdict, VerifyOutcome::WrongCode { .. });
        let (policy, now) = (&self.settings.policies[0], self.now.milliseconds());
        let lockout = after
            .record(&Self::record_id())
            .and_then(|record| record.locked_until(policy, record.failures_at(policy, now)))
            .map(|until| until.earliest)
            .filter(|until| is_first && is_failed && now < *until);
        let started = effects.lockout.map(|lockout| lockout.until.milliseconds());
        prop_assert_eq!(started, lockout);
        Ok(())
    }

    /// No time of a record lies further ahead of its last write than its own length; the live
    /// code and the failed attempts are those of the model.
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
        let longest = [
            self.policy.code_ttl + PurposePolicy::EXPIRED_RETENTION,
            self.policy.resend_after,
            self.policy.failure_memory,
            self.policy.request_memory,
        ];
        let mut longest = longest.into_iter().max().unwrap();
        for limit in [RateLimitKind::SendsPerHour, RateLimitKind::SendsPerDay] {
            longest = longest.max(self.policy.rate(limit).map_or(longest, Quota::burst));
        }
        prop_assert!(record.purge_at(&self.policy) <= written_at.saturating_add(longest));
        if let ChallengeState::Live(secret) = &challenge.state {
            let code = &self.codes[&conversion::challenge_id(challenge.nonce)];
            prop_assert_eq!(secret.code.expose(), code);
        }
        let model = self.model.record(&Self::record_id()).unwrap();
        let failures = model.failures_at(&self.settings.policies[0], self.now.milliseconds());
        prop_assert_eq!(record.failures.count_at(&self.policy, self.now), failures);
        Ok(())
    }
}

/// Returns one of two networks of one site.
fn network(origin: Origin) -> Option<String> {
    origin.network.map(|number| format!("3fff:1:2:{number}"))
}

/// Changes a field that the reply depends on.
fn change(command: &mut model::Command) {
    match command {
        model::Command::Send { content, .. } => *content ^= 1,
        model::Command::Verify {
            receipt: Some(receipt),
            ..
        } => *receipt ^= 1,
        model::Command::Verify { code, .. } => {
            let digit = if code.starts_with('7') { "3" } else { "7" };
            code.replace_range(..1, digit);
        }
        model::Command::Cancel { reset_failures, .. } => *reset_failures = !*reset_failures,
        model::Command::Status { .. } => unreachable!("a status has no request id"),
    }
}
