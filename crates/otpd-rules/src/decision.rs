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

/// Outcome of a command, and the writes that go with it.
#[derive(Debug)]
pub struct Decision<T = Result<Outcome, Refusal>> {
    /// Outcome, to be returned once everything has been written.
    pub outcome: T,
    /// New record; `None` leaves the stored one unchanged.
    pub record: Option<Record>,
    /// Update of the shared limits that the rule was given.
    pub rate_limits: LimitCharge,
    /// Message to be written with the record.
    pub message: Option<OutboxMessage>,
}

impl<T> Decision<T> {
    /// Returns a decision without a write.
    pub(super) fn new(outcome: T) -> Self {
        Self {
            outcome,
            record: None,
            rate_limits: LimitCharge::Nothing,
            message: None,
        }
    }

    /// Converts the outcome.
    pub fn map<Other>(self, map: impl FnOnce(T) -> Other) -> Decision<Other> {
        Decision {
            outcome: map(self.outcome),
            record: self.record,
            rate_limits: self.rate_limits,
            message: self.message,
        }
    }

    /// Adds a record to be written.
    pub(super) fn with_record(self, record: Record) -> Self {
        Self {
            record: Some(record),
            ..self
        }
    }

    /// Adds a message, to be written with the record.
    pub(super) fn with_message(self, message: Option<OutboxMessage>) -> Self {
        Self { message, ..self }
    }

    /// Adds an update of the shared limits.
    pub(super) fn with_rate_limits(self, rate_limits: LimitCharge) -> Self {
        Self {
            rate_limits,
            ..self
        }
    }
}
