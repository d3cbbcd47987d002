//! Rules 2, 3 and 5, and the order in which a verification is decided.

use super::{
    ChallengeNonce, ChallengeSelector, ChallengeState, CodeError, Decision, FailureCounter,
    IdempotencyLookup, LimitCharge, Lockout, PurposePolicy, RateLimitState, RateLimited, Record,
    RecordedOutcome, RequestFingerprint, SubmittedCode, Timestamp, rate_limit::consume_all,
    record::with_clock_repair,
};

/// What is asked of [`verify`].
#[derive(Debug)]
pub struct VerifyRequest<'a> {
    /// Which request it is.
    pub identity: &'a RequestFingerprint,
    /// What the person typed.
    pub code: &'a SubmittedCode,
    /// The challenge that it must belong to.
    pub challenge: ChallengeSelector,
}

/// The verdict on a typed code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// Right, and now spent.
    Verified {
        /// The challenge that was judged.
        challenge: ChallengeNonce,
        /// When.
        at: Timestamp,
    },
    /// Wrong.
    WrongCode {
        /// The challenge that was judged.
        challenge: ChallengeNonce,
        /// How many more answers are judged.
        attempts_remaining: u32,
    },
    /// The code's life is over.
    Expired {
        /// The challenge that is over.
        challenge: ChallengeNonce,
    },
    /// As many answers as allowed were wrong.
    AttemptsExhausted {
        /// The challenge that is shut.
        challenge: ChallengeNonce,
    },
    /// There is no code to check.
    NotFound,
}

impl VerifyOutcome {
    /// The challenge that the verdict is about.
    pub fn challenge(self) -> Option<ChallengeNonce> {
        match self {
            Self::Verified { challenge, .. }
            | Self::WrongCode { challenge, .. }
            | Self::Expired { challenge }
            | Self::AttemptsExhausted { challenge } => Some(challenge),
            Self::NotFound => None,
        }
    }
}

/// Why a typed code is not judged; nothing is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// It cannot be the code.
    Code(CodeError),
    /// Too many wrong answers came before it.
    Blocked(Lockout),
    /// Too many wrong answers came from its client.
    Limit(RateLimited),
    /// The request id was used for another request.
    Reused,
}

/// Judges a typed code. Only judging counts and writes; `limits` count wrong answers
/// alone.
///
/// # Errors
/// Why it is not judged.
pub fn verify(
    record: Option<Record>,
    limits: &[RateLimitState],
    request: &VerifyRequest<'_>,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<VerifyOutcome, VerifyError>> {
    with_clock_repair(record, policy, now, |record| {
        let Some(record) = record else {
            return Decision::answer(Ok(VerifyOutcome::NotFound));
        };
        match record.memory.lookup(request.identity, now) {
            Some(IdempotencyLookup::Answer { answer, .. }) => Decision::answer(replay(answer)),
            Some(IdempotencyLookup::Reused) => Decision::answer(Err(VerifyError::Reused)),
            None => match precheck(&record, limits, request, policy, now) {
                Err(PrecheckFailure::Verdict(verdict)) => Decision::answer(Ok(verdict)),
                Err(PrecheckFailure::Refusal(refusal)) => {
                    Decision::answer(Err(refusal)).with_rate_limits(LimitCharge::Clamp)
                }
                Ok(right) => record_attempt(record, right, request, policy, now),
            },
        }
    })
}

/// Gives the verdict on the same request again.
fn replay(answer: RecordedOutcome) -> Result<VerifyOutcome, VerifyError> {
    match answer {
        RecordedOutcome::Verified { challenge, at } => {
            Ok(VerifyOutcome::Verified { challenge, at })
        }
        RecordedOutcome::WrongCode {
            challenge,
            attempts_remaining,
        } => Ok(VerifyOutcome::WrongCode {
            challenge,
            attempts_remaining,
        }),
        // Another RPC's: the id of a request tells the RPC too, so only a forgery.
        RecordedOutcome::Sent { .. } | RecordedOutcome::Cancelled { .. } => {
            Err(VerifyError::Reused)
        }
    }
}

/// An answer without judging.
enum PrecheckFailure {
    Verdict(VerifyOutcome),
    Refusal(VerifyError),
}

/// Whether the typed code may be judged; if so, whether it is right. The limits have room
/// for a wrong one then. The checks stand in the order that the contract
/// promises.
fn precheck(
    record: &Record,
    limits: &[RateLimitState],
    request: &VerifyRequest<'_>,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Result<bool, PrecheckFailure> {
    if let Some(block) = record.failures.lockout_at(policy, now) {
        return Err(PrecheckFailure::Refusal(VerifyError::Blocked(block)));
    }
    let challenge = &record.challenge;
    let nonce = challenge.nonce;
    let forgotten_at = challenge
        .expires_at
        .saturating_add(PurposePolicy::EXPIRED_RETENTION);
    let code = match &challenge.state {
        ChallengeState::Spent | ChallengeState::Cancelled => {
            return Err(PrecheckFailure::Verdict(VerifyOutcome::NotFound));
        }
        _ if !request.challenge.matches(nonce) || now >= forgotten_at => {
            return Err(PrecheckFailure::Verdict(VerifyOutcome::NotFound));
        }
        _ if now >= challenge.expires_at => {
            return Err(PrecheckFailure::Verdict(VerifyOutcome::Expired {
                challenge: nonce,
            }));
        }
        ChallengeState::Live(secret) if challenge.attempts < policy.max_attempts => &secret.code,
        ChallengeState::Live(_) | ChallengeState::Exhausted => {
            return Err(PrecheckFailure::Verdict(VerifyOutcome::AttemptsExhausted {
                challenge: nonce,
            }));
        }
    };
    if request.code.length() != code.length() {
        let error = CodeError::WrongLength {
            expected: code.length(),
        };
        return Err(PrecheckFailure::Refusal(VerifyError::Code(error)));
    }
    // Before the code is looked at: else a refusal would tell that it was wrong.
    consume_all(limits, now)
        .map_err(|exceeded| PrecheckFailure::Refusal(VerifyError::Limit(exceeded)))?;
    Ok(code.matches(request.code))
}

/// Counts an answer.
fn record_attempt(
    mut record: Record,
    right: bool,
    request: &VerifyRequest<'_>,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<VerifyOutcome, VerifyError>> {
    let challenge = &mut record.challenge;
    let nonce = challenge.nonce;
    challenge.attempts += 1;
    let attempts_remaining = challenge.attempts_remaining(policy);
    let (verdict, answer, charge) = if right {
        challenge.state = ChallengeState::Spent;
        record.failures = FailureCounter::NONE;
        let verdict = VerifyOutcome::Verified {
            challenge: nonce,
            at: now,
        };
        (
            verdict,
            RecordedOutcome::Verified {
                challenge: nonce,
                at: now,
            },
            LimitCharge::Nothing,
        )
    } else {
        if attempts_remaining == 0 {
            challenge.state = ChallengeState::Exhausted;
        }
        record.failures = record.failures.record_failure(policy, now);
        let verdict = VerifyOutcome::WrongCode {
            challenge: nonce,
            attempts_remaining,
        };
        (
            verdict,
            RecordedOutcome::WrongCode {
                challenge: nonce,
                attempts_remaining,
            },
            LimitCharge::Consume,
        )
    };
    record.memory = record.memory.record(request.identity, answer, policy, now);
    record.written_at = now;
    Decision::write(Ok(verdict), record).with_rate_limits(charge)
}
