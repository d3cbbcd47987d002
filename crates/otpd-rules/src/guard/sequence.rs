//! Numbers of a block that are used in sequence.

use std::collections::VecDeque;

/// Largest distance of two neighbours.
const DISTANCE: u16 = 3;
/// Number of recent messages that a number is compared with. Replicas share the messages of an
/// attack, so each sees gaps in its sequence.
const RECENT: usize = 4;

/// Last digits of the recent messages to one block. They stay in memory: with the block they
/// are the recipient's number.
#[derive(Clone, Debug, Default)]
pub struct SequenceTracker {
    recent: VecDeque<u16>,
}

impl SequenceTracker {
    /// Adds the last digits of a number. Returns true if it is a neighbour of a recent one, but
    /// none of the recent ones itself.
    pub fn add(&mut self, last_digits: u16) -> bool {
        let distances = self.recent.iter().map(|seen| seen.abs_diff(last_digits));
        let nearest = distances.min();
        if nearest != Some(0) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(last_digits);
        }
        nearest.is_some_and(|distance| (1..=DISTANCE).contains(&distance))
    }
}
