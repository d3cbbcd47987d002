//! Result of a rule.

use std::time::Duration;

use super::{
    CancelOutcome, ChallengeNonce, CodeError, CodeStatus, LimitCharge, Lockout, OutboxMessage,
    RateLimited, Record, SendOutcome, Timestamp, Undeliverable, VerifyEffects, VerifyOutcome,
};

/// Outcome of a command that was not refused.
#[derive(Debug)]
pub enum Outcome {
    /// Of a send.
    Sent(SendOutcome),
    /// Of a verification.
    Verdict(VerifyOutcome, VerifyEffects),
    /// Of a cancellation.
    Cancelled(CancelOutcome),
    /// Of a status.
    Status(CodeStatus),
}

/// Reason why the rules refuse a command. A refused command changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cool-down since the last send is not over.
    ResendTooSoon {
        /// Rest of the cool-down.
        wait: Duration,
        /// The live code's challenge and expiry, if there is one.
        live: Option<(ChallengeNonce, Timestamp)>,
    },
    /// Too many failed attempts came before it. A send is refused only if the lockout lasts
    /// longer than a new code would live.
    Blocked(Lockout),
    /// A rate limit of sends has no room.
    SendLimit(RateLimited),
    /// A rate limit of failed attempts has no room.
    VerifyLimit(RateLimited),
    /// The submitted code cannot be the code.
    Code(CodeError),
    /// No message can go to the recipient.
    Undeliverable(Undeliverable),
    /// The request id was used for another request.
    IdempotencyKeyReused,
}

/// Outcome of a request, and the writes that go with it.
#[derive(Debug)]
pub struct Decision<Answer = Result<Outcome, Refusal>> {
    /// Outcome, to be returned once everything has been written.
    pub answer: Answer,
    /// New record; `None` leaves the stored one unchanged.
    pub write: Option<Record>,
    /// Message to be written with the record.
    pub message: Option<OutboxMessage>,
    /// Update of the shared limits that the rule was given.
    pub charge: LimitCharge,
}

impl<Answer> Decision<Answer> {
    /// Returns a decision without a write.
    pub(super) fn answer(answer: Answer) -> Self {
        Self {
            answer,
            write: None,
            message: None,
            charge: LimitCharge::Nothing,
        }
    }

    /// Returns a decision whose answer is returned once `record` is written.
    pub(super) fn write(answer: Answer, record: Record) -> Self {
        Self {
            answer,
            write: Some(record),
            message: None,
            charge: LimitCharge::Nothing,
        }
    }

    /// Converts the answer.
    pub fn map<Other>(self, map: impl FnOnce(Answer) -> Other) -> Decision<Other> {
        Decision {
            answer: map(self.answer),
            write: self.write,
            message: self.message,
            charge: self.charge,
        }
    }

    /// Adds a message, to be written with the record.
    pub(super) fn with_message(self, message: Option<OutboxMessage>) -> Self {
        Self { message, ..self }
    }

    /// Adds an update of the shared limits.
    pub(super) fn with_rate_limits(self, charge: LimitCharge) -> Self {
        Self { charge, ..self }
    }
}
