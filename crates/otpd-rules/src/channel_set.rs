//! Sets of channels.

use serde::{Deserialize, Serialize};

use super::Channel;

/// Set of channels. Stored as one byte, with a bit for each channel in the order of
/// [`Channel::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelSet(u8);

impl ChannelSet {
    /// Set without a channel.
    pub const EMPTY: Self = Self(0);

    /// Returns the set with `channel` added.
    #[must_use]
    pub const fn with(self, channel: Channel) -> Self {
        Self(self.0 | 1 << channel as u8)
    }

    /// Returns true if the set has no channel.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the channels in the order of [`Channel::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        Channel::ALL
            .into_iter()
            .filter(move |channel| self.with(*channel) == self)
    }
}

impl FromIterator<Channel> for ChannelSet {
    fn from_iter<I: IntoIterator<Item = Channel>>(channels: I) -> Self {
        channels.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_set_holds_each_channel_once_in_a_fixed_order() {
        assert!(ChannelSet::EMPTY.is_empty());
        assert_eq!(ChannelSet::EMPTY.iter().count(), 0);
        let set: ChannelSet = [Channel::Telegram, Channel::Sms, Channel::Telegram]
            .into_iter()
            .collect();
        assert!(!set.is_empty());
        let channels: Vec<_> = set.iter().collect();
        assert_eq!(channels, [Channel::Sms, Channel::Telegram]);
        let all: ChannelSet = Channel::ALL.into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), Channel::ALL);
        // Stored bits must not move.
        let bits = Channel::ALL.map(|channel| ChannelSet::EMPTY.with(channel).0);
        assert_eq!(bits, [1, 2, 4, 8, 16]);
    }
}
