//! How a code reaches its recipient. A provider only hands a message over.

mod envelope;
mod http;
mod log;
mod preset;
mod problem;
pub mod provider;
mod roots;
pub mod settings;
mod smtp;
#[cfg(test)]
mod tests;

pub use envelope::{Accepted, DeliveryError, Envelope, Text};
pub use http::{HttpProvider, HttpSettings};
pub use preset::preset_names;
pub use smtp::{SmtpProvider, SmtpSettings};

use crate::domain::{ChallengeId, Code, Recipient};

/// A code on its way to its recipient.
#[derive(Debug)]
pub struct Message<'a> {
    /// Whose code it is.
    pub challenge_id: ChallengeId,
    /// Whom it goes to.
    pub recipient: &'a Recipient,
    /// What it says.
    pub code: &'a Code,
}

/// What takes messages.
#[derive(Clone, Copy, Debug)]
pub enum Provider {
    /// The development log: whoever can read it has the code.
    Log,
}

impl Provider {
    /// Hands `message` over.
    pub fn deliver(self, message: &Message<'_>) {
        match self {
            // The one place where a code and its recipient may be logged.
            Self::Log => tracing::info!(
                challenge_id = %message.challenge_id,
                recipient = %message.recipient.as_str(),
                "[OTP] Generated OTP: {}",
                message.code.expose(),
            ),
        }
    }
}
