//! What a rule decides.

use super::{LimitCharge, OutboxMessage, Record};

/// What to answer, and what to write.
#[derive(Debug)]
pub struct Decision<Answer> {
    /// The answer, to be given once everything has been written.
    pub answer: Answer,
    /// The new record; `None` leaves the stored one as it is.
    pub write: Option<Record>,
    /// A message to be written with the record.
    pub message: Option<OutboxMessage>,
    /// Update of the shared limits that the rule was given.
    pub charge: LimitCharge,
}

impl<Answer> Decision<Answer> {
    /// Answers without a write.
    pub(super) fn answer(answer: Answer) -> Self {
        Self {
            answer,
            write: None,
            message: None,
            charge: LimitCharge::Nothing,
        }
    }

    /// Answers once `record` is written.
    pub(super) fn write(answer: Answer, record: Record) -> Self {
        Self {
            answer,
            write: Some(record),
            message: None,
            charge: LimitCharge::Nothing,
        }
    }

    /// The same decision with another form of its answer.
    pub fn map<Other>(self, map: impl FnOnce(Answer) -> Other) -> Decision<Other> {
        Decision {
            answer: map(self.answer),
            write: self.write,
            message: self.message,
            charge: self.charge,
        }
    }

    /// With this message, to be written with the record.
    pub(super) fn with_message(self, message: Option<OutboxMessage>) -> Self {
        Self { message, ..self }
    }

    /// With this update of shared limits.
    pub(super) fn with_rate_limits(self, charge: LimitCharge) -> Self {
        Self { charge, ..self }
    }
}
