//! Requests that wait for a batch. Callers take turns, one request each, so that a caller with
//! few requests waits little, however many another caller sends.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use otpd_base::lanes::Lanes;
use otpd_rules::CallerName;

/// Bounded queue with a lane for each caller.
#[derive(Debug)]
pub(super) struct FairQueue<Item> {
    /// Work of otpd itself: it goes first, because a reply has promised it. Its number is
    /// bounded by the messages that a replica holds.
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

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.own.len() + self.lanes.waiting()
    }

    /// Adds work of otpd itself.
    pub fn push_priority(&mut self, item: Item) {
        self.own.push_back(item);
    }

    /// Adds a caller's request, and returns the one that there is no room for: the newest one
    /// of the caller with the most.
    #[must_use]
    pub fn push(&mut self, caller: &CallerName, item: Item) -> Option<Item> {
        let mut displaced = None;
        if self.lanes.waiting() >= self.queue_size {
            // No caller loses a request to one that would then have as many.
            let fair = self.lanes.waiting_of(caller) + 1;
            displaced = self.lanes.pop_newest_beyond(fair);
            if displaced.is_none() {
                return Some(item);
            }
        }
        self.lanes.push(caller, item);
        displaced
    }

    /// Returns the number of items before the next request of `caller`.
    pub fn position_of(&self, caller: &CallerName) -> usize {
        self.own.len() + self.lanes.ahead_of(caller)
    }

    /// Moves up to `most` items into a batch, in turn.
    pub fn pop_batch(&mut self, most: usize, batch: &mut Vec<Item>) {
        let own = most.min(self.own.len());
        batch.extend(self.own.drain(..own));
        batch.extend(std::iter::from_fn(|| self.lanes.pop()).take(most - own));
    }
}

/// Duration of the last batches.
#[derive(Debug, Default)]
pub(super) struct BatchLatency {
    /// Moving average.
    batch: Duration,
    /// Start of the batch in progress.
    started_at: Option<Instant>,
}

impl BatchLatency {
    /// Notes the start of a batch.
    pub fn started(&mut self, now: Instant) {
        self.started_at = Some(now);
    }

    /// Notes the duration of a batch that the store took. One that fails says nothing about
    /// the next.
    pub fn record(&mut self, taken: Duration) {
        // Half of it is the newest batch's, so that one slow batch is forgotten after a
        // few quick ones.
        self.batch = (self.batch + taken) / 2;
    }

    /// Notes that no batch is in progress.
    pub fn stopped(&mut self) {
        self.started_at = None;
    }

    /// Estimates the wait of a request with `ahead` others before it, of which `max_batch` are
    /// in one batch.
    pub fn estimate(&self, ahead: usize, max_batch: usize, now: Instant) -> WaitEstimate {
        let Some(started_at) = self.started_at else {
            // It is started at once, and measures the duration.
            return WaitEstimate::default();
        };
        let rest = self
            .batch
            .saturating_sub(now.saturating_duration_since(started_at));
        let batches = u32::try_from(ahead / max_batch).unwrap_or(u32::MAX);
        let behind_others = self.batch.saturating_mul(batches);
        WaitEstimate {
            behind_others,
            reply: rest + behind_others + self.batch,
        }
    }
}

/// Estimated wait of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WaitEstimate {
    /// Time that it waits for other requests alone: zero if it fits into the next batch.
    pub behind_others: Duration,
    /// Time until its reply.
    pub reply: Duration,
}
