//! A message as a row, the same in every SQL store.

use super::{Sealed, StoreError, Version, VersionedMessage};
use crate::domain::{
    ChallengeNonce, Channel, History, Message, MessageId, MessageState, RecordKey, Timestamp,
};

/// The columns of a message.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct MessageRow {
    pub record_key: Vec<u8>,
    pub message_id: Vec<u8>,
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
    /// The message that the row holds.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], naming the column that otpd cannot have written.
    pub fn into_message(self) -> Result<VersionedMessage, StoreError> {
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
        let state = match (self.state.as_str(), self.sealed) {
            ("queued", Some(sealed)) => MessageState::Queued(Sealed(sealed)),
            ("sending", Some(sealed)) => MessageState::Sending(Sealed(sealed)),
            ("sent", None) => MessageState::Sent,
            ("failed", None) => MessageState::Failed,
            ("dropped", None) => MessageState::Dropped,
            _ => return Err(corrupt("state")),
        };
        Ok(VersionedMessage {
            key: RecordKey(key),
            version: Version(self.version),
            message: Message {
                id: MessageId(id),
                challenge: ChallengeNonce(challenge),
                channel: Channel::from_name(&self.channel).ok_or_else(|| corrupt("channel"))?,
                predecessors: u32::try_from(self.predecessors)
                    .map_err(|_| corrupt("predecessors"))?,
                state,
                provider: self.provider,
                history: postcard::from_bytes(&self.history).map_err(|_| corrupt("history"))?,
                created_at: Timestamp::from_milliseconds(self.created_at),
                updated_at: Timestamp::from_milliseconds(self.updated_at),
                expires_at: Timestamp::from_milliseconds(self.expires_at),
                due_at: self.due_at.map(Timestamp::from_milliseconds),
            },
        })
    }
}

/// The name of a state, and what it keeps sealed.
pub(super) fn message_state_columns(state: &MessageState<Sealed>) -> (&'static str, Option<&[u8]>) {
    match state {
        MessageState::Queued(sealed) => ("queued", Some(&sealed.0)),
        MessageState::Sending(sealed) => ("sending", Some(&sealed.0)),
        MessageState::Sent => ("sent", None),
        MessageState::Failed => ("failed", None),
        MessageState::Dropped => ("dropped", None),
    }
}

/// The attempts as a column holds them.
pub(super) fn history_column(history: &History) -> Vec<u8> {
    postcard::to_allocvec(history).expect("a vector takes any number of bytes")
}
