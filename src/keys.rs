//! The keys that keep a stolen database silent: blind indexes and sealed secrets.
//!
//! The *index key* turns (caller, recipient, purpose) into a [`RecordKey`] that
//! shows none of them. *Sealing keys* encrypt what a live challenge keeps; the first
//! one seals, all of them open, so that they can be rotated.

mod content;
mod sealing;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use hmac::{Hmac, Mac as _};
use rand::{Rng, rngs::SysRng};
use sha2::{Digest as _, Sha256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

pub use sealing::OpenError;

use otpd_rules::{
    CallerName, LimitKey, Purpose, RateLimitKind, Recipient, RecordKey, RequestFingerprint,
};

const KEY_BYTES: usize = 32;
const INDEX_ENTRY: &str = "index";
const SEALING_PREFIX: &str = "seal.";

// Ciphers and hashes, and with these HMAC, overwrite their keys when they go only where
// their crates are asked to. Without that this does not compile.
const fn assert_zeroize_on_drop<T: ZeroizeOnDrop>() {}
const _: () = assert_zeroize_on_drop::<XChaCha20Poly1305>();
const _: () = assert_zeroize_on_drop::<Sha256>();

/// The operating system's random source, which the rules draw from.
pub type SystemRandom = rand::rand_core::UnwrapErr<SysRng>;

/// The operating system's random source. It panics where the system has none,
/// which Linux rules out once it is up: better no answer than a guessable code.
pub fn os_rng() -> SystemRandom {
    rand::rand_core::UnwrapErr(SysRng)
}

/// All keys of a deployment, the same on every replica.
#[derive(Clone)]
pub struct KeyRing {
    index: Hmac<Sha256>,
    sealing: Vec<SealingKey>,
}

#[derive(Clone)]
struct SealingKey {
    /// Leads everything sealed with it.
    id: u8,
    /// Tells it from other keys.
    print: [u8; 32],
    cipher: XChaCha20Poly1305,
}

/// A text is no key ring. No message shows any part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// An entry is not `NAME = VALUE`.
    #[error("entry {0} is not \"index = KEY\" or \"seal.NUMBER = KEY\"")]
    Malformed(usize),
    /// A value is not 32 bytes of base64.
    #[error("{0} is not 32 bytes of base64")]
    NotAKey(String),
    /// A name is there twice.
    #[error("{0} is there twice")]
    Twice(String),
    /// A needed entry is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// A key ring may not follow another one while otpd runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// No record would be found any more.
    #[error("the index key is another one; it does not rotate")]
    Index,
    /// Other replicas may not have it.
    #[error(
        "seal.{0} is new and stands first, so that replicas without it could not open what it seals; put it last, and first when every replica has it"
    )]
    NewFirst(u8),
    /// Codes that it sealed live.
    #[error(
        "seal.{0} is missing, and has sealed codes that live; put another one before it, and remove it when these have expired"
    )]
    FirstGone(u8),
}

impl KeyRing {
    /// Reads entries `index = KEY` and `seal.NUMBER = KEY`, each key 32 bytes of
    /// base64 and each number 1 to 255, separated by line ends or commas; `#` starts
    /// a comment. The first sealing key seals.
    ///
    /// # Errors
    /// The entry at fault, never its value.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut index = None;
        let mut sealing: Vec<SealingKey> = Vec::new();
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
                    Hmac::new_from_slice(key.as_slice()).expect("HMAC takes keys of any length");
                if index.replace(mac).is_some() {
                    return Err(KeyRingError::Twice(name.to_owned()));
                }
            } else {
                let number = name.strip_prefix(SEALING_PREFIX).ok_or_else(malformed)?;
                let id: u8 = number
                    .parse()
                    .ok()
                    .filter(|&id| id > 0)
                    .ok_or_else(malformed)?;
                // Named by its number, which can be written with any zeros before it.
                let name = format!("{SEALING_PREFIX}{id}");
                if sealing.iter().any(|key| key.id == id) {
                    return Err(KeyRingError::Twice(name));
                }
                let key = decode(&name, value)?;
                let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice())
                    .expect("a sealing key was checked to have 32 bytes");
                let print = Sha256::new_with_prefix([id]).chain_update(&key).finalize();
                sealing.push(SealingKey {
                    id,
                    print: print.into(),
                    cipher,
                });
            }
        }
        let index = index.ok_or(KeyRingError::Missing(INDEX_ENTRY))?;
        if sealing.is_empty() {
            return Err(KeyRingError::Missing("seal.1"));
        }
        Ok(Self { index, sealing })
    }

    /// Whether a replica that runs with this ring can go on with `next`, while others do
    /// not have it yet, and codes live that this one has sealed.
    ///
    /// # Errors
    /// What would make codes that nobody opens.
    pub fn check_rotation(&self, next: &Self) -> Result<(), RotationError> {
        let has = |ring: &Self, key: &SealingKey| {
            ring.sealing.iter().any(|other| other.print == key.print)
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
        Ok(())
    }

    /// New keys, as text that [`parse`](Self::parse) reads.
    pub fn generate(random: &mut impl Rng) -> Zeroizing<String> {
        let head = "# Keys of otpd: the same file for every replica; whoever has it and the database has the codes.\n";
        let index = generate_entry(INDEX_ENTRY, random);
        let sealing = generate_sealing_entry(1, random);
        // In one piece: what a text that grows leaves behind would not be overwritten.
        Zeroizing::new([head, &index, &sealing].concat())
    }

    /// The blind index of a record.
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

    /// The blind index of a limit on `whom`, of the requests of `caller`.
    pub fn limit_key(&self, caller: &CallerName, limit: RateLimitKind, whom: &str) -> LimitKey {
        LimitKey(self.index_of("limit", &[caller.as_str(), limit.key(), whom]))
    }

    /// What tells one request from another without saying what it says: its RPC and
    /// its id, if the caller gave one, and the fields that its answer depends on.
    pub fn request_identity(
        &self,
        rpc: &str,
        request_id: Option<&str>,
        fields: &[&str],
        random: &mut impl Rng,
    ) -> RequestFingerprint {
        let half = |mac: [u8; 32]| -> [u8; 16] { *mac.first_chunk().expect("16 of 32 bytes") };
        // All at once: each draw is a system call.
        let mut drawn = [0; 24];
        random.fill_bytes(&mut drawn);
        let (id, writer) = drawn.split_at(16);
        RequestFingerprint {
            id: request_id.map_or_else(
                || id.try_into().expect("it was split so"),
                |request_id| half(self.index_of("request", &[rpc, request_id])),
            ),
            fields: half(self.index_of("fields", fields)),
            writer: u64::from_ne_bytes(writer.try_into().expect("it was split so")),
            named: request_id.is_some(),
        }
    }

    /// Tells one index key from another without showing it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.index_of("fingerprint", &[])
    }

    /// Each field after its length, so that no two lists of fields run together to
    /// the same bytes; the label keeps one use of the key from another.
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

/// A new sealing key as an entry of a key ring.
pub fn generate_sealing_entry(id: u8, random: &mut impl Rng) -> Zeroizing<String> {
    generate_entry(&format!("{SEALING_PREFIX}{id}"), random)
}

fn generate_entry(name: &str, random: &mut impl Rng) -> Zeroizing<String> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random.fill_bytes(key.as_mut_slice());
    let key = Zeroizing::new(STANDARD.encode(key.as_slice()));
    Zeroizing::new([name, " = ", &key, "\n"].concat())
}

fn decode(name: &str, value: &str) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let key = STANDARD.decode(value.trim()).map(Zeroizing::new).ok();
    key.filter(|key| key.len() == KEY_BYTES)
        .ok_or_else(|| KeyRingError::NotAKey(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(pair[0].check_rotation(&pair[1]), Ok(()));
            assert_eq!(pair[0].check_rotation(&pair[0]), Ok(()));
        }
        let allows = |from: &[&str], to: &[&str]| ring(from).check_rotation(&ring(to));
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
            ring(&[one]).check_rotation(&self::ring()),
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
                KeyRingError::Twice("index".to_owned()),
            ),
            (
                format!("seal.1={key},seal.1={key}"),
                KeyRingError::Twice("seal.1".to_owned()),
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
