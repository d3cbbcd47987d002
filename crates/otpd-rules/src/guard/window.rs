//! Counts over sliding windows.

use crate::Timestamp;

/// Messages of a cell, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of messages.
    pub sends: u32,
    /// Number of messages whose code was verified, counted at the time of the message.
    pub verified: u32,
    /// Number of messages to a neighbour of a number that had a message shortly before.
    pub sequential: u32,
}

impl Counts {
    /// Returns the number of messages without a verification.
    pub fn unanswered(self) -> u32 {
        self.sends.saturating_sub(self.verified)
    }

    /// Returns the sum of both, at most the largest number.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            sends: self.sends.saturating_add(other.sends),
            verified: self.verified.saturating_add(other.verified),
            sequential: self.sequential.saturating_add(other.sequential),
        }
    }
}

/// Last `N` buckets of `STEP` milliseconds each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring<const N: usize, const STEP: i64> {
    /// Number of the newest bucket since the epoch.
    newest: i64,
    buckets: [Counts; N],
}

impl<const N: usize, const STEP: i64> Ring<N, STEP> {
    /// Returns a ring without counts.
    pub fn new() -> Self {
        Self {
            newest: i64::MIN,
            buckets: [Counts::default(); N],
        }
    }

    /// Adds counts at `time`, and calls `expired` with each bucket that leaves the ring. Counts
    /// that are older than the ring are ignored.
    pub fn add(&mut self, time: Timestamp, counts: Counts, expired: impl FnMut(i64, Counts)) {
        let bucket = bucket_number::<STEP>(time);
        self.advance(bucket, expired);
        if self.contains(bucket) {
            let slot = &mut self.buckets[slot::<N>(bucket)];
            *slot = slot.plus(counts);
        }
    }

    /// Moves the newest bucket forward to `bucket`.
    pub fn advance(&mut self, bucket: i64, mut expired: impl FnMut(i64, Counts)) {
        if bucket <= self.newest {
            return;
        }
        let length = length::<N>();
        if self.newest != i64::MIN {
            let first = self.newest - length + 1;
            let last = self.newest.min(bucket - length);
            for old in first..=last {
                let slot = &mut self.buckets[slot::<N>(old)];
                if *slot != Counts::default() {
                    expired(old, std::mem::take(slot));
                }
            }
        }
        self.newest = bucket;
    }

    /// Returns the buckets of the window that ends at `now`, with their numbers. If the clock
    /// stepped back, the window ends with the newest bucket.
    pub fn buckets(&self, now: Timestamp) -> impl Iterator<Item = (i64, Counts)> + '_ {
        let last = bucket_number::<STEP>(now).max(self.newest);
        let first = last.saturating_sub(length::<N>() - 1);
        let stored = self.newest.saturating_sub(length::<N>() - 1);
        (first.max(stored)..=self.newest)
            .map(|bucket| (bucket, self.buckets[slot::<N>(bucket)]))
            .filter(|(_, counts)| *counts != Counts::default())
    }

    /// Returns the sum of the window that ends at `now`.
    pub fn sum(&self, now: Timestamp) -> Counts {
        self.buckets(now)
            .fold(Counts::default(), |sum, (_, counts)| sum.plus(counts))
    }

    fn contains(&self, bucket: i64) -> bool {
        bucket > self.newest.saturating_sub(length::<N>()) && bucket <= self.newest
    }
}

/// Returns the number of the bucket that contains `time`.
pub fn bucket_number<const STEP: i64>(time: Timestamp) -> i64 {
    time.milliseconds().div_euclid(STEP)
}

fn length<const N: usize>() -> i64 {
    i64::try_from(N).unwrap_or(i64::MAX)
}

fn slot<const N: usize>(bucket: i64) -> usize {
    usize::try_from(bucket.rem_euclid(length::<N>())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(milliseconds)
    }

    fn one() -> Counts {
        Counts {
            sends: 1,
            ..Counts::default()
        }
    }

    #[test]
    fn counts_leave_the_window_after_its_length() {
        let mut ring = Ring::<3, 10>::new();
        assert_eq!(ring.sum(at(0)), Counts::default());
        for time in [5, 12, 18, 25] {
            ring.add(at(time), one(), |_, _| panic!("nothing expires yet"));
        }
        assert_eq!(ring.sum(at(29)).sends, 4);
        assert_eq!(ring.sum(at(30)).sends, 3);
        assert_eq!(ring.sum(at(49)).sends, 1);
        assert_eq!(ring.sum(at(50)).sends, 0);
    }

    #[test]
    fn expired_buckets_are_returned_once() {
        let mut ring = Ring::<3, 10>::new();
        ring.add(at(5), one(), |_, _| {});
        ring.add(at(15), one(), |_, _| {});
        let mut expired = Vec::new();
        ring.add(at(500), one(), |bucket, counts| {
            expired.push((bucket, counts.sends));
        });
        assert_eq!(expired, [(0, 1), (1, 1)]);
        assert_eq!(ring.sum(at(500)).sends, 1);
    }

    #[test]
    fn late_counts_are_added_to_their_bucket_or_ignored() {
        let mut ring = Ring::<3, 10>::new();
        ring.add(at(100), one(), |_, _| {});
        ring.add(at(85), one(), |_, _| {});
        ring.add(at(79), one(), |_, _| {});
        assert_eq!(ring.sum(at(100)).sends, 2);
        assert_eq!(ring.sum(at(110)).sends, 1);
    }

    #[test]
    fn window_ends_with_the_newest_bucket_if_the_clock_steps_back() {
        let mut ring = Ring::<3, 10>::new();
        ring.add(at(100), one(), |_, _| {});
        assert_eq!(ring.sum(at(0)).sends, 1);
    }
}
