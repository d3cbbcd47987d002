//! Message as a provider receives it, and the provider's response.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use otpd_rules::{ChallengeId, Channel, DeliveryErrorKind, MessageId, OtpCode, Recipient};

/// Message that is ready to be handed over.
#[derive(Debug)]
pub struct OutgoingMessage<'a> {
    /// Identifier of the message, and its idempotency key with providers that take one.
    pub id: MessageId,
    /// Challenge of the code.
    pub challenge_id: ChallengeId,
    /// Recipient of the message.
    pub recipient: &'a Recipient,
    /// Channel of the message.
    pub channel: Channel,
    /// The code, for providers that write the text themselves.
    pub code: &'a OtpCode,
    /// Text of the message.
    pub text: &'a MessageBody,
    /// Time until the code expires.
    pub life_left: Duration,
    /// Requested language, as a BCP 47 tag; empty if none was requested.
    pub locale: &'a str,
    /// IP address of the end user, for providers that detect fraud.
    pub client_ip: Option<IpAddr>,
    /// Position in a trace, as a header `traceparent` (W3C Trace Context) for the provider.
    pub traceparent: Option<String>,
    /// Progress of the attempt.
    pub progress: AttemptProgress,
}

/// Progress of an attempt, read by the caller if it gives the attempt up.
#[derive(Debug, Default)]
pub struct AttemptProgress(AtomicBool);

impl AttemptProgress {
    /// Marks the message as given to the provider.
    pub fn hand_over(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns true if the provider may have the message.
    pub fn is_handed_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Text of a message; it contains the code.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBody {
    /// The whole message, as plain text.
    pub plain: String,
    /// Subject, if the channel has one (e-mail).
    pub subject: Option<String>,
    /// Text as HTML, if the channel has it (e-mail).
    pub html: Option<String>,
}

impl std::fmt::Debug for MessageBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MessageBody(…)")
    }
}

/// Acceptance of a message by a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderReceipt {
    /// Identifier that the provider gave the message, if any.
    pub provider_id: Option<String>,
}

/// Failure of a delivery attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {cause}")]
pub struct DeliveryError {
    /// Kind of the failure, by the remedy.
    pub class: DeliveryErrorKind,
    /// Cause, for the log. It never contains a code, a recipient, a text or a secret.
    pub cause: String,
}

impl DeliveryError {
    /// Creates an error of `class` with `cause`, which is for the log.
    pub fn new(class: DeliveryErrorKind, cause: impl ToString) -> Self {
        Self {
            class,
            cause: cause.to_string(),
        }
    }
}
