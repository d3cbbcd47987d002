//! Outages of a provider, which lower the conversion of every cell.
//!
//! During an outage the verifications of a provider end, although messages are accepted. An
//! attack does not end them: it adds messages without verifications to those of honest people.
//! So an outage is a drop in the number of *blocks* with a verification, and neither the share
//! of verified messages nor their number matters. To feign one, an attacker has to verify his own
//! numbers in most of the blocks that have verifications, and then stop.

use crate::Timestamp;

use super::window::bucket_number;

/// Length of a slot.
const SLOT: i64 = 5 * 60 * 1_000;
/// Blocks with a verification per slot below which there is no telling.
const FEWEST_BLOCKS: u32 = 8;
/// Slots for which the guard is suspended at most: 6 hours.
const LONGEST: i64 = 72;
/// Unit of the usual number of blocks.
const UNIT: u32 = 256;

/// Events of a slot, each counted once per block, for all classes of sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderEvent {
    /// First message to a block.
    Sent,
    /// First verification in a block.
    Verified,
    /// First refusal by the guard in a block.
    Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    sent: u32,
    verified: u32,
    refused: u32,
}

/// Blocks with messages and verifications of one provider.
#[derive(Clone, Debug, Default)]
pub struct ProviderHealth {
    slot: i64,
    current: Slot,
    /// Usual number of blocks with a verification per slot, in units of 1/[`UNIT`].
    usual: u32,
    down_since: Option<i64>,
}

impl ProviderHealth {
    /// Adds an event of a block that had none of its kind in this slot.
    pub fn add(&mut self, event: ProviderEvent, now: Timestamp) {
        self.advance(now);
        let count = match event {
            ProviderEvent::Sent => &mut self.current.sent,
            ProviderEvent::Verified => &mut self.current.verified,
            ProviderEvent::Refused => &mut self.current.refused,
        };
        *count = count.saturating_add(1);
    }

    /// Returns true if the provider is down, as far as its verifications show.
    pub fn is_down(&mut self, now: Timestamp) -> bool {
        self.advance(now);
        self.down_since
            .is_some_and(|since| self.slot - since < LONGEST)
    }

    /// Returns the number of the slot, in which a block counts once.
    pub fn slot(now: Timestamp) -> i64 {
        bucket_number::<SLOT>(now)
    }

    fn advance(&mut self, now: Timestamp) {
        let slot = Self::slot(now);
        if slot <= self.slot {
            return;
        }
        if slot == self.slot + 1 {
            self.end_slot();
        } else {
            self.usual = 0;
            self.down_since = None;
        }
        self.slot = slot;
        self.current = Slot::default();
    }

    fn end_slot(&mut self) {
        let Slot {
            sent,
            verified,
            refused,
        } = self.current;
        let verified = verified.saturating_mul(UNIT);
        let is_known = self.usual >= FEWEST_BLOCKS * UNIT;
        let has_messages = sent.saturating_mul(UNIT) >= self.usual / 2;
        // Refusals by the guard end verifications, too.
        let down = is_known && has_messages && refused <= sent / 2 && verified < self.usual / 4;
        if down {
            self.down_since.get_or_insert(self.slot + 1);
        } else if verified >= self.usual / 2 || !has_messages {
            self.down_since = None;
        }
        if self
            .down_since
            .is_none_or(|since| self.slot - since >= LONGEST)
        {
            self.usual = self.usual - self.usual / 4 + verified / 4;
        }
    }
}
