//! Rules 2, 3 and 5, and the order in which a verification is decided.

use super::{
    Answer, Block, ChallengeFilter, ChallengeNonce, ChallengeState, CodeError, Decision, Exceeded,
    Failures, LimitCharge, Policy, Recalled, Record, RequestIdentity, SharedLimit, Timestamp,
    TypedCode, limit::take_all, record::decide,
};

/// What is asked of [`verify`].
#[derive(Debug)]
pub struct VerifyRequest<'a> {
    /// Which request it is.
    pub identity: &'a RequestIdentity,
    /// What the person typed.
    pub code: &'a TypedCode,
    /// The challenge that it must belong to.
    pub challenge: ChallengeFilter,
}

/// The verdict on a typed code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
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

impl Verdict {
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
pub enum VerifyRefusal {
    /// It cannot be the code.
    Code(CodeError),
    /// Too many wrong answers came before it.
    Blocked(Block),
    /// Too many wrong answers came from its client.
    Limit(Exceeded),
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
    limits: &[SharedLimit],
    request: &VerifyRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Decision<Result<Verdict, VerifyRefusal>> {
    decide(record, policy, now, |record| {
        let Some(record) = record else {
            return Decision::answer(Ok(Verdict::NotFound));
        };
        match record.memory.recall(request.identity, now) {
            Some(Recalled::Answer { answer, .. }) => Decision::answer(repeat(answer)),
            Some(Recalled::Reused) => Decision::answer(Err(VerifyRefusal::Reused)),
            None => match admit(&record, limits, request, policy, now) {
                Err(Refused::Verdict(verdict)) => Decision::answer(Ok(verdict)),
                Err(Refused::Refusal(refusal)) => {
                    Decision::answer(Err(refusal)).charging(LimitCharge::Clamp)
                }
                Ok(right) => judge(record, right, request, policy, now),
            },
        }
    })
}

/// Gives the verdict on the same request again.
fn repeat(answer: Answer) -> Result<Verdict, VerifyRefusal> {
    match answer {
        Answer::Verified { challenge, at } => Ok(Verdict::Verified { challenge, at }),
        Answer::WrongCode {
            challenge,
            attempts_remaining,
        } => Ok(Verdict::WrongCode {
            challenge,
            attempts_remaining,
        }),
        // Another RPC's: the id of a request tells the RPC too, so only a forgery.
        Answer::Sent { .. } | Answer::Cancelled { .. } => Err(VerifyRefusal::Reused),
    }
}

/// An answer without judging.
enum Refused {
    Verdict(Verdict),
    Refusal(VerifyRefusal),
}

/// Whether the typed code may be judged; if so, whether it is right. The limits have room
/// for a wrong one then. The checks stand in the order that the contract
/// promises.
fn admit(
    record: &Record,
    limits: &[SharedLimit],
    request: &VerifyRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Result<bool, Refused> {
    if let Some(block) = record.failures.block(policy, now) {
        return Err(Refused::Refusal(VerifyRefusal::Blocked(block)));
    }
    let challenge = &record.challenge;
    let nonce = challenge.nonce;
    let forgotten_at = challenge.expires_at.plus(Policy::EXPIRED_TOLD_FOR);
    let code = match &challenge.state {
        ChallengeState::Spent | ChallengeState::Cancelled => {
            return Err(Refused::Verdict(Verdict::NotFound));
        }
        _ if !request.challenge.admits(nonce) || now >= forgotten_at => {
            return Err(Refused::Verdict(Verdict::NotFound));
        }
        _ if now >= challenge.expires_at => {
            return Err(Refused::Verdict(Verdict::Expired { challenge: nonce }));
        }
        ChallengeState::Live(secret) if challenge.attempts < policy.max_attempts => &secret.code,
        ChallengeState::Live(_) | ChallengeState::Exhausted => {
            return Err(Refused::Verdict(Verdict::AttemptsExhausted {
                challenge: nonce,
            }));
        }
    };
    if request.code.length() != code.length() {
        let error = CodeError::WrongLength {
            expected: code.length(),
        };
        return Err(Refused::Refusal(VerifyRefusal::Code(error)));
    }
    // Before the code is looked at: else a refusal would tell that it was wrong.
    take_all(limits, now).map_err(|exceeded| Refused::Refusal(VerifyRefusal::Limit(exceeded)))?;
    Ok(code.matches(request.code))
}

/// Counts an answer.
fn judge(
    mut record: Record,
    right: bool,
    request: &VerifyRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Decision<Result<Verdict, VerifyRefusal>> {
    let challenge = &mut record.challenge;
    let nonce = challenge.nonce;
    challenge.attempts += 1;
    let attempts_remaining = challenge.attempts_remaining(policy);
    let (verdict, answer, charge) = if right {
        challenge.state = ChallengeState::Spent;
        record.failures = Failures::NONE;
        let verdict = Verdict::Verified {
            challenge: nonce,
            at: now,
        };
        (
            verdict,
            Answer::Verified {
                challenge: nonce,
                at: now,
            },
            LimitCharge::Nothing,
        )
    } else {
        if attempts_remaining == 0 {
            challenge.state = ChallengeState::Exhausted;
        }
        record.failures = record.failures.and_one(policy, now);
        let verdict = Verdict::WrongCode {
            challenge: nonce,
            attempts_remaining,
        };
        (
            verdict,
            Answer::WrongCode {
                challenge: nonce,
                attempts_remaining,
            },
            LimitCharge::Consume,
        )
    };
    record.memory = record.memory.and(request.identity, answer, policy, now);
    record.written_at = now;
    Decision::write(Ok(verdict), record).charging(charge)
}
