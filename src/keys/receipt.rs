//! Keys that sign receipts (ES256), and the identifiers in receipts.
//!
//! A key signs from its instant on, until the next key's instant. Replicas change keys at the same
//! moment, because the instant is in the key ring and is compared with the time of the verification,
//! which is the store's. All keys of the ring are published, also those that do not sign yet.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    error::Unspecified,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{KeyRing, KeyRingError, RotationError};
use otpd_rules::{ChallengeId, ReceiptGrant, Recipient, RequestFingerprint, Timestamp};

/// Beginning of the names of receipt keys.
pub(super) const RECEIPT_PREFIX: &str = "receipt.";
/// Separator of a key and its instant.
const FROM: &str = " from ";

/// Time for which verifiers may keep the published keys.
pub const JWKS_MAX_AGE: Duration = Duration::from_mins(10);
/// Minimum time between the publication of a key and its use: verifiers that read the keys just
/// before it read them again within one [`JWKS_MAX_AGE`], and the other one is for a replica that
/// reloads later and for a verifier that cannot reach the service at once.
const MIN_LEAD: Duration = Duration::from_mins(20);
/// Time for which a key stays published after the next one has replaced it: the life of its last
/// receipt, and a minute for clocks that differ.
const MIN_RETENTION: Duration =
    Duration::from_secs(ReceiptGrant::LIFETIME.as_secs().saturating_add(60));

/// Keys that sign receipts, in the order of their instants.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceiptKeys(Vec<ReceiptKey>);

/// Key that signs receipts.
#[derive(Clone, Debug)]
struct ReceiptKey {
    /// Number of the key in the key ring.
    number: u8,
    /// Instant from which it signs; `None` for the first key, which has always signed.
    from: Option<Timestamp>,
    /// Identifier in receipts: the thumbprint of the public key (RFC 7638).
    kid: String,
    /// Public key as a JWK.
    jwk: String,
    pair: Arc<EcdsaKeyPair>,
}

/// Failed signature of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key ring has no key for this time.
    #[error("no receipt key of the key ring signs yet; remove \"from INSTANT\" from the first one")]
    NoKey,
    /// The signature failed.
    #[error("the signature failed")]
    Failed,
}

impl From<Unspecified> for SignError {
    fn from(_: Unspecified) -> Self {
        Self::Failed
    }
}

impl ReceiptKeys {
    /// Adds the entry `receipt.NUMBER = KEY` or `receipt.NUMBER = KEY from INSTANT`. The name has no
    /// leading zeros in its number.
    pub(super) fn add(&mut self, number: u8, name: &str, value: &str) -> Result<(), KeyRingError> {
        let (key, instant) = match value.trim().split_once(FROM) {
            Some((key, instant)) => (key, Some(instant.trim())),
            None => (value.trim(), None),
        };
        let from = instant
            .map(|instant| parse_instant(instant).ok_or(name))
            .transpose()
            .map_err(|name| KeyRingError::NotAnInstant(name.to_owned()))?;
        let not_a_key = || KeyRingError::NotAReceiptKey(name.to_owned());
        let document = STANDARD.decode(key).map(Zeroizing::new);
        let document = document.map_err(|_| not_a_key())?;
        let key = ReceiptKey::new(number, from, &document).ok_or_else(not_a_key)?;
        if self.0.iter().any(|known| known.number == number) {
            return Err(KeyRingError::Duplicate(name.to_owned()));
        }
        if self.0.iter().any(|known| known.from == from) {
            return Err(KeyRingError::SameInstant(name.to_owned()));
        }
        if self.0.iter().any(|known| known.kid == key.kid) {
            return Err(KeyRingError::SameReceiptKey(name.to_owned()));
        }
        self.0.push(key);
        self.0.sort_by_key(|key| key.from);
        Ok(())
    }

    /// Returns the key that signs receipts of verifications at `at`.
    fn signs_at(&self, at: Timestamp) -> Option<&ReceiptKey> {
        let has_begun = |key: &&ReceiptKey| key.from.is_none_or(|from| from <= at);
        self.0.iter().rfind(has_begun)
    }

    fn has(&self, key: &ReceiptKey) -> bool {
        self.0.iter().any(|known| known.kid == key.kid)
    }

    /// Checks that no receipt becomes unverifiable if `next` replaces these keys at `now`.
    pub(super) fn check_rotation(&self, next: &Self, now: Timestamp) -> Result<(), RotationError> {
        let in_time = now.saturating_add(MIN_LEAD);
        let mut added = next.0.iter().filter(|key| !self.has(key));
        if !self.0.is_empty()
            && let Some(early) = added.find(|key| key.from.is_none_or(|from| from < in_time))
        {
            return Err(RotationError::ReceiptKeyTooSoon(early.number));
        }
        for (position, key) in self.0.iter().enumerate() {
            // A key without a successor is still in use, unless it has never been used.
            let successor = self.0.get(position + 1).and_then(|next| next.from);
            let replaced = successor.map(|from| from.saturating_add(MIN_RETENTION));
            let is_over = replaced.is_some_and(|until| until <= now);
            let is_unused = key.from.is_some_and(|from| now < from);
            if !next.has(key) && !is_over && !is_unused {
                return Err(RotationError::ReceiptKeyInUse(key.number));
            }
        }
        Ok(())
    }
}

impl ReceiptKey {
    fn new(number: u8, from: Option<Timestamp>, document: &[u8]) -> Option<Self> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document, &SystemRandom::new()).ok()?;
        // Uncompressed point of SEC 1: a mark, and two coordinates of 32 bytes.
        let point = pair.public_key().as_ref().get(1..)?;
        let (x, y) = point.split_at_checked(32)?;
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let members = format!(r#""crv":"P-256","kty":"EC","x":"{x}","y":"{y}""#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{members}}}")));
        Some(Self {
            number,
            from,
            jwk: format!(r#"{{{members},"use":"sig","alg":"ES256","kid":"{kid}"}}"#),
            kid,
            pair: Arc::new(pair),
        })
    }
}

fn parse_instant(text: &str) -> Option<Timestamp> {
    let instant = humantime::parse_rfc3339(text).ok()?;
    let since = instant.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_milliseconds(0).saturating_add(since))
}

impl KeyRing {
    /// Returns true if there is a key for receipts.
    pub fn has_receipt_keys(&self) -> bool {
        !self.receipts.0.is_empty()
    }

    /// Returns the public keys of receipts as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> String {
        let mut set = r#"{"keys":["#.to_owned();
        for (position, key) in self.receipts.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(set, "{comma}{}", key.jwk).expect("writing to a string cannot fail");
        }
        set + "]}\n"
    }

    /// Signs the claims of a receipt of a verification at `at`, as a JWS in its compact form
    /// (RFC 7515).
    ///
    /// # Errors
    /// [`SignError`] if there is no receipt.
    pub fn sign_receipt(&self, at: Timestamp, claims: &[u8]) -> Result<String, SignError> {
        let key = self.receipts.signs_at(at).ok_or(SignError::NoKey)?;
        let header = format!(
            r#"{{"alg":"ES256","typ":"otp-receipt+jwt","kid":"{}"}}"#,
            key.kid
        );
        let mut receipt = URL_SAFE_NO_PAD.encode(header);
        receipt.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut receipt);
        let signature = key.pair.sign(&SystemRandom::new(), receipt.as_bytes())?;
        receipt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut receipt);
        Ok(receipt)
    }

    /// Returns the identifier of a recipient for one audience. Without the index key it discloses
    /// no recipient, and two audiences cannot compare theirs.
    pub fn receipt_subject(&self, audience: &str, recipient: &Recipient) -> String {
        let subject = self.index_of("receipt subject", &[audience, recipient.as_str()]);
        URL_SAFE_NO_PAD.encode(subject)
    }

    /// Returns the identifier of the receipt of a request, which is the same at each repetition.
    pub fn receipt_id(&self, challenge: &ChallengeId, request: &RequestFingerprint) -> String {
        let request = [request.id, request.fields].concat();
        let request = URL_SAFE_NO_PAD.encode(request);
        let id = self.index_of("receipt id", &[&challenge.to_string(), &request]);
        URL_SAFE_NO_PAD.encode(&id[..16])
    }
}

/// Generates a receipt key as an entry of a key ring. It signs from the instant `from` on.
///
/// # Errors
/// The random source of the operating system failed.
pub fn generate_receipt_entry(
    number: u8,
    from: Option<SystemTime>,
) -> Result<Zeroizing<String>, SignError> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())?;
    let key = Zeroizing::new(STANDARD.encode(document.as_ref()));
    let from = from.map(|from| format!("{FROM}{}", humantime::format_rfc3339_seconds(from)));
    let from = from.as_deref().unwrap_or_default();
    // Built at once, because a string that grows leaves copies that are not overwritten.
    let name = format!("{RECEIPT_PREFIX}{number}");
    Ok(Zeroizing::new([&name, " = ", &*key, from, "\n"].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::os_rng;

    fn at(text: &str) -> Timestamp {
        parse_instant(text).unwrap()
    }

    fn entry(number: u8, from: &str) -> String {
        let from = (!from.is_empty()).then(|| humantime::parse_rfc3339(from).unwrap());
        generate_receipt_entry(number, from).unwrap().to_string()
    }

    fn parse(entries: &[&str]) -> Result<KeyRing, KeyRingError> {
        let base = KeyRing::generate(&mut os_rng());
        KeyRing::parse(&format!("{}{}", *base, entries.concat()))
    }

    fn kid_at(ring: &KeyRing, at: Timestamp) -> Result<String, SignError> {
        let receipt = ring.sign_receipt(at, b"{}")?;
        let header = receipt.split('.').next().unwrap();
        let header = URL_SAFE_NO_PAD.decode(header).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["typ"], "otp-receipt+jwt");
        Ok(header["kid"].as_str().unwrap().to_owned())
    }

    #[test]
    fn key_signs_from_its_instant_until_that_of_the_next() {
        let second = entry(2, "2030-01-01T00:00:00Z");
        let ring = parse(&[&second, &entry(1, "")]).unwrap();
        let jwks: serde_json::Value = serde_json::from_str(&ring.jwks()).unwrap();
        let kid = |position: usize| jwks["keys"][position]["kid"].as_str().unwrap();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
        for (time, expected) in [
            ("1970-01-01T00:00:00Z", kid(0)),
            ("2029-12-31T23:59:59.999Z", kid(0)),
            ("2030-01-01T00:00:00Z", kid(1)),
            ("2040-01-01T00:00:00Z", kid(1)),
        ] {
            assert_eq!(kid_at(&ring, at(time)).as_deref(), Ok(expected), "{time}");
        }
        let later = parse(&[&second]).unwrap();
        let early = at("2029-12-31T23:59:59Z");
        assert_eq!(kid_at(&later, early), Err(SignError::NoKey));
        let none = parse(&[]).unwrap();
        assert!(!none.has_receipt_keys());
        assert_eq!(none.jwks(), "{\"keys\":[]}\n");
    }

    #[test]
    fn published_key_has_no_private_part_and_its_thumbprint_as_id() {
        let ring = parse(&[&entry(1, "")]).unwrap();
        let jwks: serde_json::Value = serde_json::from_str(&ring.jwks()).unwrap();
        let key = jwks["keys"][0].as_object().unwrap();
        let mut members: Vec<_> = key.keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        let text = format!(
            r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#,
            key["x"], key["y"]
        );
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        assert_eq!(key["kid"], thumbprint);
    }

    #[test]
    fn invalid_receipt_keys_are_rejected_without_showing_them() {
        let first = entry(1, "");
        let dated = entry(2, "2030-01-01T00:00:00Z");
        let secret = first.split(" = ").nth(1).unwrap().trim();
        let name = || "receipt.1".to_owned();
        for (entries, expected) in [
            (
                vec!["receipt.1 = AAAA"],
                KeyRingError::NotAReceiptKey(name()),
            ),
            (
                vec!["receipt.01 = not base64"],
                KeyRingError::NotAReceiptKey(name()),
            ),
            (
                vec![&*format!("receipt.1 = {secret} from tomorrow\n")],
                KeyRingError::NotAnInstant(name()),
            ),
            (
                vec![&*format!(
                    "receipt.1 = {secret} from 1969-01-01T00:00:00Z\n"
                )],
                KeyRingError::NotAnInstant(name()),
            ),
            (
                vec![&*first, &*entry(1, "2030-01-01T00:00:00Z")],
                KeyRingError::Duplicate(name()),
            ),
            (
                vec![&*first, &*entry(3, "")],
                KeyRingError::SameInstant("receipt.3".to_owned()),
            ),
            (
                vec![&*dated, &*entry(3, "2030-01-01T00:00:00Z")],
                KeyRingError::SameInstant("receipt.3".to_owned()),
            ),
            (
                vec![
                    &*first,
                    &*format!("receipt.3 = {secret} from 2030-01-01T00:00:00Z\n"),
                ],
                KeyRingError::SameReceiptKey("receipt.3".to_owned()),
            ),
        ] {
            let error = parse(&entries).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(secret));
        }
    }

    #[test]
    fn receipt_keys_are_published_before_and_after_their_use() {
        let base = KeyRing::generate(&mut os_rng()).to_string();
        let ring =
            |entries: &[&str]| KeyRing::parse(&format!("{base}{}", entries.concat())).unwrap();
        let one = entry(1, "");
        let two = entry(2, "2030-01-01T00:00:00Z");
        let allows =
            |from: &[&str], to: &[&str], now: &str| ring(from).check_rotation(&ring(to), at(now));
        let too_soon = Err(RotationError::ReceiptKeyTooSoon(2));
        // The first key needs no lead, because no verifier has read the keys yet.
        assert_eq!(allows(&[], &[&one], "2030-01-01T00:00:00Z"), Ok(()));
        assert_eq!(
            allows(&[&one], &[&one, &two], "2029-12-31T23:40:00Z"),
            Ok(())
        );
        assert_eq!(
            allows(&[&one], &[&one, &two], "2029-12-31T23:40:00.001Z"),
            too_soon
        );
        assert_eq!(
            allows(&[&one], &[&entry(2, "")], "2029-01-01T00:00:00Z"),
            too_soon
        );
        let in_use = Err(RotationError::ReceiptKeyInUse(1));
        let both = [&*one, &*two];
        assert_eq!(allows(&[&one], &[], "2029-01-01T00:00:00Z"), in_use);
        for (now, expected) in [
            ("2029-12-31T23:59:59Z", in_use),
            ("2030-01-01T00:05:59.999Z", in_use),
            ("2030-01-01T00:06:00Z", Ok(())),
        ] {
            assert_eq!(allows(&both, &[&two], now), expected, "{now}");
        }
        // A key that never signed can be withdrawn.
        assert_eq!(allows(&both, &[&one], "2029-12-31T23:59:59Z"), Ok(()));
        assert_eq!(
            allows(&both, &[&one], "2030-01-01T00:00:00Z"),
            Err(RotationError::ReceiptKeyInUse(2))
        );
    }
}
