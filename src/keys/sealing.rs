//! Sealing: what is kept secret is encrypted, and bound to its place.

use std::{collections::BTreeMap, convert::Infallible, net::IpAddr};

use chacha20poly1305::{
    XNonce,
    aead::{Aead as _, Payload},
};
use rand::Rng;
use zeroize::Zeroizing;

use super::KeyRing;
use crate::{
    domain::{ChallengeNonce, Code, Content, Message, MessageId, Recipient, RecordKey, Secret},
    store::Sealed,
};

const NONCE_BYTES: usize = 24;

/// What a message's content is as bytes. The order of the fields is what a store holds.
type StoredContent<'a> = (
    &'a str,
    &'a str,
    &'a str,
    BTreeMap<String, String>,
    Option<IpAddr>,
);

impl KeyRing {
    /// Seals a secret into its place: it opens for this record and challenge alone.
    pub fn seal(
        &self,
        key: &RecordKey,
        challenge: &ChallengeNonce,
        secret: &Secret,
        random: &mut impl Rng,
    ) -> Sealed {
        // In one piece: what a text that grows leaves behind would not be overwritten.
        let plain = [secret.code.expose(), " ", secret.recipient.as_str()].concat();
        let plain = Zeroizing::new(plain);
        let place = [key.0.as_slice(), &challenge.0].concat();
        self.seal_bytes(plain.as_bytes(), &place, random)
    }

    /// Opens what [`seal`](Self::seal) made for this record and challenge; `None`
    /// where its key is gone, or it was made for another place or tampered with.
    pub fn open(
        &self,
        key: &RecordKey,
        challenge: &ChallengeNonce,
        sealed: &Sealed,
    ) -> Option<Secret> {
        let place = [key.0.as_slice(), &challenge.0].concat();
        let plain = self.open_bytes(sealed, &place)?;
        let (code, recipient) = std::str::from_utf8(&plain).ok()?.split_once(' ')?;
        Some(Secret {
            code: Code::from_digits(code)?,
            recipient: Recipient::from_canonical(recipient.to_owned()),
        })
    }

    /// Seals what a message is made of: it opens for this message of this challenge
    /// alone.
    fn seal_content(
        &self,
        key: &RecordKey,
        challenge: &ChallengeNonce,
        id: &MessageId,
        content: &Content,
        random: &mut impl Rng,
    ) -> Sealed {
        let place = [key.0.as_slice(), &challenge.0, &id.0].concat();
        self.seal_bytes(&written(content), &place, random)
    }

    /// A message of the record of `key` as it is to be stored.
    pub fn seal_message(
        &self,
        key: &RecordKey,
        message: Message,
        random: &mut impl Rng,
    ) -> Message<Sealed> {
        let (challenge, id) = (message.challenge, message.id);
        let Ok(sealed) = message.try_map(|content| {
            Ok::<_, Infallible>(self.seal_content(key, &challenge, &id, &content, random))
        });
        sealed
    }

    /// Opens what [`seal_message`](Self::seal_message) made of this message; `None`
    /// where its key is gone, or it was made for another place or tampered with.
    pub fn open_content(
        &self,
        key: &RecordKey,
        challenge: &ChallengeNonce,
        id: &MessageId,
        sealed: &Sealed,
    ) -> Option<Content> {
        let place = [key.0.as_slice(), &challenge.0, &id.0].concat();
        let plain = self.open_bytes(sealed, &place)?;
        let (recipient, code, locale, variables, client_ip): StoredContent<'_> =
            postcard::from_bytes(&plain).ok()?;
        Some(Content {
            recipient: Recipient::from_canonical(recipient.to_owned()),
            code: Code::from_digits(code)?,
            locale: locale.to_owned(),
            variables,
            client_ip,
        })
    }

    fn seal_bytes(&self, plain: &[u8], place: &[u8], random: &mut impl Rng) -> Sealed {
        let primary = self
            .sealing
            .first()
            .expect("parse leaves at least one sealing key");
        let mut nonce = [0; NONCE_BYTES];
        random.fill_bytes(&mut nonce);
        let payload = Payload {
            msg: plain,
            aad: place,
        };
        let ciphertext = primary
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("XChaCha20-Poly1305 fails only beyond 256 GiB");
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        sealed.push(primary.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Sealed(sealed)
    }

    fn open_bytes(&self, sealed: &Sealed, place: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&id, rest) = sealed.0.split_first()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let sealing = self.sealing.iter().find(|sealing| sealing.id == id)?;
        let payload = Payload {
            msg: ciphertext,
            aad: place,
        };
        let plain = sealing
            .cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .ok()?;
        Some(Zeroizing::new(plain))
    }
}

/// A content as bytes, a [`StoredContent`].
fn written(content: &Content) -> Zeroizing<Vec<u8>> {
    let Content {
        recipient,
        code,
        locale,
        variables,
        client_ip,
    } = content;
    let stored = (
        recipient.as_str(),
        code.expose(),
        locale,
        variables,
        client_ip,
    );
    // What a buffer that grows leaves behind would not be overwritten.
    let room = Vec::with_capacity(most_bytes(content));
    Zeroizing::new(postcard::to_extend(&stored, room).expect("a vector takes any number of bytes"))
}

/// At least as many bytes as [`written`] takes.
fn most_bytes(content: &Content) -> usize {
    /// A length of at most 64 bits, seven of them a byte.
    const LENGTH: usize = 10;
    /// Whether there is an address, of which kind, and the longer kind.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{generate_sealing_entry, system_random};

    fn ring() -> KeyRing {
        KeyRing::parse(&KeyRing::generate(&mut system_random())).unwrap()
    }

    fn secret() -> Secret {
        Secret {
            code: Code::from_digits("012345").unwrap(),
            recipient: Recipient::from_canonical("+79991234567".to_owned()),
        }
    }

    const KEY: RecordKey = RecordKey([1; 32]);
    const CHALLENGE: ChallengeNonce = ChallengeNonce([2; 16]);

    #[test]
    fn a_secret_opens_in_its_own_place_only() {
        let ring = ring();
        let sealed = ring.seal(&KEY, &CHALLENGE, &secret(), &mut system_random());
        let opened = ring.open(&KEY, &CHALLENGE, &sealed).unwrap();
        assert_eq!(opened.code.expose(), "012345");
        assert_eq!(opened.recipient.as_str(), "+79991234567");

        assert!(
            ring.open(&RecordKey([3; 32]), &CHALLENGE, &sealed)
                .is_none()
        );
        assert!(ring.open(&KEY, &ChallengeNonce([3; 16]), &sealed).is_none());
        assert!(self::ring().open(&KEY, &CHALLENGE, &sealed).is_none());
        for byte in 0..sealed.0.len() {
            let mut tampered = sealed.clone();
            tampered.0[byte] ^= 1;
            assert!(
                ring.open(&KEY, &CHALLENGE, &tampered).is_none(),
                "byte {byte}"
            );
            tampered.0.truncate(byte);
            assert!(
                ring.open(&KEY, &CHALLENGE, &tampered).is_none(),
                "length {byte}"
            );
        }
    }

    #[test]
    fn the_first_sealing_key_seals_and_all_of_them_open() {
        let old = KeyRing::generate(&mut system_random()).to_string();
        let new = generate_sealing_entry(2, &mut system_random()).to_string();
        let (index, old_seal) = old
            .trim_start_matches(|c| c != '\n')
            .trim()
            .split_once('\n')
            .unwrap();
        let read_by_all = KeyRing::parse(&format!("{index}\n{old_seal}\n{new}")).unwrap();
        let made_primary = KeyRing::parse(&format!("{index},{new},{old_seal}")).unwrap();
        let old_removed = KeyRing::parse(&format!("{index}\n{new}")).unwrap();

        let before = read_by_all.seal(&KEY, &CHALLENGE, &secret(), &mut system_random());
        let after = made_primary.seal(&KEY, &CHALLENGE, &secret(), &mut system_random());
        assert_eq!((before.0[0], after.0[0]), (1, 2));
        assert!(made_primary.open(&KEY, &CHALLENGE, &before).is_some());
        assert!(read_by_all.open(&KEY, &CHALLENGE, &after).is_some());
        assert!(old_removed.open(&KEY, &CHALLENGE, &after).is_some());
        assert!(old_removed.open(&KEY, &CHALLENGE, &before).is_none());
        assert_eq!(old_removed.fingerprint(), made_primary.fingerprint());
    }

    #[test]
    fn a_content_is_written_into_room_that_is_large_enough() {
        let variable = |index: usize| (format!("v{index}"), "\u{44f}".repeat(index));
        for count in [0, 1, 32, 400] {
            let content = Content {
                recipient: Recipient::from_canonical("ann@example.com".to_owned()),
                code: Code::from_digits("0123456789").unwrap(),
                locale: "zh-Hant-TW".to_owned(),
                variables: (0..count).map(variable).collect(),
                client_ip: Some([0xffff; 8].into()),
            };
            let room = most_bytes(&content);
            assert_eq!(written(&content).capacity(), room, "{count}");
        }
    }

    #[test]
    fn a_content_opens_for_its_own_message_only() {
        let ring = ring();
        let id = MessageId([3; 16]);
        let content = Content {
            recipient: Recipient::from_canonical("ann@example.com".to_owned()),
            code: Code::from_digits("0123").unwrap(),
            locale: "ru".to_owned(),
            variables: BTreeMap::from([("name".to_owned(), "Анна".to_owned())]),
            client_ip: Some([203, 0, 113, 7].into()),
        };
        let sealed = ring.seal_content(&KEY, &CHALLENGE, &id, &content, &mut system_random());
        let opened = ring.open_content(&KEY, &CHALLENGE, &id, &sealed).unwrap();
        assert_eq!(opened.recipient, content.recipient);
        assert_eq!(opened.code.expose(), "0123");
        assert_eq!(opened.locale, "ru");
        assert_eq!(opened.variables, content.variables);
        assert_eq!(opened.client_ip, content.client_ip);

        let other = MessageId([4; 16]);
        assert!(
            ring.open_content(&KEY, &CHALLENGE, &other, &sealed)
                .is_none()
        );
        // Nor does a record's secret open as a message's content, or the other way.
        assert!(ring.open(&KEY, &CHALLENGE, &sealed).is_none());
    }
}
