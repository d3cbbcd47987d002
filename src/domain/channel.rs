//! The ways by which a code travels.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Recipient;

/// The way by which a code travels to its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// A text message to a phone number.
    Sms,
    /// A message to an e-mail address.
    Email,
    /// A call that reads the code aloud.
    Voice,
    /// A WhatsApp message to a phone number.
    WhatsApp,
    /// A Telegram message to a phone number.
    Telegram,
}

impl Channel {
    /// The channel for a recipient for whom none was asked: e-mail for an e-mail
    /// address, else SMS.
    pub fn default_for(recipient: &Recipient) -> Self {
        if recipient.is_email() {
            Self::Email
        } else {
            Self::Sms
        }
    }

    /// Whether messages on this channel can go to `recipient`.
    pub fn reaches(self, recipient: &Recipient) -> bool {
        recipient.is_email() == (self == Self::Email)
    }

    /// The name of the channel in configuration and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Email => "email",
            Self::Voice => "voice",
            Self::WhatsApp => "whatsapp",
            Self::Telegram => "telegram",
        }
    }

    /// The channel of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Sms,
            Self::Email,
            Self::Voice,
            Self::WhatsApp,
            Self::Telegram,
        ]
        .into_iter()
        .find(|channel| channel.name() == name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
