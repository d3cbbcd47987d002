//! Result of a rule.

use super::{LimitCharge, OutboxMessage, Record};

/// Outcome of a request, and the writes that go with it.
#[derive(Debug)]
pub struct Decision<Answer> {
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
