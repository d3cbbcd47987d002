//! Message of these tests.

use std::time::Duration;

use otpd_delivery::{AttemptProgress, MessageBody, OutgoingMessage};
use otpd_rules::{ChallengeId, ChallengeNonce, Channel, MessageId, OtpCode, Recipient, RecordKey};

/// Id of every message, as gateways receive it.
pub const MESSAGE_ID: &str = "07070707070707070707070707070707";

/// Message with all its parts.
pub struct TestMessage {
    recipient: Recipient,
    pub code: OtpCode,
    pub text: MessageBody,
    pub life_left: Duration,
}

impl TestMessage {
    pub fn to(recipient: &str) -> Self {
        Self {
            recipient: Recipient::from_canonical(recipient.to_owned()),
            code: OtpCode::from_digits("481516").expect("six digits"),
            text: MessageBody {
                plain: "Код 481516 & \"more\"".to_owned(),
                subject: None,
                html: None,
            },
            life_left: Duration::from_millis(180_900),
        }
    }

    pub fn outgoing(&self) -> OutgoingMessage<'_> {
        OutgoingMessage {
            id: MessageId([7; 16]),
            challenge_id: ChallengeId {
                key: RecordKey([9; 32]),
                nonce: ChallengeNonce([9; 16]),
            },
            recipient: &self.recipient,
            channel: if self.recipient.is_email() {
                Channel::Email
            } else {
                Channel::Sms
            },
            code: &self.code,
            text: &self.text,
            life_left: self.life_left,
            locale: "ru",
            client_ip: "192.0.2.77".parse().ok(),
            traceparent: None,
            progress: AttemptProgress::default(),
        }
    }
}
