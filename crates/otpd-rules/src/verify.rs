//! Rules 2, 3 and 5, and the order of the checks of a verification.

use super::{
    ChallengeNonce, ChallengeSelector, ChallengeState, Channel, ChannelSet, CodeError, Decision,
    FailureCounter, IdempotencyLookup, LimitCharge, Lockout, PurposePolicy, RateLimitState,
    ReceiptGrant, Record, RecordedOutcome, Refusal, RequestFingerprint, SubmittedCode, Timestamp,
    rate_limit::consume_all, record::with_clock_repair,
};

/// Input of [`verify`].
#[derive(Debug)]
pub struct VerifyRequest {
    /// Fingerprint of the request.
    pub identity: RequestFingerprint,
    /// Submitted code.
    pub code: SubmittedCode,
    /// Challenge that the code must belong to.
    pub challenge: ChallengeSelector,
    /// True if the caller asks for a receipt. The fingerprint covers the fields of the
    /// receipt.
    pub receipt: bool,
}

/// Outcome of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// The code is correct, and now spent.
    Verified {
        /// Challenge that was verified.
        challenge: ChallengeNonce,
        /// Time of the verification.
        at: Timestamp,
        /// Permission to issue the receipt that was asked for, if there is one.
        receipt: Option<ReceiptGrant>,
    },
    /// The code is wrong.
    WrongCode {
        /// Challenge that the code was checked against.
        challenge: ChallengeNonce,
        /// Number of attempts that are left.
        attempts_remaining: u32,
    },
    /// The code has expired.
    Expired {
        /// Expired challenge.
        challenge: ChallengeNonce,
    },
    /// The challenge had its last attempt.
    AttemptsExhausted {
        /// Exhausted challenge.
        challenge: ChallengeNonce,
    },
    /// There is no code to check.
    NotFound,
}

impl VerifyOutcome {
    /// Returns the challenge that the outcome is about.
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

/// Effects of a verification besides its outcome. None if it only repeats an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyEffects {
    /// Channel of the code, if it was verified.
    pub verified: Option<Channel>,
    /// Lockout that this failed attempt started, if any.
    pub lockout: Option<Lockout>,
}

impl VerifyEffects {
    /// Returns the effects of a decision.
    pub(super) fn of(
        decision: &Decision<Result<VerifyOutcome, Refusal>>,
        policy: &PurposePolicy,
        now: Timestamp,
    ) -> Self {
        match (&decision.outcome, &decision.record) {
            (Ok(VerifyOutcome::Verified { .. }), Some(record)) => Self {
                verified: Some(record.challenge.channel),
                lockout: None,
            },
            (Ok(VerifyOutcome::WrongCode { .. }), Some(record)) => Self {
                verified: None,
                lockout: record.failures.lockout_at(policy, now),
            },
            _ => Self::default(),
        }
    }
}

/// Checks a submitted code. Only a check counts and writes; `limits` count failed
/// attempts alone.
///
/// # Errors
/// [`Refusal`] if the code is not checked.
pub fn verify(
    record: Option<Record>,
    limits: &[RateLimitState],
    request: &VerifyRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<VerifyOutcome, Refusal>> {
    with_clock_repair(record, policy, now, |record| {
        let Some(record) = record else {
            return Decision::new(Ok(VerifyOutcome::NotFound));
        };
        match record.memory.lookup(&request.identity, now) {
            Some(IdempotencyLookup::Replay { outcome, .. }) => Decision::new(replay(outcome, now)),
            Some(IdempotencyLookup::KeyReused) => Decision::new(Err(Refusal::IdempotencyKeyReused)),
            None => match precheck(&record, limits, request, policy, now) {
                Err(PrecheckFailure::Verdict(verdict)) => Decision::new(Ok(verdict)),
                Err(PrecheckFailure::Refusal(refusal)) => {
                    Decision::new(Err(refusal)).with_rate_limits(LimitCharge::Clamp)
                }
                Ok(right) => record_attempt(record, right, request, policy, now),
            },
        }
    })
}

/// Returns the recorded outcome of the same request.
fn replay(outcome: RecordedOutcome, now: Timestamp) -> Result<VerifyOutcome, Refusal> {
    match outcome {
        RecordedOutcome::Verified { challenge, at } => Ok(VerifyOutcome::Verified {
            challenge,
            at,
            receipt: None,
        }),
        RecordedOutcome::VerifiedForReceipt {
            challenge,
            at,
            channels,
        } => Ok(VerifyOutcome::Verified {
            challenge,
            at,
            receipt: ReceiptGrant::new(channels, at, now),
        }),
        RecordedOutcome::WrongCode {
            challenge,
            attempts_remaining,
        } => Ok(VerifyOutcome::WrongCode {
            challenge,
            attempts_remaining,
        }),
        // The recorded id is that of another RPC. Ids depend on the RPC, so only a
        // forgery gets here.
        RecordedOutcome::Sent { .. } | RecordedOutcome::Cancelled { .. } => {
            Err(Refusal::IdempotencyKeyReused)
        }
    }
}

/// Result without a check of the code.
enum PrecheckFailure {
    Verdict(VerifyOutcome),
    Refusal(Refusal),
}

/// Returns true if the submitted code is correct, or the reason for which it may not be
/// checked. If it may, the limits have room for a failed attempt. The checks stand in the
/// order that the contract promises.
fn precheck(
    record: &Record,
    limits: &[RateLimitState],
    request: &VerifyRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Result<bool, PrecheckFailure> {
    if let Some(block) = record.failures.lockout_at(policy, now) {
        return Err(PrecheckFailure::Refusal(Refusal::Blocked(block)));
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
        return Err(PrecheckFailure::Refusal(Refusal::Code(error)));
    }
    // Limits come before the comparison: else a refusal would reveal that the code was
    // wrong.
    consume_all(limits, now)
        .map_err(|exceeded| PrecheckFailure::Refusal(Refusal::VerifyLimit(exceeded)))?;
    Ok(code.matches(&request.code))
}

/// Counts an attempt and records its outcome.
fn record_attempt(
    mut record: Record,
    right: bool,
    request: &VerifyRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<VerifyOutcome, Refusal>> {
    let challenge = &mut record.challenge;
    let nonce = challenge.nonce;
    challenge.attempts += 1;
    let attempts_remaining = challenge.attempts_remaining(policy);
    let (verdict, outcome, charge) = if right {
        let channels = match &challenge.state {
            ChallengeState::Live(secret) if request.receipt => secret.channels,
            _ => ChannelSet::EMPTY,
        };
        challenge.state = ChallengeState::Spent;
        record.failures = FailureCounter::NONE;
        let outcome = if channels.is_empty() {
            RecordedOutcome::Verified {
                challenge: nonce,
                at: now,
            }
        } else {
            RecordedOutcome::VerifiedForReceipt {
                challenge: nonce,
                at: now,
                channels,
            }
        };
        let verdict = VerifyOutcome::Verified {
            challenge: nonce,
            at: now,
            receipt: ReceiptGrant::new(channels, now, now),
        };
        (verdict, outcome, LimitCharge::Nothing)
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
    record.memory = record
        .memory
        .record(&request.identity, outcome, policy, now);
    record.written_at = now;
    Decision::new(Ok(verdict))
        .with_record(record)
        .with_rate_limits(charge)
}
