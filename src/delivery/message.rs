//! A message as providers take it, and what they say to it.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use otpd_rules::{ChallengeId, Channel, DeliveryErrorKind, MessageId, OtpCode, Recipient};

/// One message, ready to be handed over.
#[derive(Debug)]
pub struct OutgoingMessage<'a> {
    /// Tells it from every other; the idempotency key of providers that take one.
    pub id: MessageId,
    /// Whose code it carries.
    pub challenge_id: ChallengeId,
    /// Whom it goes to.
    pub recipient: &'a Recipient,
    /// The way by which it travels.
    pub channel: Channel,
    /// The code, for providers that make the text themselves.
    pub code: &'a OtpCode,
    /// What it says.
    pub text: &'a MessageBody,
    /// How long the code still lives.
    pub life_left: Duration,
    /// The language that was asked for, as a BCP 47 tag; empty where none was.
    pub locale: &'a str,
    /// Where the end user is, for providers that look for fraud.
    pub client_ip: Option<IpAddr>,
    /// How far the attempt has come.
    pub progress: AttemptProgress,
}

/// How far an attempt has come, for the caller that gives it up.
#[derive(Debug, Default)]
pub struct AttemptProgress(AtomicBool);

impl AttemptProgress {
    /// Notes that the provider is given the message from here on.
    pub fn hand_over(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the provider may have the message.
    pub fn is_handed_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a message says; it holds the code.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBody {
    /// The whole message, as plain text.
    pub plain: String,
    /// Its subject, where the channel has one (e-mail).
    pub subject: Option<String>,
    /// The same as HTML, where the channel has that (e-mail).
    pub html: Option<String>,
}

impl std::fmt::Debug for MessageBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Text(…)")
    }
}

/// A provider has taken a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderReceipt {
    /// The provider's own name for it, where it gives one.
    pub provider_id: Option<String>,
}

/// A provider has not taken a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {cause}")]
pub struct DeliveryError {
    /// What can be done about it.
    pub class: DeliveryErrorKind,
    /// What happened, for the log: never a code, a recipient, a text or a secret.
    pub cause: String,
}

impl DeliveryError {
    /// An error of `class`, because of `cause`, which is for the log.
    pub fn new(class: DeliveryErrorKind, cause: impl ToString) -> Self {
        Self {
            class,
            cause: cause.to_string(),
        }
    }
}
