//! Providers of the messages that this replica dispatched lately.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use otpd_rules::{ChallengeNonce, Channel};

/// Maximum number of codes in a generation of [`RecentDeliveries`]: some megabytes.
const GENERATION_SIZE: usize = 32_768;

/// Providers that accepted the last message of recent codes which were not verified yet. Clones
/// share them.
///
/// A code that the same replica verifies is attributed to its provider without a look-up in the
/// store.
#[derive(Clone, Debug, Default)]
pub struct RecentDeliveries(Arc<Mutex<TwoGenerations>>);

#[derive(Debug, Default)]
struct TwoGenerations {
    young: HashMap<[u8; 16], (Arc<str>, Channel)>,
    old: HashMap<[u8; 16], (Arc<str>, Channel)>,
}

impl RecentDeliveries {
    /// Adds the provider and the channel of a message that was accepted.
    pub(super) fn insert(&self, challenge: ChallengeNonce, provider: &str, channel: Channel) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.young.len() >= GENERATION_SIZE {
            all.old = std::mem::take(&mut all.young);
        }
        all.young.insert(challenge.0, (provider.into(), channel));
    }

    /// Removes and returns the provider and the channel of the last message of a code.
    pub fn take(&self, challenge: ChallengeNonce) -> Option<(Arc<str>, Channel)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = all.old.remove(&challenge.0);
        all.young.remove(&challenge.0).or(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(number: usize) -> ChallengeNonce {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        ChallengeNonce(nonce)
    }

    #[test]
    fn last_provider_of_a_recent_code_is_taken_once() {
        let recent = RecentDeliveries::default();
        recent.insert(nonce(1), "north", Channel::Sms);
        recent.insert(nonce(1), "south", Channel::Voice);
        assert_eq!(
            recent.take(nonce(1)),
            Some(("south".into(), Channel::Voice))
        );
        assert_eq!(recent.take(nonce(1)), None);
    }

    #[test]
    fn tracked_codes_are_bounded() {
        let recent = RecentDeliveries::default();
        for number in 0..GENERATION_SIZE * 5 {
            recent.insert(nonce(number), "north", Channel::Sms);
        }
        let all = recent.0.lock().unwrap();
        assert!(all.young.len() + all.old.len() <= GENERATION_SIZE * 2);
        drop(all);
        assert!(recent.take(nonce(GENERATION_SIZE * 5 - 1)).is_some());
        assert!(recent.take(nonce(0)).is_none());
    }
}
