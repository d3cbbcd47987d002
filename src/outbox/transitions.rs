//! State changes of a message that a dispatcher holds: they are logged, written if the lease is
//! still held, and counted.

use super::{
    LeasedMessage, OutboxContext,
    dispatcher::{Dispatcher, LeaseLost},
};
use crate::{
    keys::os_rng,
    metrics::MessageOutcome,
    store::{MessageWrite, RowVersion},
};
use otpd_delivery::ProviderReceipt;
use otpd_rules::{CountryCode, LoggedAttempt, NextState, OutboxMessage};

impl Dispatcher {
    /// Drops a message whose code is no longer valid.
    pub(super) async fn drop_message(&self, leased: LeasedMessage) {
        tracing::warn!(message_id = %leased.message.id, "[OTP] Message dropped: code expired or used");
        self.finish(leased, NextState::Dropped).await;
    }

    pub(super) async fn on_accepted(
        &self,
        mut leased: LeasedMessage,
        attempt: LoggedAttempt,
        accepted: &ProviderReceipt,
    ) {
        let recipient = leased.message.content().map(|content| &content.recipient);
        tracing::info!(
            message_id = %leased.message.id,
            recipient = recipient.map(tracing::field::display),
            provider = attempt.provider,
            provider_id = accepted.provider_id,
            attempts = leased.message.history.count + 1,
            "[OTP] Message accepted by provider"
        );
        self.count_sent(&leased.message, &attempt);
        let message = leased.message.clone().sent(attempt);
        // If the lease was lost, another replica sends the message once more.
        if self.write(&mut leased, message).await.is_ok() {
            self.context.metrics.ended(MessageOutcome::Sent);
        }
    }

    pub(super) async fn finish(&self, mut leased: LeasedMessage, state: NextState) {
        if state == NextState::Failed {
            let recipient = leased.message.content().map(|content| &content.recipient);
            tracing::error!(
                message_id = %leased.message.id,
                recipient = recipient.map(tracing::field::display),
                attempts = leased.message.history.count,
                "[OTP] Message failed permanently"
            );
        }
        let outcome = match state {
            NextState::Failed => Some(MessageOutcome::Failed),
            NextState::Dropped => Some(MessageOutcome::Dropped),
            NextState::Leased(_) | NextState::Queued(_) => None,
        };
        self.write_state(&mut leased, state, outcome).await;
    }

    /// Fails a message of which as many copies as allowed may have arrived already.
    pub(super) async fn give_up(&self, mut leased: LeasedMessage) {
        let recipient = leased.message.content().map(|content| &content.recipient);
        tracing::error!(
            message_id = %leased.message.id,
            recipient = recipient.map(tracing::field::display),
            attempts = leased.message.history.count,
            "[OTP] Message given up: it may have arrived, and no provider confirmed it"
        );
        self.write_state(
            &mut leased,
            NextState::Failed,
            Some(MessageOutcome::Undecided),
        )
        .await;
    }

    async fn write_state(
        &self,
        leased: &mut LeasedMessage,
        state: NextState,
        outcome: Option<MessageOutcome>,
    ) {
        let now = leased.clock.now();
        let message = leased.message.clone().transition_to(state, now);
        let written = self.write(leased, message).await.is_ok();
        if let Some(outcome) = outcome.filter(|_| written) {
            self.context.metrics.ended(outcome);
        }
    }

    /// Counts a message that a provider accepted, by the requested channel.
    fn count_sent(&self, message: &OutboxMessage, attempt: &LoggedAttempt) {
        let recipient = message.content().map(|content| &content.recipient);
        let country = recipient.map_or(CountryCode::NONE, CountryCode::of);
        let delay = message.created_at.duration_until(attempt.ended_at);
        let OutboxContext {
            metrics, recent, ..
        } = &self.context;
        metrics.sent(&attempt.provider, message.channel, country, delay);
        if let Some(recent) = recent {
            recent.insert(message.challenge, &attempt.provider, message.channel);
        }
    }

    /// Writes the new state of a message.
    pub(super) async fn write(
        &self,
        leased: &mut LeasedMessage,
        message: OutboxMessage,
    ) -> Result<(), LeaseLost> {
        let LeasedMessage { key, version, .. } = *leased;
        let random = &mut os_rng();
        let change = MessageWrite {
            key,
            expected: Some(version),
            version: RowVersion::random(random),
            message: self
                .context
                .keys
                .seal_message(&key, message.clone(), random),
        };
        let version = change.version;
        if !self.context.record_state(change).await {
            tracing::debug!(message_id = %message.id, "[OTP] Message lease lost to another replica");
            return Err(LeaseLost);
        }
        leased.version = version;
        leased.message = message;
        Ok(())
    }
}
