//! Message as a row, the same in every SQL store.

use serde::{Deserialize, Serialize};

use crate::store::{FoundMessage, Place, RowVersion, SealedBytes, StoreError, VersionedMessage};
use otpd_rules::{
    AttemptLog, CallerName, ChallengeNonce, Channel, DeliveryErrorKind, LoggedAttempt,
    MAX_LOGGED_ATTEMPTS, MessageId, MessageState, OutboxMessage, PossibleCopies, RecordKey,
    Timestamp,
};

/// Columns of a message.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::store) struct MessageRow {
    pub record_key: Vec<u8>,
    pub message_id: Vec<u8>,
    pub caller: String,
    pub version: i64,
    pub challenge: Vec<u8>,
    pub channel: String,
    pub predecessors: i32,
    pub state: String,
    pub sealed: Option<Vec<u8>>,
    pub provider: String,
    pub history: Vec<u8>,
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: i64,
    pub due_at: Option<i64>,
}

impl MessageRow {
    /// Returns the message that the row holds, or the reason why it cannot be read.
    pub fn into_found(self) -> FoundMessage {
        FoundMessage {
            key: RecordKey(key_bytes(&self.record_key)),
            lane: CallerName::new(self.caller.clone()),
            place: Place {
                created_at: Timestamp::from_milliseconds(self.created_at),
                id: MessageId(key_bytes(&self.message_id)),
            },
            message: self.into_message(),
        }
    }

    /// Returns the message that the row holds.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the column if otpd cannot have written it.
    fn into_message(self) -> Result<VersionedMessage, StoreError> {
        let corrupt = |column: &str| StoreError::Corrupt(format!("otp_message.{column}"));
        let key = self
            .record_key
            .try_into()
            .map_err(|_| corrupt("record_key"))?;
        let id = self
            .message_id
            .try_into()
            .map_err(|_| corrupt("message_id"))?;
        let challenge = self
            .challenge
            .try_into()
            .map_err(|_| corrupt("challenge"))?;
        let state = MessageState::from_name(&self.state, self.sealed.map(SealedBytes));
        Ok(VersionedMessage {
            key: RecordKey(key),
            version: RowVersion(self.version),
            message: OutboxMessage {
                id: MessageId(id),
                challenge: ChallengeNonce(challenge),
                channel: Channel::from_name(&self.channel).ok_or_else(|| corrupt("channel"))?,
                predecessors: u32::try_from(self.predecessors)
                    .map_err(|_| corrupt("predecessors"))?,
                state: state.ok_or_else(|| corrupt("state"))?,
                provider: self.provider,
                history: read_history(&self.history).ok_or_else(|| corrupt("history"))?,
                created_at: Timestamp::from_milliseconds(self.created_at),
                updated_at: Timestamp::from_milliseconds(self.updated_at),
                expires_at: Timestamp::from_milliseconds(self.expires_at),
                due_at: self.due_at.map(Timestamp::from_milliseconds),
            },
        })
    }
}

/// Returns a key of a row. The schema admits no other length.
pub(in crate::store) fn key_bytes<const BYTES: usize>(key: &[u8]) -> [u8; BYTES] {
    key.try_into().unwrap_or([0; BYTES])
}

/// Returns the columns of a state: its name and its sealed content.
pub(in crate::store) fn message_state_columns(
    state: &MessageState<SealedBytes>,
) -> (&'static str, Option<&[u8]>) {
    let content = state.content().map(|sealed| sealed.0.as_slice());
    (state.name(), content)
}

/// Attempts as every version of otpd stores them. A version without [`StoredOutcomes`] reads and
/// stores these alone.
#[derive(Serialize, Deserialize)]
struct StoredAttempts {
    count: u32,
    newest: Vec<LoggedAttempt>,
}

/// Part of an attempt log that follows the attempts.
#[derive(Serialize, Deserialize)]
struct StoredOutcomes {
    possible_copies: Vec<PossibleCopies>,
    attempt_open: bool,
    /// Bits of the attempts with the error [`DeliveryErrorKind::UnknownOutcome`]: bit n is that of
    /// `newest[n]`. Their error is stored as a timeout, because earlier versions cannot read a kind
    /// that they do not know.
    unknown_outcomes: u32,
}

const _: () = assert!(
    MAX_LOGGED_ATTEMPTS <= u32::BITS as usize,
    "each logged attempt needs a bit"
);

/// Returns an attempt log as a column holds it.
pub(in crate::store) fn history_column(history: &AttemptLog) -> Vec<u8> {
    let mut newest = history.newest.clone();
    let mut unknown_outcomes = 0;
    for (index, attempt) in newest.iter_mut().enumerate() {
        if attempt.error == Some(DeliveryErrorKind::UnknownOutcome) {
            attempt.error = Some(DeliveryErrorKind::Timeout);
            unknown_outcomes |= 1 << index;
        }
    }
    let attempts = StoredAttempts {
        count: history.count,
        newest,
    };
    let outcomes = StoredOutcomes {
        possible_copies: history.possible_copies.clone(),
        attempt_open: history.attempt_open,
        unknown_outcomes,
    };
    let buffer = Vec::with_capacity(ATTEMPTS_BYTES);
    let encoded = postcard::to_extend(&(attempts, outcomes), buffer);
    encoded.expect("serialization into a vector cannot fail")
}

/// Size of most attempt logs; a longer one grows the vector.
const ATTEMPTS_BYTES: usize = 128;

/// Reads an attempt log that [`history_column`] wrote, in this version or an earlier one.
fn read_history(column: &[u8]) -> Option<AttemptLog> {
    let (StoredAttempts { count, mut newest }, rest) = postcard::take_from_bytes(column).ok()?;
    if rest.is_empty() {
        return Some(from_earlier_version(count, newest));
    }
    let outcomes: StoredOutcomes = postcard::from_bytes(rest).ok()?;
    for (index, attempt) in newest.iter_mut().enumerate() {
        if outcomes
            .unknown_outcomes
            .checked_shr(u32::try_from(index).ok()?)?
            & 1
            == 1
        {
            attempt.error = Some(DeliveryErrorKind::UnknownOutcome);
        }
    }
    Some(AttemptLog {
        count,
        newest,
        possible_copies: outcomes.possible_copies,
        attempt_open: outcomes.attempt_open,
    })
}

/// Returns the attempt log of a column without [`StoredOutcomes`]. Each timeout may have delivered
/// a copy, and the replica that holds the lease may have an attempt open.
fn from_earlier_version(count: u32, newest: Vec<LoggedAttempt>) -> AttemptLog {
    let mut history = AttemptLog::default();
    for attempt in newest {
        history.add(attempt, false);
    }
    AttemptLog {
        count,
        attempt_open: true,
        ..history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(provider: &str, error: Option<DeliveryErrorKind>) -> LoggedAttempt {
        LoggedAttempt {
            provider: provider.to_owned(),
            channel: Channel::Sms,
            started_at: Timestamp::from_milliseconds(1_000),
            ended_at: Timestamp::from_milliseconds(2_000),
            error,
        }
    }

    fn history() -> AttemptLog {
        let mut history = AttemptLog::default();
        for (provider, error) in [
            ("a", Some(DeliveryErrorKind::UnknownOutcome)),
            ("b", Some(DeliveryErrorKind::Timeout)),
            ("b", Some(DeliveryErrorKind::UnknownOutcome)),
            ("c", Some(DeliveryErrorKind::NoBalance)),
        ] {
            history.add(attempt(provider, error), false);
        }
        history
    }

    #[test]
    fn attempt_log_round_trips() {
        let open = AttemptLog {
            attempt_open: true,
            ..history()
        };
        let mut full = AttemptLog::default();
        for _ in 0..40 {
            full.add(attempt("a", Some(DeliveryErrorKind::UnknownOutcome)), false);
        }
        for history in [AttemptLog::default(), history(), open, full] {
            assert_eq!(read_history(&history_column(&history)), Some(history));
        }
        assert_eq!(read_history(&[1]), None);
        assert_eq!(read_history(&[0, 0, 1]), None);
    }

    #[test]
    fn attempt_log_is_readable_by_the_previous_version() {
        let column = history_column(&history());
        // An earlier version reads the attempts and ignores the bytes that follow.
        let read: StoredAttempts = postcard::from_bytes(&column).unwrap();
        let kinds: Vec<u8> = read
            .newest
            .iter()
            .map(|attempt| postcard::to_allocvec(&attempt.error).unwrap()[1])
            .collect();
        assert!(kinds.iter().all(|kind| *kind < 5), "{kinds:?}");
        assert_eq!((read.count, read.newest.len()), (4, 4));
    }

    #[test]
    fn attempt_log_of_the_previous_version_counts_timeouts() {
        let column = [
            5, 2, // five attempts, of which two are logged
            1, b'a', 0, 208, 15, 160, 31, 1, 1, // a timeout of "a"
            1, b'b', 0, 208, 15, 160, 31, 1, 0, // a transient error of "b"
        ];
        let read = read_history(&column).unwrap();
        let expected = AttemptLog {
            count: 5,
            newest: vec![
                attempt("a", Some(DeliveryErrorKind::Timeout)),
                attempt("b", Some(DeliveryErrorKind::Transient)),
            ],
            possible_copies: vec![PossibleCopies {
                provider: "a".to_owned(),
                count: 1,
            }],
            attempt_open: true,
        };
        assert_eq!(read, expected);
    }
}
