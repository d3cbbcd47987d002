//! Rule 7: a request that is made again gets its first answer again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ChallengeNonce, PurposePolicy, Timestamp};

/// How long an answer to a request without an id of the caller's is remembered: as
/// long as a writer that lost its acknowledgement may still ask, which is the
/// longest that a request takes.
const IMPLICIT_KEY_TTL: Duration = Duration::from_mins(1);

/// The most answers that one record remembers; the oldest goes first. The limits of
/// a record leave room for a tenth of it.
const MAX_ENTRIES: usize = 256;

/// Which request this is, without what it says: MACs under the index key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFingerprint {
    /// Of the caller's `request_id` and the RPC; random where there is none.
    pub id: [u8; 16],
    /// Of all fields that the answer depends on.
    pub fields: [u8; 16],
    /// Random: tells the process that wrote an answer from one that asks again.
    pub writer: u64,
    /// Whether the caller gave a `request_id`.
    pub named: bool,
}

/// An answer that was written, without any code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordedOutcome {
    /// A code was sent.
    Sent {
        /// Its challenge.
        challenge: ChallengeNonce,
        /// When it dies.
        expires_at: Timestamp,
        /// When the next send was allowed.
        resend_at: Timestamp,
        /// Whether it was the same code again.
        resent: bool,
        /// How many digits it has.
        code_length: u32,
    },
    /// A right answer.
    Verified {
        /// The challenge that was judged.
        challenge: ChallengeNonce,
        /// When.
        at: Timestamp,
    },
    /// A wrong answer.
    WrongCode {
        /// The challenge that was judged.
        challenge: ChallengeNonce,
        /// How many more answers were judged then.
        attempts_remaining: u32,
    },
    /// A code was ended, or failures were forgotten.
    Cancelled {
        /// The challenge that was ended, if any.
        challenge: Option<ChallengeNonce>,
        /// Whether failures were forgotten.
        failures_reset: bool,
    },
}

/// The answers that a record's last writes gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyLog(Vec<IdempotencyEntry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdempotencyEntry {
    request: RequestFingerprint,
    answer: RecordedOutcome,
    until: Timestamp,
}

/// What the memory holds of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotencyLookup {
    /// Its answer.
    Answer {
        /// What was answered.
        answer: RecordedOutcome,
        /// Whether this very process wrote it, and only missed the acknowledgement.
        own: bool,
    },
    /// The same id was used for another request.
    Reused,
}

impl IdempotencyLog {
    /// What is remembered of a request.
    pub fn lookup(
        &self,
        request: &RequestFingerprint,
        now: Timestamp,
    ) -> Option<IdempotencyLookup> {
        let known = self
            .0
            .iter()
            .find(|known| known.request.id == request.id && now < known.until)?;
        Some(if known.request.fields == request.fields {
            IdempotencyLookup::Answer {
                answer: known.answer,
                own: known.request.writer == request.writer,
            }
        } else {
            IdempotencyLookup::Reused
        })
    }

    /// Remembers the answer to a request, and forgets what is past.
    #[must_use]
    pub fn record(
        mut self,
        request: &RequestFingerprint,
        answer: RecordedOutcome,
        policy: &PurposePolicy,
        now: Timestamp,
    ) -> Self {
        self.0.retain(|known| now < known.until);
        if self.0.len() >= MAX_ENTRIES {
            self.0.remove(0);
        }
        let memory = if request.named {
            policy.request_memory
        } else {
            IMPLICIT_KEY_TTL
        };
        self.0.push(IdempotencyEntry {
            request: *request,
            answer,
            until: now.saturating_add(memory),
        });
        self
    }

    /// From when on nothing is remembered.
    pub fn forgotten_at(&self) -> Option<Timestamp> {
        self.0.iter().map(|known| known.until).max()
    }

    /// The memory after its store's clock stepped back to `now`: nothing is
    /// remembered for longer than its whole time.
    #[must_use]
    pub(super) fn stepped_back_to(mut self, now: Timestamp, policy: &PurposePolicy) -> Self {
        for known in &mut self.0 {
            known.until = known.until.min(now.saturating_add(policy.request_memory));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u8, fields: u8, writer: u64, named: bool) -> RequestFingerprint {
        RequestFingerprint {
            id: [id; 16],
            fields: [fields; 16],
            writer,
            named,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(seconds * 1_000)
    }

    const ANSWER: RecordedOutcome = RecordedOutcome::Cancelled {
        challenge: None,
        failures_reset: true,
    };

    #[test]
    fn the_same_request_is_recalled_for_as_long_as_promised() {
        let policy = PurposePolicy::default();
        let memory =
            IdempotencyLog::default().record(&request(1, 1, 7, true), ANSWER, &policy, at(0));
        let own = Some(IdempotencyLookup::Answer {
            answer: ANSWER,
            own: true,
        });
        let others = Some(IdempotencyLookup::Answer {
            answer: ANSWER,
            own: false,
        });
        assert_eq!(memory.lookup(&request(1, 1, 7, true), at(0)), own);
        assert_eq!(memory.lookup(&request(1, 1, 8, true), at(599)), others);
        assert_eq!(
            memory.lookup(&request(1, 2, 8, true), at(599)),
            Some(IdempotencyLookup::Reused)
        );
        assert_eq!(memory.lookup(&request(2, 1, 7, true), at(0)), None);
        assert_eq!(memory.lookup(&request(1, 1, 7, true), at(600)), None);
        assert_eq!(memory.forgotten_at(), Some(at(600)));
    }

    #[test]
    fn a_step_back_of_the_clock_makes_no_memory_longer() {
        let policy = PurposePolicy::default();
        let memory =
            IdempotencyLog::default().record(&request(1, 1, 7, true), ANSWER, &policy, at(0));
        let later = memory.clone().stepped_back_to(at(1), &policy);
        assert_eq!(later.forgotten_at(), Some(at(600)));
        let earlier = memory.stepped_back_to(at(-900), &policy);
        assert_eq!(earlier.forgotten_at(), Some(at(-300)));
        assert!(earlier.lookup(&request(1, 1, 7, true), at(-301)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_forgets_what_is_past() {
        let policy = PurposePolicy::default();
        let mut memory = IdempotencyLog::default();
        for id in 0..=255 {
            memory = memory.record(&request(id, 0, 0, false), ANSWER, &policy, at(0));
        }
        memory = memory.record(&request(0, 9, 9, true), ANSWER, &policy, at(59));
        assert_eq!(memory.0.len(), MAX_ENTRIES);
        memory = memory.record(&request(1, 9, 9, true), ANSWER, &policy, at(60));
        assert_eq!(memory.0.len(), 2);
    }
}
