//! Rule 7: a repeated request gets its first response again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ChallengeNonce, ChannelSet, PurposePolicy, Timestamp};

/// Retention of the outcome of a request without a `request_id`. A writer that lost the
/// acknowledgement may ask again for as long, which is the longest that a request takes.
const IMPLICIT_KEY_TTL: Duration = Duration::from_mins(1);

/// Maximum number of outcomes that one record keeps; the oldest goes first. The limits of
/// a record leave room for a tenth of it.
const MAX_ENTRIES: usize = 256;

/// Identity of a request, as MACs under the index key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFingerprint {
    /// MAC of the caller's `request_id` and the RPC; random if there is none.
    pub id: [u8; 16],
    /// MAC of all fields that the response depends on.
    pub fields: [u8; 16],
    /// Random number of the process that writes the outcome. It differs if another process
    /// repeats the request.
    pub writer: u64,
    /// True if the caller gave a `request_id`.
    pub named: bool,
}

/// Outcome that was written, without any code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordedOutcome {
    /// A code was sent.
    Sent {
        /// Its challenge.
        challenge: ChallengeNonce,
        /// Time at which it expires.
        expires_at: Timestamp,
        /// Time at which the next send was allowed.
        resend_at: Timestamp,
        /// True if it was the same code again.
        resent: bool,
        /// Number of digits of the code.
        code_length: u32,
    },
    /// A correct code.
    Verified {
        /// Challenge that was verified.
        challenge: ChallengeNonce,
        /// Time of the verification.
        at: Timestamp,
    },
    /// A wrong code.
    WrongCode {
        /// Challenge that the code was checked against.
        challenge: ChallengeNonce,
        /// Number of attempts that were left then.
        attempts_remaining: u32,
    },
    /// A code was cancelled, or the failed attempts were reset.
    Cancelled {
        /// Challenge that was cancelled, if any.
        challenge: Option<ChallengeNonce>,
        /// True if the failed attempts were reset.
        failures_reset: bool,
    },
    /// A correct code, submitted with the request for a receipt.
    VerifiedForReceipt {
        /// Challenge that was verified.
        challenge: ChallengeNonce,
        /// Time of the verification.
        at: Timestamp,
        /// Channels that carried the code.
        channels: ChannelSet,
    },
}

/// Outcomes of a record's last writes, by request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyLog(Vec<IdempotencyEntry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdempotencyEntry {
    request: RequestFingerprint,
    outcome: RecordedOutcome,
    until: Timestamp,
}

/// Recorded outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotencyLookup {
    /// The request is a repetition.
    Replay {
        /// Outcome of the first one.
        outcome: RecordedOutcome,
        /// True if this process wrote it, and only missed the acknowledgement.
        own: bool,
    },
    /// The same id was used for another request.
    KeyReused,
}

impl IdempotencyLog {
    /// Looks up the outcome of a request.
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
            IdempotencyLookup::Replay {
                outcome: known.outcome,
                own: known.request.writer == request.writer,
            }
        } else {
            IdempotencyLookup::KeyReused
        })
    }

    /// Records the outcome of a request, and removes expired ones.
    #[must_use]
    pub fn record(
        mut self,
        request: &RequestFingerprint,
        outcome: RecordedOutcome,
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
            outcome,
            until: now.saturating_add(memory),
        });
        self
    }

    /// Returns the time at which the last entry expires.
    pub fn forgotten_at(&self) -> Option<Timestamp> {
        self.0.iter().map(|known| known.until).max()
    }

    /// Returns the log after its store's clock stepped back to `now`: no entry is kept
    /// for longer than its full retention.
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
    fn repeated_request_is_replayed_for_its_full_retention() {
        let policy = PurposePolicy::default();
        let memory =
            IdempotencyLog::default().record(&request(1, 1, 7, true), ANSWER, &policy, at(0));
        let own = Some(IdempotencyLookup::Replay {
            outcome: ANSWER,
            own: true,
        });
        let others = Some(IdempotencyLookup::Replay {
            outcome: ANSWER,
            own: false,
        });
        assert_eq!(memory.lookup(&request(1, 1, 7, true), at(0)), own);
        assert_eq!(memory.lookup(&request(1, 1, 8, true), at(599)), others);
        assert_eq!(
            memory.lookup(&request(1, 2, 8, true), at(599)),
            Some(IdempotencyLookup::KeyReused)
        );
        assert_eq!(memory.lookup(&request(2, 1, 7, true), at(0)), None);
        assert_eq!(memory.lookup(&request(1, 1, 7, true), at(600)), None);
        assert_eq!(memory.forgotten_at(), Some(at(600)));
    }

    #[test]
    fn clock_rollback_does_not_extend_idempotency_retention() {
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
    fn idempotency_log_is_bounded_and_drops_expired_entries() {
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
