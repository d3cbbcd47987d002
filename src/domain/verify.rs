//! Rules 2 and 3, and the order in which a verification is decided.

use super::{
    ChallengeFilter, ChallengeNonce, ChallengeState, CodeError, Decision, Policy, Record,
    Timestamp, TypedCode, record::decide,
};

/// What is asked of [`verify`].
#[derive(Debug)]
pub struct VerifyRequest<'a> {
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

/// Judges a typed code. Only judging counts and writes.
///
/// # Errors
/// [`CodeError::WrongLength`] for another number of digits than the live code's.
pub fn verify(
    record: Option<Record>,
    request: &VerifyRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Decision<Result<Verdict, CodeError>> {
    decide(record, now, |record| match record {
        Some(record) if request.challenge.admits(record.challenge.nonce) => {
            judge(record, request.code, policy, now)
        }
        _ => Decision::answer(Ok(Verdict::NotFound)),
    })
}

fn judge(
    mut record: Record,
    typed: &TypedCode,
    policy: &Policy,
    now: Timestamp,
) -> Decision<Result<Verdict, CodeError>> {
    let challenge = &mut record.challenge;
    let nonce = challenge.nonce;
    let over = now >= challenge.expires_at;
    let code = match &challenge.state {
        ChallengeState::Spent | ChallengeState::Cancelled => {
            return Decision::answer(Ok(Verdict::NotFound));
        }
        _ if now >= challenge.expires_at.plus(Policy::EXPIRED_TOLD_FOR) => {
            return Decision::answer(Ok(Verdict::NotFound));
        }
        _ if over => return Decision::answer(Ok(Verdict::Expired { challenge: nonce })),
        ChallengeState::Live(secret) if challenge.attempts < policy.max_attempts => &secret.code,
        ChallengeState::Live(_) | ChallengeState::Exhausted => {
            return Decision::answer(Ok(Verdict::AttemptsExhausted { challenge: nonce }));
        }
    };
    if typed.length() != code.length() {
        return Decision::answer(Err(CodeError::WrongLength {
            expected: code.length(),
        }));
    }
    let right = code.matches(typed);
    challenge.attempts += 1;
    let attempts_remaining = challenge.attempts_remaining(policy);
    let verdict = if right {
        challenge.state = ChallengeState::Spent;
        Verdict::Verified {
            challenge: nonce,
            at: now,
        }
    } else {
        if attempts_remaining == 0 {
            challenge.state = ChallengeState::Exhausted;
        }
        Verdict::WrongCode {
            challenge: nonce,
            attempts_remaining,
        }
    };
    record.written_at = now;
    Decision::write(Ok(verdict), record)
}
