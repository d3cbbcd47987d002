//! Check of the two invariants that every deployment must keep, on the outcomes seen.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use otpd_contract::v1::VerifyOutcome;

/// Maximum number of violations that are described.
const MAX_DESCRIBED: usize = 10;

/// Outcomes seen of each challenge. Those of lost responses are missing, so a violation
/// that is found is certain, but some may not be found.
#[derive(Debug)]
pub struct InvariantChecker {
    max_attempts: u32,
    seen: Mutex<ObservedCode>,
}

#[derive(Debug, Default)]
struct ObservedCode {
    challenges: HashMap<String, Verdicts>,
    violations: RuleViolations,
}

#[derive(Debug, Default)]
struct Verdicts {
    verified: u32,
    wrong: u32,
}

/// Violations of the invariants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleViolations {
    /// Number of violations.
    pub count: u64,
    /// Descriptions of the first ones.
    pub first: Vec<String>,
}

impl InvariantChecker {
    /// Creates a checker for servers that check that many attempts per code.
    pub fn new(max_attempts: u32) -> Self {
        Self {
            max_attempts,
            seen: Mutex::default(),
        }
    }

    /// Records an outcome of a verification.
    pub fn record(&self, challenge_id: &str, outcome: VerifyOutcome) {
        let seen = &mut *self.seen();
        if !seen.challenges.contains_key(challenge_id) {
            let verdicts = Verdicts::default();
            seen.challenges.insert(challenge_id.to_owned(), verdicts);
        }
        let Some(verdicts) = seen.challenges.get_mut(challenge_id) else {
            return;
        };
        let problem = match outcome {
            VerifyOutcome::Verified => {
                verdicts.verified += 1;
                let times = verdicts.verified;
                (times > 1).then(|| format!("VERIFIED {times} times"))
            }
            VerifyOutcome::WrongCode => {
                verdicts.wrong += 1;
                let times = verdicts.wrong;
                (times > self.max_attempts).then(|| format!("WRONG_CODE {times} times"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            seen.violations
                .add(format!("challenge {challenge_id}: {problem}"));
        }
    }

    /// Records that a wrong code was accepted.
    pub fn wrong_code_verified(&self, challenge_id: &str) {
        self.seen()
            .violations
            .add(format!("challenge {challenge_id}: a wrong code VERIFIED"));
    }

    /// Returns the violations found.
    pub fn violations(&self) -> RuleViolations {
        self.seen().violations.clone()
    }

    fn seen(&self) -> MutexGuard<'_, ObservedCode> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RuleViolations {
    fn add(&mut self, violation: String) {
        self.count += 1;
        if self.first.len() < MAX_DESCRIBED {
            self.first.push(violation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_success_and_excess_attempt_are_detected() {
        let rules = InvariantChecker::new(5);
        for challenge in ["a", "b"] {
            for _ in 0..5 {
                rules.record(challenge, VerifyOutcome::WrongCode);
            }
            rules.record(challenge, VerifyOutcome::AttemptsExhausted);
            rules.record(challenge, VerifyOutcome::NotFound);
        }
        rules.record("a", VerifyOutcome::Verified);
        assert_eq!(rules.violations(), RuleViolations::default());

        rules.record("a", VerifyOutcome::Verified);
        rules.record("b", VerifyOutcome::WrongCode);
        rules.wrong_code_verified("c");
        let violations = rules.violations();
        assert_eq!(violations.count, 3);
        assert_eq!(
            violations.first,
            [
                "challenge a: VERIFIED 2 times",
                "challenge b: WRONG_CODE 6 times",
                "challenge c: a wrong code VERIFIED",
            ]
        );
    }

    #[test]
    fn violations_are_counted_and_only_the_first_reported() {
        let rules = InvariantChecker::new(5);
        for _ in 0..=20 {
            rules.record("a", VerifyOutcome::Verified);
        }
        let violations = rules.violations();
        assert_eq!(
            (violations.count, violations.first.len()),
            (20, MAX_DESCRIBED)
        );
    }
}
