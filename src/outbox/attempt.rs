//! A single delivery attempt, with its span, metrics, log lines and circuit breaker.

use tokio::time::Instant;

use super::{LeasedMessage, OutboxContext};
use crate::traces::{self, SpanSide, TraceSpan};
use otpd_base::log_targets::STATE_CHANGE;
use otpd_delivery::{
    AttemptProgress, BreakerPermit, BreakerTransition, DeliveryError, OutgoingMessage,
    ProviderHandle, ProviderReceipt, text::RenderContext,
};
use otpd_rules::{
    ChallengeId, Channel, DeliveryErrorKind, LoggedAttempt, OutboxMessage, Timestamp,
};

impl OutboxContext {
    /// Makes one attempt, and records its result in a span and in the metrics.
    pub(super) async fn attempt(
        &self,
        leased: &LeasedMessage,
        gateway: &ProviderHandle,
    ) -> (LoggedAttempt, Result<ProviderReceipt, DeliveryError>) {
        let channel = gateway.channel(leased.message.channel);
        let (started_at, start) = (leased.clock.now(), Instant::now());
        let mut span = TraceSpan::child_span("deliver", SpanSide::Client);
        let delivery = self.deliver(leased, gateway, channel, started_at);
        let result = traces::with_context(span.context(), delivery).await;
        let error = result.as_ref().err().map(|error| error.class);
        if span.is_recorded() {
            annotate_span(&mut span, &leased.message, gateway, channel, error);
        }
        self.metrics
            .attempted(&gateway.name, channel, start.elapsed(), error);
        let attempt = LoggedAttempt {
            provider: gateway.name.clone(),
            channel,
            started_at,
            ended_at: leased.clock.now(),
            error,
        };
        (attempt, result)
    }

    /// Renders the text, and passes the message to the provider.
    async fn deliver(
        &self,
        leased: &LeasedMessage,
        gateway: &ProviderHandle,
        channel: Channel,
        now: Timestamp,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let message = &leased.message;
        let content = message.content().ok_or_else(|| {
            DeliveryError::new(DeliveryErrorKind::Permanent, "the message is final")
        })?;
        let render_context = RenderContext {
            code: &content.code,
            life_left: now.duration_until(message.expires_at),
            variables: &content.variables,
        };
        let texts = &self.delivery.texts;
        let text = texts
            .render(&leased.purpose, &content.locale, channel, &render_context)
            .map_err(|error| DeliveryError::new(DeliveryErrorKind::Permanent, error))?;
        let outgoing = OutgoingMessage {
            id: message.id,
            challenge_id: ChallengeId {
                key: leased.key,
                nonce: message.challenge,
            },
            recipient: &content.recipient,
            channel,
            code: &content.code,
            text: &text,
            life_left: render_context.life_left,
            locale: &content.locale,
            client_ip: content.client_ip,
            traceparent: traces::current().map(|context| context.traceparent()),
            progress: AttemptProgress::default(),
        };
        gateway.deliver(&outgoing).await
    }
}

/// Reports the result of an attempt to the circuit breaker, and logs a transition.
pub(super) fn report_to_breaker(
    gateway: &ProviderHandle,
    permit: BreakerPermit<'_>,
    result: &Result<ProviderReceipt, DeliveryError>,
) {
    let transition = match result.as_ref().map_err(|error| error.class) {
        // A provider that rejects a message is healthy.
        Ok(_) | Err(DeliveryErrorKind::Permanent | DeliveryErrorKind::BadDestination) => {
            permit.succeeded()
        }
        Err(
            DeliveryErrorKind::Transient
            | DeliveryErrorKind::Timeout
            | DeliveryErrorKind::UnknownOutcome,
        ) => permit.failed(false),
        Err(DeliveryErrorKind::NoBalance) => permit.failed(true),
    };
    let provider = &gateway.name;
    match transition {
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

/// Adds the attributes and the result of an attempt to its span.
fn annotate_span(
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

/// Logs a failed attempt.
pub(super) fn log_failure(
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
