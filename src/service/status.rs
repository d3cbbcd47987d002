//! GetOtpStatus: the state of a code, and of its messages.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    DeliverySummary, OtpSelector, OtpService, SELF_DELIVERY_PROVIDER, ServiceError, StatusReply,
    permit_subject,
};
use crate::{
    keys::OpenError,
    store::{SealedBytes, VersionedMessage},
};
use otpd_base::log_targets::AUDIT;
use otpd_delivery::RouteQuery;
use otpd_rules::{
    Caller, ChallengeId, CodeStatus, Command, DeliveryState, LastSend, MessageState, OutboxMessage,
    Outcome, RecordKey,
};

impl OtpService {
    /// Returns the state of a code.
    ///
    /// # Errors
    /// A purpose that the caller may not use, and the failures of the store.
    pub async fn status(
        &self,
        caller: &Arc<Caller>,
        subject: &OtpSelector,
        deadline: Instant,
    ) -> Result<StatusReply, ServiceError> {
        permit_subject(caller, subject)?;
        let recipient = subject.recipient.clone();
        let Some((key, challenge)) = self.locate(caller, subject) else {
            return Ok(StatusReply {
                status: CodeStatus::default(),
                challenge_id: None,
                recipient,
                deliveries: Vec::new(),
            });
        };
        let command = Command::Status(challenge);
        let request = subject.command_request(command, caller, key, deadline);
        let (Outcome::Status(status), messages) = self.decide(request).await? else {
            return Err(ServiceError::foreign_outcome());
        };
        let deliveries = match status.last_send.clone() {
            None => Vec::new(),
            Some(last) if caller.self_delivery => vec![DeliverySummary::by_caller(last)],
            Some(last) => self.deliveries(caller, key, &last, messages),
        };
        let live = status.live.as_ref();
        Ok(StatusReply {
            challenge_id: live.map(|code| ChallengeId {
                key,
                nonce: code.challenge,
            }),
            recipient: recipient.or_else(|| live.map(|code| code.recipient.clone())),
            status,
            deliveries,
        })
    }

    /// Returns the delivery attempts of a challenge, and its messages without one.
    fn deliveries(
        &self,
        caller: &Caller,
        key: RecordKey,
        last: &LastSend,
        messages: Vec<VersionedMessage>,
    ) -> Vec<DeliverySummary> {
        messages
            .into_iter()
            .map(|versioned| versioned.message)
            .filter(|message| message.challenge == last.challenge)
            .filter_map(|message| self.shown(caller, key, last, message))
            .flat_map(DeliverySummary::from_message)
            .collect()
    }

    /// Returns a message as a status shows it; `None` if it was altered in the database.
    fn shown(
        &self,
        caller: &Caller,
        key: RecordKey,
        last: &LastSend,
        message: OutboxMessage<SealedBytes>,
    ) -> Option<OutboxMessage<SealedBytes>> {
        let keys = &self.engine.keys;
        let opened = keys.open_message(&key, &caller.name, &last.purpose, message.clone());
        let opened = match opened {
            Ok(opened) => opened,
            Err(OpenError::Unreadable) => return Some(message),
            Err(OpenError::Altered) => {
                tracing::error!(
                    target: AUDIT,
                    message_id = %message.id,
                    caller = %caller.name,
                    purpose = %last.purpose,
                    channel = %message.channel,
                    "[OTP AUDIT] Message not shown: it was altered in the database"
                );
                return None;
            }
        };
        Some(OutboxMessage {
            provider: self.provider(caller, last, opened),
            ..message
        })
    }

    /// Returns the provider of a message: the first one of its route, if the replica that
    /// wrote the message has not had to record another one yet.
    fn provider(&self, caller: &Caller, last: &LastSend, message: OutboxMessage) -> String {
        let MessageState::Sending(content) = &message.state else {
            return message.provider;
        };
        if !message.provider.is_empty() {
            return message.provider;
        }
        let query = RouteQuery {
            channel: message.channel,
            purpose: &last.purpose,
            caller: &caller.name,
            recipient: &content.recipient,
            locale: &content.locale,
        };
        let route = self.outbox.delivery().route(&query);
        let first = route.map(|route| route.first(message.predecessors).to_owned());
        first.unwrap_or_default()
    }
}

impl DeliverySummary {
    /// Returns the delivery of a code that the caller delivers by itself.
    fn by_caller(last: LastSend) -> Self {
        Self {
            provider: SELF_DELIVERY_PROVIDER.to_owned(),
            channel: last.channel,
            state: DeliveryState::Sent,
            created_at: last.at,
            updated_at: last.at,
            attempts: 1,
            error: None,
        }
    }

    /// Returns one delivery for each attempt of a message, and one for the message if it waits,
    /// or ended without an attempt.
    fn from_message(message: OutboxMessage<SealedBytes>) -> Vec<Self> {
        let state = match message.state {
            MessageState::Queued(_) => Some(DeliveryState::Queued(())),
            MessageState::Sending(_) => Some(DeliveryState::Sending(())),
            MessageState::Dropped => Some(DeliveryState::Dropped),
            MessageState::Failed if message.history.count == 0 => Some(DeliveryState::Failed),
            MessageState::Failed | MessageState::Sent => None,
        };
        let logged = u32::try_from(message.history.newest.len()).unwrap_or(u32::MAX);
        let dropped = message.history.count.saturating_sub(logged);
        let attempts = (dropped + 1..).zip(message.history.newest);
        let mut all: Vec<Self> = attempts
            .map(|(number, attempt)| Self {
                provider: attempt.provider,
                channel: attempt.channel,
                state: match attempt.error {
                    None => DeliveryState::Sent,
                    Some(_) => DeliveryState::Failed,
                },
                created_at: attempt.started_at,
                updated_at: attempt.ended_at,
                attempts: number,
                error: attempt.error,
            })
            .collect();
        all.extend(state.map(|state| Self {
            provider: message.provider,
            channel: message.channel,
            state,
            created_at: message.created_at,
            updated_at: message.updated_at,
            attempts: message.history.count,
            error: None,
        }));
        all
    }
}
