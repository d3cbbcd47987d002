//! What a rule decides.

use super::Record;

/// What to answer, and what to write.
#[derive(Debug)]
pub struct Decision<Answer> {
    /// The answer, to be given once the write has been done.
    pub answer: Answer,
    /// The new record; `None` leaves the stored one as it is.
    pub write: Option<Record>,
}

impl<Answer> Decision<Answer> {
    /// Answers without a write.
    pub(super) fn answer(answer: Answer) -> Self {
        Self {
            answer,
            write: None,
        }
    }

    /// Answers once `record` is written.
    pub(super) fn write(answer: Answer, record: Record) -> Self {
        Self {
            answer,
            write: Some(record),
        }
    }
}
