//! Keys that protect a stolen database: blind indexes and sealed secrets.
//!
//! The *index key* turns (caller, recipient, purpose) into a [`RecordKey`] that discloses none of
//! them. *Sealing keys* encrypt the secret of a live challenge. The first one seals and all of them
//! open, so that they can be rotated. *Receipt keys* sign receipts.

mod content;
mod error;
mod receipt;
mod sealing;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use hmac::{Hmac, Mac as _};
use rand::Rng;
use sha2::{Digest as _, Sha256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

pub use crate::system_random::{SystemRandom, os_rng};
pub use error::{KeyRingError, RotationError};
pub use receipt::{JWKS_MAX_AGE, SignError, generate_receipt_entry};
pub use sealing::OpenError;

use otpd_rules::{
    CallerName, LimitKey, Purpose, RateLimitKind, Recipient, RecordKey, RequestFingerprint,
    Timestamp,
};
use receipt::{RECEIPT_PREFIX, ReceiptKeys};

const KEY_BYTES: usize = 32;
const INDEX_ENTRY: &str = "index";
const SEALING_PREFIX: &str = "seal.";

// Ciphers, hashes and HMAC overwrite their keys on drop only if the feature of their crate is
// enabled. Without it this does not compile.
const fn assert_zeroize_on_drop<T: ZeroizeOnDrop>() {}
const _: () = assert_zeroize_on_drop::<XChaCha20Poly1305>();
const _: () = assert_zeroize_on_drop::<Sha256>();

/// Keys of a deployment, the same on every replica.
#[derive(Clone)]
pub struct KeyRing {
    index: Hmac<Sha256>,
    sealing: Vec<SealingKey>,
    receipts: ReceiptKeys,
}

#[derive(Clone)]
struct SealingKey {
    /// Number of the key, the first byte of everything that it sealed.
    id: u8,
    /// Hash that identifies the key.
    fingerprint: [u8; 32],
    cipher: XChaCha20Poly1305,
}

impl KeyRing {
    /// Parses entries `index = KEY` and `seal.NUMBER = KEY`, each key 32 bytes of
    /// base64, and `receipt.NUMBER = KEY from INSTANT`, each key in PKCS #8. Each number is
    /// 1 to 255. Entries are separated by line ends or commas; `#` starts a comment. The first
    /// sealing key seals.
    ///
    /// # Errors
    /// [`KeyRingError`] with the entry at fault, never its value.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut index = None;
        let mut sealing: Vec<SealingKey> = Vec::new();
        let mut receipts = ReceiptKeys::default();
        let entries = text
            .lines()
            .map(|line| line.split_once('#').map_or(line, |(entry, _)| entry))
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        for (position, entry) in entries.enumerate() {
            let malformed = || KeyRingError::Malformed(position + 1);
            let (name, value) = entry.split_once('=').ok_or_else(malformed)?;
            let name = name.trim();
            if name == INDEX_ENTRY {
                let key = decode(name, value)?;
                let mac =
                    Hmac::new_from_slice(key.as_slice()).expect("HMAC accepts keys of any length");
                if index.replace(mac).is_some() {
                    return Err(KeyRingError::Duplicate(name.to_owned()));
                }
            } else if let Some(number) = name.strip_prefix(RECEIPT_PREFIX) {
                let number = parse_number(number).ok_or_else(malformed)?;
                receipts.add(number, &format!("{RECEIPT_PREFIX}{number}"), value)?;
            } else {
                let number = name.strip_prefix(SEALING_PREFIX).ok_or_else(malformed)?;
                let id = parse_number(number).ok_or_else(malformed)?;
                // Normalized, because the number may have leading zeros.
                let name = format!("{SEALING_PREFIX}{id}");
                if sealing.iter().any(|key| key.id == id) {
                    return Err(KeyRingError::Duplicate(name));
                }
                let key = decode(&name, value)?;
                let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice())
                    .expect("a sealing key was checked to have 32 bytes");
                let fingerprint = Sha256::new_with_prefix([id]).chain_update(&key).finalize();
                sealing.push(SealingKey {
                    id,
                    fingerprint: fingerprint.into(),
                    cipher,
                });
            }
        }
        let index = index.ok_or(KeyRingError::Missing(INDEX_ENTRY))?;
        if sealing.is_empty() {
            return Err(KeyRingError::Missing("seal.1"));
        }
        Ok(Self {
            index,
            sealing,
            receipts,
        })
    }

    /// Checks that a replica can replace this ring by `next` at `now`, while other replicas do not
    /// have it yet, codes that this ring sealed are live, and its receipts are valid.
    ///
    /// # Errors
    /// [`RotationError`] if some codes could not be opened, or some receipts not be verified,
    /// afterwards.
    pub fn check_rotation(&self, next: &Self, now: Timestamp) -> Result<(), RotationError> {
        let has = |ring: &Self, key: &SealingKey| {
            let mut others = ring.sealing.iter();
            others.any(|other| other.fingerprint == key.fingerprint)
        };
        if self.fingerprint() != next.fingerprint() {
            return Err(RotationError::Index);
        }
        // Neither ring is ever empty.
        if let Some(first) = next.sealing.first().filter(|key| !has(self, key)) {
            return Err(RotationError::NewFirst(first.id));
        }
        if let Some(first) = self.sealing.first().filter(|key| !has(next, key)) {
            return Err(RotationError::FirstGone(first.id));
        }
        self.receipts.check_rotation(&next.receipts, now)
    }

    /// Generates a key ring as text for [`parse`](Self::parse).
    pub fn generate(random: &mut impl Rng) -> Zeroizing<String> {
        let head = "# Keys of otpd. All replicas need the same file. Keep it secret: with it and the database, codes can be read.\n";
        let index = generate_entry(INDEX_ENTRY, random);
        let sealing = generate_sealing_entry(1, random);
        // Built at once, because a string that grows leaves copies that are not overwritten.
        Zeroizing::new([head, &index, &sealing].concat())
    }

    /// Returns the blind index of a record.
    pub fn record_key(
        &self,
        caller: &CallerName,
        recipient: &Recipient,
        purpose: &Purpose,
    ) -> RecordKey {
        RecordKey(self.index_of(
            "record",
            &[caller.as_str(), recipient.as_str(), purpose.as_str()],
        ))
    }

    /// Returns the blind index of a rate limit on `subject` for the requests of `caller`.
    pub fn limit_key(&self, caller: &CallerName, limit: RateLimitKind, subject: &str) -> LimitKey {
        LimitKey(self.index_of("limit", &[caller.as_str(), limit.key(), subject]))
    }

    /// Returns the fingerprint of a request, which does not disclose its content. It covers the RPC
    /// and the request id, if the caller gave one, and the fields that the answer depends on.
    pub fn request_fingerprint(
        &self,
        rpc: &str,
        request_id: Option<&str>,
        fields: &[&str],
        random: &mut impl Rng,
    ) -> RequestFingerprint {
        let half = |mac: [u8; 32]| -> [u8; 16] { *mac.first_chunk().expect("16 of 32 bytes") };
        // One draw, because each is a system call.
        let mut drawn = [0; 24];
        random.fill_bytes(&mut drawn);
        let (id, writer) = drawn.split_at(16);
        RequestFingerprint {
            id: request_id.map_or_else(
                || id.try_into().expect("split at this length"),
                |request_id| half(self.index_of("request", &[rpc, request_id])),
            ),
            fields: half(self.index_of("fields", fields)),
            writer: u64::from_ne_bytes(writer.try_into().expect("split at this length")),
            named: request_id.is_some(),
        }
    }

    /// Returns a hash that identifies the index key without disclosing it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.index_of("fingerprint", &[])
    }

    /// Returns the MAC of the fields. Each field follows its length, so that no two lists of fields
    /// have the same bytes. The label separates the uses of the key.
    fn index_of(&self, label: &str, fields: &[&str]) -> [u8; 32] {
        let mut mac = self.index.clone();
        for field in std::iter::once(&label).chain(fields) {
            let length = u64::try_from(field.len()).expect("a length in memory fits 64 bits");
            mac.update(&length.to_be_bytes());
            mac.update(field.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyRing({} sealing keys)", self.sealing.len())
    }
}

/// Generates a sealing key as an entry of a key ring.
pub fn generate_sealing_entry(id: u8, random: &mut impl Rng) -> Zeroizing<String> {
    generate_entry(&format!("{SEALING_PREFIX}{id}"), random)
}

fn generate_entry(name: &str, random: &mut impl Rng) -> Zeroizing<String> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random.fill_bytes(key.as_mut_slice());
    let key = Zeroizing::new(STANDARD.encode(key.as_slice()));
    Zeroizing::new([name, " = ", &key, "\n"].concat())
}

/// Returns the number of a key: 1 to 255.
fn parse_number(text: &str) -> Option<u8> {
    text.parse().ok().filter(|&number| number > 0)
}

fn decode(name: &str, value: &str) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let key = STANDARD.decode(value.trim()).map(Zeroizing::new).ok();
    key.filter(|key| key.len() == KEY_BYTES)
        .ok_or_else(|| KeyRingError::NotAKey(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_milliseconds(1_000_000_000_000);

    fn ring() -> KeyRing {
        KeyRing::parse(&KeyRing::generate(&mut os_rng())).unwrap()
    }

    #[test]
    fn record_keys_differ_by_field_and_index_key() {
        let ring = ring();
        let key = |caller: &str, recipient: &str, purpose: &str| {
            let recipient = Recipient::from_canonical(recipient.to_owned());
            ring.record_key(
                &CallerName::new(caller),
                &recipient,
                &Purpose::parse(purpose).unwrap(),
            )
        };
        let one = key("crm", "+79991234567", "login");
        assert_eq!(one, key("crm", "+79991234567", "login"));
        for other in [
            key("crm2", "+79991234567", "login"),
            key("crm", "+79991234568", "login"),
            key("crm", "+79991234567", "login2"),
            key("crm+7", "9991234567", "login"),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(ring.fingerprint(), self::ring().fingerprint());
    }

    #[test]
    fn sealing_key_rotation_adds_promotes_and_removes() {
        let lines: Vec<String> = (1..=3)
            .map(|id| generate_sealing_entry(id, &mut os_rng()).to_string())
            .collect();
        let index = generate_entry(INDEX_ENTRY, &mut os_rng());
        let ring =
            |entries: &[&str]| KeyRing::parse(&format!("{}{}", *index, entries.concat())).unwrap();
        let [one, two, three] = [0, 1, 2].map(|index: usize| lines[index].as_str());
        let steps = [
            ring(&[one]),
            ring(&[one, two]),
            ring(&[two, one]),
            ring(&[two]),
        ];
        for pair in steps.windows(2) {
            assert_eq!(pair[0].check_rotation(&pair[1], NOW), Ok(()));
            assert_eq!(pair[0].check_rotation(&pair[0], NOW), Ok(()));
        }
        let allows = |from: &[&str], to: &[&str]| ring(from).check_rotation(&ring(to), NOW);
        assert_eq!(allows(&[one], &[two, one]), Err(RotationError::NewFirst(2)));
        assert_eq!(
            allows(&[one, two], &[two]),
            Err(RotationError::FirstGone(1))
        );
        assert_eq!(allows(&[one, two, three], &[one, three]), Ok(()));
        // Another key of the same number.
        let other = generate_sealing_entry(1, &mut os_rng());
        assert_eq!(allows(&[one], &[&other]), Err(RotationError::NewFirst(1)));
        assert_eq!(
            ring(&[one]).check_rotation(&self::ring(), NOW),
            Err(RotationError::Index)
        );
    }

    #[test]
    fn invalid_key_ring_is_rejected_without_showing_keys() {
        let key = STANDARD.encode([7; 32]);
        for (text, expected) in [
            (String::new(), KeyRingError::Missing("index")),
            (format!("index={key}"), KeyRingError::Missing("seal.1")),
            (
                format!("index={key}\nseal.1={key}x"),
                KeyRingError::NotAKey("seal.1".to_owned()),
            ),
            (
                "index=AAAA".to_owned(),
                KeyRingError::NotAKey("index".to_owned()),
            ),
            (
                format!("index={key},index={key}"),
                KeyRingError::Duplicate("index".to_owned()),
            ),
            (
                format!("seal.1={key},seal.1={key}"),
                KeyRingError::Duplicate("seal.1".to_owned()),
            ),
            (
                format!("index={key},seal.0001=AAAA"),
                KeyRingError::NotAKey("seal.1".to_owned()),
            ),
            (format!("seal.0={key}"), KeyRingError::Malformed(1)),
            (
                format!("index={key}\nseal.256={key}"),
                KeyRingError::Malformed(2),
            ),
            (format!("# {key}\nhello"), KeyRingError::Malformed(1)),
        ] {
            let error = KeyRing::parse(&text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains(&key));
        }
    }
}
