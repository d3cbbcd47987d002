//! One attempt to hand a message to a provider, and what is told of it.

use tokio::time::Instant;

use super::{LeasedMessage, dispatcher::Dispatcher};
use crate::{
    delivery::{
        AttemptProgress, BreakerPermit, BreakerTransition, DeliveryError, OutgoingMessage,
        ProviderHandle, ProviderReceipt, text::RenderContext,
    },
    log_targets::STATE_CHANGE,
    traces::{self, SpanSide, TraceSpan},
};
use otpd_rules::{
    ChallengeId, Channel, DeliveryErrorKind, LoggedAttempt, OutboxMessage, Timestamp,
};

impl Dispatcher {
    /// Makes one attempt, and tells its span and the metrics how it went.
    pub(super) async fn attempt(
        &self,
        in_hand: &LeasedMessage,
        gateway: &ProviderHandle,
    ) -> (LoggedAttempt, Result<ProviderReceipt, DeliveryError>) {
        let channel = gateway.channel(in_hand.message.channel);
        let (started_at, start) = (in_hand.clock.now(), Instant::now());
        let mut span = TraceSpan::child_span("deliver", SpanSide::Client);
        let handing_over = self.hand_over(in_hand, gateway, channel, started_at);
        let result = traces::with_context(span.context(), handing_over).await;
        let error = result.as_ref().err().map(|error| error.class);
        if span.is_recorded() {
            note_attempt(&mut span, &in_hand.message, gateway, channel, error);
        }
        let metrics = &self.tools.metrics;
        metrics.attempted(&gateway.name, channel, start.elapsed(), error);
        let attempt = LoggedAttempt {
            provider: gateway.name.clone(),
            channel,
            started_at,
            ended_at: in_hand.clock.now(),
            error,
        };
        (attempt, result)
    }

    /// Renders the text, and hands it over.
    async fn hand_over(
        &self,
        in_hand: &LeasedMessage,
        gateway: &ProviderHandle,
        channel: Channel,
        now: Timestamp,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let message = &in_hand.message;
        let content = message.content().ok_or_else(|| {
            DeliveryError::new(DeliveryErrorKind::Permanent, "the message is final")
        })?;
        let facts = RenderContext {
            code: &content.code,
            life_left: now.duration_until(message.expires_at),
            variables: &content.variables,
        };
        let texts = &self.tools.delivery.texts;
        let text = texts
            .render(&in_hand.purpose, &content.locale, channel, &facts)
            .map_err(|error| DeliveryError::new(DeliveryErrorKind::Permanent, error))?;
        let envelope = OutgoingMessage {
            id: message.id,
            challenge_id: ChallengeId {
                key: in_hand.key,
                nonce: message.challenge,
            },
            recipient: &content.recipient,
            channel,
            code: &content.code,
            text: &text,
            life_left: facts.life_left,
            locale: &content.locale,
            client_ip: content.client_ip,
            progress: AttemptProgress::default(),
        };
        gateway.deliver(&envelope).await
    }
}

/// Tells the breaker how an attempt went, and the log what follows.
pub(super) fn report(
    gateway: &ProviderHandle,
    admission: BreakerPermit<'_>,
    result: &Result<ProviderReceipt, DeliveryError>,
) {
    let change = match result.as_ref().map_err(|error| error.class) {
        // A provider that refuses a message does its work.
        Ok(_) | Err(DeliveryErrorKind::Permanent | DeliveryErrorKind::BadDestination) => {
            admission.succeeded()
        }
        Err(
            DeliveryErrorKind::Transient
            | DeliveryErrorKind::Timeout
            | DeliveryErrorKind::UnknownOutcome,
        ) => admission.failed(false),
        Err(DeliveryErrorKind::NoBalance) => admission.failed(true),
    };
    let provider = &gateway.name;
    match change {
        None => {}
        Some(BreakerTransition::Opened) => {
            let pause = gateway.options.breaker.pause;
            tracing::error!(
                target: STATE_CHANGE,
                provider,
                ?pause,
                "[OTP] Circuit breaker opened"
            );
        }
        Some(BreakerTransition::Closed) => tracing::info!(provider, "[OTP] Circuit breaker closed"),
    }
}

/// Notes in the span of an attempt what it was and what came of it.
fn note_attempt(
    span: &mut TraceSpan,
    message: &OutboxMessage,
    gateway: &ProviderHandle,
    channel: Channel,
    error: Option<DeliveryErrorKind>,
) {
    span.set_attribute("otpd.provider", gateway.name.clone());
    span.set_attribute("otpd.channel", channel.name());
    span.set_attribute("otpd.message_id", message.id.to_string());
    span.set_attribute("otpd.attempt", i64::from(message.history.count) + 1);
    if let Some(class) = error {
        span.set_attribute("error.type", class.name());
        span.fail(class.name());
    }
}

/// Tells the log of an attempt that failed.
pub(super) fn note_failure(
    message: &OutboxMessage,
    gateway: &ProviderHandle,
    error: &DeliveryError,
) {
    let recipient = message.content().map(|content| &content.recipient);
    tracing::warn!(
        message_id = %message.id,
        recipient = recipient.map(tracing::field::display),
        provider = gateway.name,
        class = %error.class,
        cause = error.cause,
        attempt = message.history.count + 1,
        "[OTP] Delivery attempt failed"
    );
}
