//! The ids by which callers name challenges.

use otpd_rules::{ChallengeId, ChallengeNonce, RecordKey};

/// How many characters an id has.
const LENGTH: usize = 64;

/// An id and its text are one to one: what is read is written the same, and what is
/// written is read the same.
pub fn challenge_id(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(id) = ChallengeId::parse(text)
    {
        assert_eq!(text.len(), LENGTH, "only ids of the one length are read");
        assert_eq!(id.to_string(), text, "an id has one text");
    }
    if let Some((bytes, _)) = data.split_first_chunk::<48>() {
        let (key, nonce) = bytes.split_at(32);
        let id = ChallengeId {
            key: RecordKey(key.try_into().expect("32 bytes were split off")),
            nonce: ChallengeNonce(nonce.try_into().expect("16 bytes are left")),
        };
        let text = id.to_string();
        assert_eq!(ChallengeId::parse(&text), Some(id), "an id is read back");
        // One character more or less is another text, and no id.
        assert_eq!(ChallengeId::parse(&text[1..]), None);
        assert_eq!(ChallengeId::parse(&format!("{text}A")), None);
    }
}
