//! Identifiers of challenges.

use otpd_rules::{ChallengeId, ChallengeNonce, RecordKey};

/// Number of characters of an id.
const LENGTH: usize = 64;

/// Checks that an id and its text are one to one: a parsed id is written as the same
/// text, and its text is parsed as the same id.
pub fn challenge_id(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(id) = ChallengeId::parse(text)
    {
        assert_eq!(text.len(), LENGTH, "only ids of this length are accepted");
        assert_eq!(id.to_string(), text, "an id has one text");
    }
    if let Some((bytes, _)) = data.split_first_chunk::<48>() {
        let (key, nonce) = bytes.split_at(32);
        let id = ChallengeId {
            key: RecordKey(key.try_into().expect("32 bytes were split off")),
            nonce: ChallengeNonce(nonce.try_into().expect("16 bytes are left")),
        };
        let text = id.to_string();
        assert_eq!(ChallengeId::parse(&text), Some(id), "an id round-trips");
        // One character more or less is another text, and not an id.
        assert_eq!(ChallengeId::parse(&text[1..]), None);
        assert_eq!(ChallengeId::parse(&format!("{text}A")), None);
    }
}
