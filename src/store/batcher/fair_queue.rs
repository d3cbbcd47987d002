//! What waits for a batch. Callers take turns, one request each, so that whoever asks
//! for little waits little, however much another one asks for.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::lanes::Lanes;
use otpd_rules::CallerName;

/// Waiting line with a lane for each caller, and a bound.
#[derive(Debug)]
pub(super) struct FairQueue<Item> {
    /// What otpd itself has begun: it goes first, because it was promised. What there is
    /// of it is bounded by the messages that a replica holds.
    own: VecDeque<Item>,
    lanes: Lanes<Item>,
    /// Maximum number of items in the lanes.
    queue_size: usize,
}

impl<Item> FairQueue<Item> {
    pub fn new(queue_size: usize) -> Self {
        Self {
            own: VecDeque::new(),
            lanes: Lanes::default(),
            queue_size: queue_size.max(1),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.own.len() + self.lanes.waiting()
    }

    /// Adds what otpd itself has begun.
    pub fn push_priority(&mut self, item: Item) {
        self.own.push_back(item);
    }

    /// Adds a caller's request, and returns what there is no room for: the newest one of
    /// whoever has most waiting.
    #[must_use]
    pub fn push(&mut self, caller: &CallerName, item: Item) -> Option<Item> {
        let mut displaced = None;
        if self.lanes.waiting() >= self.queue_size {
            // No caller gives way to one that would then have as many.
            let fair = self.lanes.waiting_of(caller) + 1;
            displaced = self.lanes.pop_newest_beyond(fair);
            if displaced.is_none() {
                return Some(item);
            }
        }
        self.lanes.push(caller, item);
        displaced
    }

    /// How many would go before the next request of `caller`.
    pub fn position_of(&self, caller: &CallerName) -> usize {
        self.own.len() + self.lanes.ahead_of(caller)
    }

    /// Moves up to `most` into a batch, in turn.
    pub fn pop_batch(&mut self, most: usize, batch: &mut Vec<Item>) {
        let own = most.min(self.own.len());
        batch.extend(self.own.drain(..own));
        batch.extend(std::iter::from_fn(|| self.lanes.pop()).take(most - own));
    }
}

/// How quickly batches go, by those that went last.
#[derive(Debug, Default)]
pub(super) struct BatchLatency {
    /// How long one takes.
    batch: Duration,
    /// Since when one is on its way.
    under_way: Option<Instant>,
}

impl BatchLatency {
    /// A batch goes off.
    pub fn started(&mut self, now: Instant) {
        self.under_way = Some(now);
    }

    /// It is back, and the store took it: one that fails tells nothing of the pace.
    pub fn record(&mut self, taken: Duration) {
        // Half of it is the newest batch's, so that one slow batch is forgotten after a
        // few quick ones.
        self.batch = (self.batch + taken) / 2;
    }

    /// Nothing is on its way.
    pub fn stopped(&mut self) {
        self.under_way = None;
    }

    /// How long a request waits and is worked on, with `ahead` others before it, of which
    /// `max_batch` go at a time.
    pub fn estimate(&self, ahead: usize, max_batch: usize, now: Instant) -> WaitEstimate {
        let Some(since) = self.under_way else {
            // It goes at once, and so finds out how long it takes.
            return WaitEstimate::default();
        };
        let rest = self
            .batch
            .saturating_sub(now.saturating_duration_since(since));
        let batches = u32::try_from(ahead / max_batch).unwrap_or(u32::MAX);
        let behind_others = self.batch.saturating_mul(batches);
        WaitEstimate {
            behind_others,
            answer: rest + behind_others + self.batch,
        }
    }
}

/// What a request has to expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WaitEstimate {
    /// How long it waits although nothing but other requests keeps it: nothing where it
    /// fits into the next batch.
    pub behind_others: Duration,
    /// How long its answer takes.
    pub answer: Duration,
}
