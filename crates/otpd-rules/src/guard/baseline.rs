//! Usual conversion of a cell, from its own past and from its parent.

use super::{Counts, GuardPolicy, Share};

/// Weight of the parent's conversion, in messages.
const PARENT_WEIGHT: u64 = 50;
/// Hours after which an eighth of the past is forgotten.
const HOURS_PER_DECAY: u32 = 24;
/// Bounds of a usual conversion. Below the lower one, an attacker who lowers it over weeks gains
/// nothing more; above the upper one, chance would make cells suspicious.
const LOWEST: u32 = 300_000;
const HIGHEST: u32 = 900_000;

/// Counts of the hours that have left the windows of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    sends: u64,
    verified: u64,
    /// Largest number of verified messages in an hour.
    peak: u32,
    hours: u32,
}

impl Past {
    /// Adds an hour. One in which the cell was suspicious counts an eighth, so that an attack
    /// hardly becomes usual, and yet a lasting change does.
    pub fn add_hour(&mut self, counts: Counts, suspicious: bool) {
        let weight = if suspicious { 1 } else { 8 };
        self.sends += u64::from(counts.sends) * weight;
        self.verified += u64::from(counts.verified.min(counts.sends)) * weight;
        if !suspicious {
            self.peak = self.peak.max(counts.verified);
        }
    }

    /// Lets `hours` pass, in which the past loses weight.
    pub fn pass(&mut self, hours: u32) {
        self.hours = self.hours.saturating_add(hours);
        while self.hours >= HOURS_PER_DECAY && (self.sends > 0 || self.peak > 0) {
            self.hours -= HOURS_PER_DECAY;
            self.sends -= self.sends.div_ceil(8);
            self.verified -= self.verified.div_ceil(8);
            self.peak -= self.peak.div_ceil(14);
        }
        self.hours %= HOURS_PER_DECAY;
    }

    /// Returns the largest number of verified messages in an hour.
    pub fn peak(&self) -> u32 {
        self.peak
    }

    /// Returns the usual conversion of the cell.
    pub fn conversion(&self, parent: Baseline) -> Share {
        let parent = parent.conversion.times(PARENT_WEIGHT * 8);
        let mean = Share::ratio(self.verified + parent, self.sends + PARENT_WEIGHT * 8);
        Share::from_millionths(mean.millionths().clamp(LOWEST, HIGHEST))
    }
}

/// Usual conversion of a parent cell: of the caller for a country, of the country for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Share of the messages that are usually verified.
    pub conversion: Share,
}

impl Baseline {
    /// Returns the baseline of a caller without a past.
    pub fn assumed(policy: &GuardPolicy) -> Self {
        Self {
            conversion: policy.usual_conversion,
        }
    }
}
