//! Message for targets that hand one over.

use std::{sync::LazyLock, time::Duration};

use otpd_delivery::{AttemptProgress, MessageBody, OutgoingMessage};
use otpd_rules::{ChallengeId, ChallengeNonce, Channel, MessageId, OtpCode, Recipient, RecordKey};

/// Code of the message.
pub const CODE: &str = "481516";
/// Digits of the recipient's number.
pub const DIGITS: &str = "79255070602";

/// Parts of a message.
pub struct Message {
    recipient: Recipient,
    code: OtpCode,
    text: MessageBody,
}

/// Message as a provider would be given it.
pub static MESSAGE: LazyLock<Message> = LazyLock::new(|| Message {
    recipient: Recipient::from_canonical(format!("+{DIGITS}")),
    code: OtpCode::from_digits(CODE).expect("these are digits"),
    text: MessageBody {
        plain: format!("Код {CODE} & \"more\" ~1/0"),
        subject: None,
        html: None,
    },
});

impl Message {
    /// Returns the message, ready to be handed over.
    pub fn outgoing(&self) -> OutgoingMessage<'_> {
        OutgoingMessage {
            id: MessageId([7; 16]),
            challenge_id: ChallengeId {
                key: RecordKey([8; 32]),
                nonce: ChallengeNonce([9; 16]),
            },
            recipient: &self.recipient,
            channel: Channel::Sms,
            code: &self.code,
            text: &self.text,
            life_left: Duration::from_secs(299),
            locale: "ru",
            client_ip: Some([192, 0, 2, 77].into()),
            traceparent: None,
            progress: AttemptProgress::default(),
        }
    }

    /// Returns its text.
    pub fn text(&self) -> &str {
        &self.text.plain
    }
}
