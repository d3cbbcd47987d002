//! What a rule decides.

use super::{Record, limit::Charges};

/// What to answer, and what to write.
#[derive(Debug)]
pub struct Decision<Answer> {
    /// The answer, to be given once everything has been written.
    pub answer: Answer,
    /// The new record; `None` leaves the stored one as it is.
    pub write: Option<Record>,
    /// New states of the shared limits that the rule was given; empty leaves all as
    /// they are.
    pub charges: Charges,
}

impl<Answer> Decision<Answer> {
    /// Answers without a write.
    pub fn answer(answer: Answer) -> Self {
        Self {
            answer,
            write: None,
            charges: Charges::new(),
        }
    }

    /// Answers once `record` is written.
    pub(super) fn write(answer: Answer, record: Record) -> Self {
        Self {
            answer,
            write: Some(record),
            charges: Charges::new(),
        }
    }

    /// The same decision with another form of its answer.
    pub fn map<Other>(self, map: impl FnOnce(Answer) -> Other) -> Decision<Other> {
        Decision {
            answer: map(self.answer),
            write: self.write,
            charges: self.charges,
        }
    }

    /// With these new states of shared limits.
    pub(super) fn charging(self, charges: Charges) -> Self {
        Self { charges, ..self }
    }
}
