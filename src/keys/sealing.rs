//! Sealing of secrets: encryption that is bound to the place of storage.

use chacha20poly1305::{
    XNonce,
    aead::{Aead as _, Payload},
};
use rand::Rng;
use zeroize::Zeroizing;

use super::KeyRing;
use crate::store::SealedBytes;
use otpd_rules::{
    CallerName, ChallengeNonce, ChallengeSecret, ChallengeState, Channel, ChannelSet, OtpCode,
    Purpose, Recipient, Record, RecordKey,
};

const NONCE_BYTES: usize = 24;

/// First byte of the secret of a test recipient. A version that does not know it cannot open the
/// secret, and therefore cannot send the code.
const TEST_MARK: &str = "=";
/// Mark between a code and the channels that carried it, and separator of their names. A version
/// that does not know it cannot open the secret; otpd writes it only for callers with receipts.
const CHANNELS_MARK: &str = "/";
const CHANNEL_SEPARATOR: &str = ",";

/// Reason why a stored secret is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No key of the ring opens it: its key is missing, or the bytes were changed.
    #[error("no sealing key of the key ring opens it")]
    Unreadable,
    /// It opens, but it was sealed for another caller, purpose or channel than those of its row. Only
    /// a writer other than otpd can cause this.
    #[error("its row was changed by a writer other than otpd")]
    Altered,
}

impl KeyRing {
    /// Seals a secret. It opens only for this record and challenge.
    pub fn seal(
        &self,
        key: &RecordKey,
        challenge: &ChallengeNonce,
        secret: &ChallengeSecret,
        random: &mut impl Rng,
    ) -> SealedBytes {
        // Built at once, because a string that grows leaves copies that are not overwritten.
        let mark = if secret.is_test { TEST_MARK } else { "" };
        let recipient = secret.recipient.as_str();
        let channels = channels_text(secret.channels);
        let plain = [mark, secret.code.expose(), &channels, " ", recipient].concat();
        let plain = Zeroizing::new(plain);
        let place = [key.0.as_slice(), &challenge.0].concat();
        self.seal_bytes(plain.as_bytes(), &place, random)
    }

    /// Opens the secret of a loaded record. The caller and the purpose of the row are
    /// checked against the record's key, which is a MAC of both and the recipient.
    ///
    /// # Errors
    /// [`OpenError`] if the secret must not be used.
    pub fn open_record(
        &self,
        key: &RecordKey,
        record: Record<SealedBytes>,
    ) -> Result<Record, OpenError> {
        let (caller, purpose) = (record.caller.clone(), record.purpose.clone());
        let nonce = record.challenge.nonce;
        let mut result = Ok(());
        let record = record.map_secret(|sealed| {
            let opened = self
                .open(key, &nonce, &sealed)
                .ok_or(OpenError::Unreadable)
                .and_then(|secret| {
                    self.check_owner(key, &caller, &secret.recipient, &purpose)?;
                    Ok(secret)
                });
            match opened {
                Ok(secret) => ChallengeState::Live(secret),
                Err(error) => {
                    result = Err(error);
                    ChallengeState::Cancelled
                }
            }
        });
        result.map(|()| record)
    }

    /// Checks that `key` is the blind index of (caller, recipient, purpose).
    pub(super) fn check_owner(
        &self,
        key: &RecordKey,
        caller: &CallerName,
        recipient: &Recipient,
        purpose: &Purpose,
    ) -> Result<(), OpenError> {
        if self.record_key(caller, recipient, purpose) == *key {
            Ok(())
        } else {
            Err(OpenError::Altered)
        }
    }

    /// Opens a secret that [`seal`](Self::seal) made for this record and challenge. Returns `None` if
    /// its key is missing, or if it was made for another place or changed.
    pub(super) fn open(
        &self,
        key: &RecordKey,
        challenge: &ChallengeNonce,
        sealed: &SealedBytes,
    ) -> Option<ChallengeSecret> {
        let place = [key.0.as_slice(), &challenge.0].concat();
        let plain = self.open_bytes(sealed, &place)?;
        let plain = std::str::from_utf8(&plain).ok()?;
        let (is_test, plain) = match plain.strip_prefix(TEST_MARK) {
            Some(plain) => (true, plain),
            None => (false, plain),
        };
        let (code, recipient) = plain.split_once(' ')?;
        let (code, channels) = match code.split_once(CHANNELS_MARK) {
            Some((code, names)) => {
                let names = names.split(CHANNEL_SEPARATOR);
                let channels = names.map(Channel::from_name).collect::<Option<_>>()?;
                (code, channels)
            }
            None => (code, ChannelSet::EMPTY),
        };
        Some(ChallengeSecret {
            code: OtpCode::from_digits(code)?,
            recipient: Recipient::from_canonical(recipient),
            is_test,
            channels,
        })
    }

    pub(super) fn seal_bytes(
        &self,
        plain: &[u8],
        place: &[u8],
        random: &mut impl Rng,
    ) -> SealedBytes {
        let primary = self
            .sealing
            .first()
            .expect("`parse` ensures at least one sealing key");
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
        SealedBytes(sealed)
    }

    pub(super) fn open_bytes(
        &self,
        sealed: &SealedBytes,
        place: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
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

/// Returns the part of a plain secret with the channels that carried its code; empty without any.
fn channels_text(channels: ChannelSet) -> String {
    if channels.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = channels.iter().map(Channel::name).collect();
    format!("{CHANNELS_MARK}{}", names.join(CHANNEL_SEPARATOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{generate_sealing_entry, os_rng};

    fn ring() -> KeyRing {
        KeyRing::parse(&KeyRing::generate(&mut os_rng())).unwrap()
    }

    fn secret() -> ChallengeSecret {
        ChallengeSecret {
            code: OtpCode::from_digits("012345").unwrap(),
            recipient: Recipient::from_canonical("+79991234567".to_owned()),
            is_test: false,
            channels: ChannelSet::EMPTY,
        }
    }

    const KEY: RecordKey = RecordKey([1; 32]);
    const CHALLENGE: ChallengeNonce = ChallengeNonce([2; 16]);

    #[test]
    fn sealed_secret_opens_only_in_its_own_place() {
        let ring = ring();
        let sealed = ring.seal(&KEY, &CHALLENGE, &secret(), &mut os_rng());
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
    fn channels_are_sealed_with_the_code_only_if_they_are_kept() {
        let ring = ring();
        let sealed = |secret: &ChallengeSecret| {
            let sealed = ring.seal(&KEY, &CHALLENGE, secret, &mut os_rng());
            let opened = ring.open(&KEY, &CHALLENGE, &sealed).unwrap();
            assert_eq!(opened.channels, secret.channels);
            assert_eq!(opened.code.expose(), "012345");
            assert_eq!(opened.recipient.as_str(), "+79991234567");
            sealed.0.len()
        };
        let plain = sealed(&secret());
        for channel in Channel::ALL {
            let channels = ChannelSet::EMPTY.with(channel).with(Channel::Sms);
            assert!(
                sealed(&ChallengeSecret {
                    channels,
                    ..secret()
                }) > plain
            );
        }
        let is_test = ChallengeSecret {
            is_test: true,
            ..secret()
        };
        assert_eq!(sealed(&is_test), plain + 1);
    }

    #[test]
    fn first_sealing_key_seals_and_all_keys_open() {
        let old = KeyRing::generate(&mut os_rng()).to_string();
        let new = generate_sealing_entry(2, &mut os_rng()).to_string();
        let (index, old_seal) = old
            .trim_start_matches(|c| c != '\n')
            .trim()
            .split_once('\n')
            .unwrap();
        let read_by_all = KeyRing::parse(&format!("{index}\n{old_seal}\n{new}")).unwrap();
        let made_primary = KeyRing::parse(&format!("{index},{new},{old_seal}")).unwrap();
        let old_removed = KeyRing::parse(&format!("{index}\n{new}")).unwrap();

        let before = read_by_all.seal(&KEY, &CHALLENGE, &secret(), &mut os_rng());
        let after = made_primary.seal(&KEY, &CHALLENGE, &secret(), &mut os_rng());
        assert_eq!((before.0[0], after.0[0]), (1, 2));
        assert!(made_primary.open(&KEY, &CHALLENGE, &before).is_some());
        assert!(read_by_all.open(&KEY, &CHALLENGE, &after).is_some());
        assert!(old_removed.open(&KEY, &CHALLENGE, &after).is_some());
        assert!(old_removed.open(&KEY, &CHALLENGE, &before).is_none());
        assert_eq!(old_removed.fingerprint(), made_primary.fingerprint());
    }
}
