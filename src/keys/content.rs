//! Sealing of message contents, bound to record, challenge, message and channel.

use std::{collections::BTreeMap, convert::Infallible, net::IpAddr};

use rand::Rng;
use zeroize::Zeroizing;

use super::{KeyRing, OpenError};
use crate::store::SealedBytes;
use otpd_rules::{
    CallerName, ChallengeNonce, Channel, MessageId, MessagePayload, OtpCode, OutboxMessage,
    Purpose, Recipient, RecordKey,
};

/// Plain form of a message's content. Stored contents depend on the order of the fields. The name of
/// the message's channel follows it. Content of a version without that name ends here, and such a
/// version ignores the bytes that follow.
type StoredContent<'a> = (
    &'a str,
    &'a str,
    &'a str,
    BTreeMap<String, String>,
    Option<IpAddr>,
);

impl KeyRing {
    /// Seals the content of a message. It opens only for this message, challenge and channel.
    fn seal_content(
        &self,
        key: &RecordKey,
        place: MessagePlace,
        content: &MessagePayload,
        random: &mut impl Rng,
    ) -> SealedBytes {
        let plain = encode(content, place.channel);
        self.seal_bytes(&plain, &place.bytes(key), random)
    }

    /// Returns the sealed message of the record of `key`, for the store.
    pub fn seal_message(
        &self,
        key: &RecordKey,
        message: OutboxMessage,
        random: &mut impl Rng,
    ) -> OutboxMessage<SealedBytes> {
        let place = MessagePlace::of(&message);
        let Ok(sealed) = message.try_map(|content| {
            Ok::<_, Infallible>(self.seal_content(key, place, &content, random))
        });
        sealed
    }

    /// Opens a loaded message of a record with this caller and purpose. Both and the
    /// message's channel are checked against what was sealed.
    ///
    /// # Errors
    /// [`OpenError`] if the message must neither be sent nor shown.
    pub fn open_message(
        &self,
        key: &RecordKey,
        caller: &CallerName,
        purpose: &Purpose,
        message: OutboxMessage<SealedBytes>,
    ) -> Result<OutboxMessage, OpenError> {
        let place = MessagePlace::of(&message);
        message.try_map(|sealed| {
            let (content, channel) = self
                .open_content(key, place, &sealed)
                .ok_or(OpenError::Unreadable)?;
            self.check_owner(key, caller, &content.recipient, purpose)?;
            match channel {
                Some(channel) if channel != place.channel => Err(OpenError::Altered),
                _ => Ok(content),
            }
        })
    }

    /// Opens the content of a message, and its channel if that was sealed with it.
    fn open_content(
        &self,
        key: &RecordKey,
        place: MessagePlace,
        sealed: &SealedBytes,
    ) -> Option<(MessagePayload, Option<Channel>)> {
        let plain = self.open_bytes(sealed, &place.bytes(key))?;
        let ((recipient, code, locale, variables, client_ip), rest): (StoredContent<'_>, _) =
            postcard::take_from_bytes(&plain).ok()?;
        let channel = match rest {
            [] => None,
            rest => Some(Channel::from_name(postcard::from_bytes(rest).ok()?)?),
        };
        let content = MessagePayload {
            recipient: Recipient::from_canonical(recipient),
            code: OtpCode::from_digits(code)?,
            locale: locale.to_owned(),
            variables,
            client_ip,
        };
        Some((content, channel))
    }
}

/// Identity of a message within its record.
#[derive(Clone, Copy)]
struct MessagePlace {
    challenge: ChallengeNonce,
    id: MessageId,
    channel: Channel,
}

impl MessagePlace {
    fn of<S>(message: &OutboxMessage<S>) -> Self {
        Self {
            challenge: message.challenge,
            id: message.id,
            channel: message.channel,
        }
    }

    /// Associated data of the message's seal. The channel is sealed with the content
    /// instead, so that replicas of the previous version open it as well.
    fn bytes(&self, key: &RecordKey) -> Vec<u8> {
        [key.0.as_slice(), &self.challenge.0, &self.id.0].concat()
    }
}

/// Returns the content as bytes: a [`StoredContent`] and the name of its channel.
fn encode(content: &MessagePayload, channel: Channel) -> Zeroizing<Vec<u8>> {
    let MessagePayload {
        recipient,
        code,
        locale,
        variables,
        client_ip,
    } = content;
    let stored = (
        (
            recipient.as_str(),
            code.expose(),
            locale,
            variables,
            client_ip,
        ),
        channel.name(),
    );
    // A buffer that grows would leave copies that are not overwritten.
    let buffer = Vec::with_capacity(max_encoded_len(content, channel));
    let encoded = postcard::to_extend(&stored, buffer);
    Zeroizing::new(encoded.expect("serialization into a vector cannot fail"))
}

/// Returns an upper bound of the length of [`encode`]'s result.
fn max_encoded_len(content: &MessagePayload, channel: Channel) -> usize {
    /// Bytes of a length of at most 64 bits, seven bits in each byte.
    const LENGTH: usize = 10;
    /// Bytes of an optional address: its presence, its kind, and the longer kind.
    const ADDRESS: usize = 1 + LENGTH + 16;
    let text = |text: &str| LENGTH + text.len();
    let variables = content.variables.iter();
    let variables: usize = variables
        .map(|(name, value)| text(name) + text(value))
        .sum();
    text(content.recipient.as_str())
        + text(content.code.expose())
        + text(&content.locale)
        + LENGTH
        + variables
        + ADDRESS
        + text(channel.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::os_rng;
    use otpd_rules::{AttemptLog, MessageState, Timestamp};

    const KEY: RecordKey = RecordKey([1; 32]);
    const CHALLENGE: ChallengeNonce = ChallengeNonce([2; 16]);

    fn ring() -> KeyRing {
        KeyRing::parse(&KeyRing::generate(&mut os_rng())).unwrap()
    }

    #[test]
    fn payload_buffer_never_reallocates() {
        let variable = |index: usize| (format!("v{index}"), "\u{44f}".repeat(index));
        for count in [0, 1, 32, 400] {
            let content = MessagePayload {
                recipient: Recipient::from_canonical("ann@example.com".to_owned()),
                code: OtpCode::from_digits("0123456789").unwrap(),
                locale: "zh-Hant-TW".to_owned(),
                variables: (0..count).map(variable).collect(),
                client_ip: Some([0xffff; 8].into()),
            };
            let capacity = max_encoded_len(&content, Channel::Telegram);
            let encoded = encode(&content, Channel::Telegram);
            assert_eq!(encoded.capacity(), capacity, "{count}");
        }
    }

    const PLACE: MessagePlace = MessagePlace {
        challenge: CHALLENGE,
        id: MessageId([3; 16]),
        channel: Channel::Email,
    };

    fn content() -> MessagePayload {
        MessagePayload {
            recipient: Recipient::from_canonical("ann@example.com".to_owned()),
            code: OtpCode::from_digits("0123").unwrap(),
            locale: "ru".to_owned(),
            variables: BTreeMap::from([("name".to_owned(), "Анна".to_owned())]),
            client_ip: Some([203, 0, 113, 7].into()),
        }
    }

    #[test]
    fn payload_opens_only_for_its_own_message() {
        let (ring, content) = (ring(), content());
        let sealed = ring.seal_content(&KEY, PLACE, &content, &mut os_rng());
        let (opened, channel) = ring.open_content(&KEY, PLACE, &sealed).unwrap();
        assert_eq!(opened.recipient, content.recipient);
        assert_eq!(opened.code.expose(), "0123");
        assert_eq!(opened.locale, "ru");
        assert_eq!(opened.variables, content.variables);
        assert_eq!(opened.client_ip, content.client_ip);
        assert_eq!(channel, Some(Channel::Email));

        let other = MessagePlace {
            id: MessageId([4; 16]),
            ..PLACE
        };
        assert!(ring.open_content(&KEY, other, &sealed).is_none());
        // A record's secret does not open as a message's content, nor the reverse.
        assert!(ring.open(&KEY, &CHALLENGE, &sealed).is_none());
    }

    #[test]
    fn payload_is_compatible_with_the_version_without_channel() {
        let (ring, content) = (ring(), content());
        let plain = encode(&content, Channel::Email);
        let (recipient, ..): StoredContent<'_> = postcard::from_bytes(&plain).unwrap();
        assert_eq!(recipient, "ann@example.com");

        let (_, channel): (StoredContent<'_>, _) = postcard::take_from_bytes(&plain).unwrap();
        let old = &plain[..plain.len() - channel.len()];
        let sealed = ring.seal_bytes(old, &PLACE.bytes(&KEY), &mut os_rng());
        let (opened, channel) = ring.open_content(&KEY, PLACE, &sealed).unwrap();
        assert_eq!(opened.recipient, content.recipient);
        assert_eq!(opened.client_ip, content.client_ip);
        assert_eq!(channel, None);
    }

    #[test]
    fn row_moved_to_another_caller_purpose_or_channel_is_detected() {
        let (ring, content, random) = (ring(), content(), &mut os_rng());
        let [crm, evil] = ["crm", "evil"].map(CallerName::new);
        let [login, payment] = ["login", "payment"].map(|name| Purpose::parse(name).unwrap());
        let key = ring.record_key(&crm, &content.recipient, &login);
        let now = Timestamp::from_milliseconds(0);
        let sealed = ring.seal_message(
            &key,
            OutboxMessage {
                id: PLACE.id,
                challenge: CHALLENGE,
                channel: Channel::Email,
                predecessors: 0,
                state: MessageState::Queued(content),
                provider: String::new(),
                history: AttemptLog::default(),
                created_at: now,
                updated_at: now,
                expires_at: now,
                due_at: None,
            },
            random,
        );
        let open = |caller, purpose, message: &OutboxMessage<SealedBytes>| {
            let opened = ring.open_message(&key, caller, purpose, message.clone());
            opened.map(|message| message.content().is_some())
        };
        assert_eq!(open(&crm, &login, &sealed), Ok(true));
        assert_eq!(open(&evil, &login, &sealed), Err(OpenError::Altered));
        assert_eq!(open(&crm, &payment, &sealed), Err(OpenError::Altered));
        let moved = OutboxMessage {
            channel: Channel::Sms,
            ..sealed.clone()
        };
        assert_eq!(open(&crm, &login, &moved), Err(OpenError::Altered));
        let moved = OutboxMessage {
            challenge: ChallengeNonce([9; 16]),
            ..sealed
        };
        assert_eq!(open(&crm, &login, &moved), Err(OpenError::Unreadable));
    }
}
