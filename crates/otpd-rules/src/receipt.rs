//! Rule for receipts: which verification may have one, and until when.

use std::time::Duration;

use super::{ChannelSet, Timestamp};

/// Permission to issue a receipt for a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptGrant {
    /// Channels that carried the code; at least one.
    pub channels: ChannelSet,
    /// Start of the receipt's life: the second of the verification.
    pub issued_at: Timestamp,
    /// End of the receipt's life.
    pub expires_at: Timestamp,
}

impl ReceiptGrant {
    /// Life of a receipt. A receipt is a bearer token, so it only has to survive the way from
    /// the caller to the service that accepts it.
    pub const LIFETIME: Duration = Duration::from_mins(5);

    /// Returns the grant for a code that was verified at `verified_at`. There is none if no
    /// channel is known to have carried the code, after the end of the receipt's life, and
    /// before its start, which is possible only if the store's clock stepped back.
    pub(super) fn new(
        channels: ChannelSet,
        verified_at: Timestamp,
        now: Timestamp,
    ) -> Option<Self> {
        // Receipts have whole seconds.
        let second = verified_at.milliseconds().div_euclid(1_000) * 1_000;
        let issued_at = Timestamp::from_milliseconds(second);
        let expires_at = issued_at.saturating_add(Self::LIFETIME);
        let is_alive = issued_at <= now && now < expires_at;
        (is_alive && !channels.is_empty()).then_some(Self {
            channels,
            issued_at,
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Channel;

    #[test]
    fn receipt_lives_five_minutes_from_the_second_of_the_verification() {
        let at = Timestamp::from_milliseconds;
        let sms = ChannelSet::EMPTY.with(Channel::Sms);
        let grant = ReceiptGrant::new(sms, at(1_999), at(1_999)).unwrap();
        assert_eq!(grant.issued_at, at(1_000));
        assert_eq!(grant.expires_at, at(301_000));
        assert_eq!(ReceiptGrant::new(sms, at(1_999), at(300_999)), Some(grant));
        assert_eq!(ReceiptGrant::new(sms, at(1_999), at(301_000)), None);
        assert_eq!(ReceiptGrant::new(sms, at(1_999), at(999)), None);
        assert_eq!(
            ReceiptGrant::new(ChannelSet::EMPTY, at(1_999), at(1_999)),
            None
        );
    }
}
