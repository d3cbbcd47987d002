//! Record as a row, the same in every SQL store.

use crate::store::{RowVersion, SealedBytes, StoreError, VersionedRecord};
use otpd_rules::{
    CallerName, Challenge, ChallengeNonce, ChallengeState, Channel, FailureCounter, IdempotencyLog,
    Purpose, Record, SendLimits, Timestamp,
};

/// Columns of a record.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::store) struct RecordRow {
    pub record_key: Vec<u8>,
    pub version: i64,
    pub caller: String,
    pub purpose: String,
    pub challenge: Vec<u8>,
    pub state: String,
    pub sealed: Option<Vec<u8>>,
    pub channel: String,
    pub created_at: i64,
    pub expires_at: i64,
    pub attempts: i32,
    pub sends: i32,
    pub sent_at: i64,
    pub failures: i32,
    pub failed_at: i64,
    pub hour_full_at: i64,
    pub day_full_at: i64,
    pub memory: Vec<u8>,
    pub written_at: i64,
}

impl RecordRow {
    /// Returns the record that the row holds.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the column if otpd cannot have written it.
    pub fn into_record(self) -> Result<VersionedRecord, StoreError> {
        let corrupt = |column: &str| StoreError::Corrupt(format!("otp_record.{column}"));
        let nonce = self
            .challenge
            .try_into()
            .map_err(|_| corrupt("challenge"))?;
        let state = match (self.state.as_str(), self.sealed) {
            ("live", Some(sealed)) => ChallengeState::Live(SealedBytes(sealed)),
            ("spent", None) => ChallengeState::Spent,
            ("exhausted", None) => ChallengeState::Exhausted,
            ("cancelled", None) => ChallengeState::Cancelled,
            _ => return Err(corrupt("state")),
        };
        let record = Record {
            caller: CallerName::new(self.caller),
            purpose: Purpose::parse(&self.purpose).map_err(|_| corrupt("purpose"))?,
            challenge: Challenge {
                nonce: ChallengeNonce(nonce),
                state,
                channel: Channel::from_name(&self.channel).ok_or_else(|| corrupt("channel"))?,
                created_at: Timestamp::from_milliseconds(self.created_at),
                expires_at: Timestamp::from_milliseconds(self.expires_at),
                attempts: u32::try_from(self.attempts).map_err(|_| corrupt("attempts"))?,
                sends: u32::try_from(self.sends).map_err(|_| corrupt("sends"))?,
            },
            sent_at: Timestamp::from_milliseconds(self.sent_at),
            failures: FailureCounter {
                count: u32::try_from(self.failures).map_err(|_| corrupt("failures"))?,
                last_at: Timestamp::from_milliseconds(self.failed_at),
            },
            send_limits: SendLimits {
                hour_full_at: Timestamp::from_milliseconds(self.hour_full_at),
                day_full_at: Timestamp::from_milliseconds(self.day_full_at),
            },
            memory: postcard::from_bytes(&self.memory).map_err(|_| corrupt("memory"))?,
            written_at: Timestamp::from_milliseconds(self.written_at),
        };
        Ok(VersionedRecord {
            version: RowVersion(self.version),
            record,
        })
    }
}

/// Returns the name of a state and its sealed secret.
pub(in crate::store) fn record_state_columns(
    state: &ChallengeState<SealedBytes>,
) -> (&'static str, Option<&[u8]>) {
    match state {
        ChallengeState::Live(sealed) => ("live", Some(&sealed.0)),
        ChallengeState::Spent => ("spent", None),
        ChallengeState::Exhausted => ("exhausted", None),
        ChallengeState::Cancelled => ("cancelled", None),
    }
}

/// Returns a count as a column holds it. No count comes near the bound.
pub(in crate::store) fn count_column(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Size of most idempotency logs; a longer one grows the vector.
const MEMORY_BYTES: usize = 256;

/// Returns the idempotency log as a column holds it.
pub(in crate::store) fn memory_column(memory: &IdempotencyLog) -> Vec<u8> {
    let buffer = Vec::with_capacity(MEMORY_BYTES);
    postcard::to_extend(memory, buffer).expect("serialization into a vector cannot fail")
}
