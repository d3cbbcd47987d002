//! Channels by which a code reaches its recipient.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Recipient;

/// Channel by which a code reaches its recipient.
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
    /// Every channel.
    pub const ALL: [Self; 5] = [
        Self::Sms,
        Self::Email,
        Self::Voice,
        Self::WhatsApp,
        Self::Telegram,
    ];

    /// Returns the default channel of a recipient: e-mail for an e-mail address, else
    /// SMS.
    pub fn default_for(recipient: &Recipient) -> Self {
        if recipient.is_email() {
            Self::Email
        } else {
            Self::Sms
        }
    }

    /// Returns true if messages on this channel can go to `recipient`.
    pub fn reaches(self, recipient: &Recipient) -> bool {
        recipient.is_email() == (self == Self::Email)
    }

    /// Returns the name of the channel in configuration and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Email => "email",
            Self::Voice => "voice",
            Self::WhatsApp => "whatsapp",
            Self::Telegram => "telegram",
        }
    }

    /// Returns the channel of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_channel_takes_addresses_and_other_channels_phone_numbers() {
        let number = Recipient::from_canonical("+79991234567".to_owned());
        let address = Recipient::from_canonical("anna@example.com".to_owned());
        assert_eq!(Channel::default_for(&number), Channel::Sms);
        assert_eq!(Channel::default_for(&address), Channel::Email);
        for channel in Channel::ALL {
            let is_mail = channel == Channel::Email;
            assert_eq!(channel.reaches(&address), is_mail, "{channel}");
            assert_eq!(channel.reaches(&number), !is_mail, "{channel}");
        }
    }

    #[test]
    fn channel_has_one_name() {
        let names = Channel::ALL.map(Channel::name);
        assert_eq!(names, ["sms", "email", "voice", "whatsapp", "telegram"]);
        for channel in Channel::ALL {
            assert_eq!(channel.to_string(), channel.name());
            assert_eq!(Channel::from_name(channel.name()), Some(channel));
            let stored = serde_json::to_value(channel).unwrap();
            assert_eq!(stored, channel.name());
        }
        assert_eq!(Channel::from_name("SMS"), None);
    }
}
