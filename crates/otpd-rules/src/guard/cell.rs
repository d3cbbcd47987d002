//! Counts of one cell.

use crate::Timestamp;

use super::{
    Baseline, Counts, Share,
    baseline::Past,
    window::{Ring, bucket_number},
};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Counts of the messages to recipients that never verified before, over 10 minutes, an hour
/// and a day, and the past before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    ten_minutes: Ring<60, { 10 * SECOND }>,
    hour: Ring<12, { 5 * MINUTE }>,
    day: Ring<24, HOUR>,
    /// Numbers of the hours in which the cell was suspicious, one bit each, the last hour of
    /// `marked_until` first.
    suspicious_hours: u32,
    marked_until: i64,
    past: Past,
    past_until: i64,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            ten_minutes: Ring::new(),
            hour: Ring::new(),
            day: Ring::new(),
            suspicious_hours: 0,
            marked_until: i64::MIN,
            past: Past::default(),
            past_until: i64::MIN,
        }
    }
}

impl Cell {
    /// Adds a message sent at `time`.
    pub fn add_send(&mut self, time: Timestamp, sequential: bool) {
        self.add(
            time,
            Counts {
                sends: 1,
                verified: 0,
                sequential: u32::from(sequential),
            },
        );
    }

    /// Adds the verification of a code, of which the last message was sent at `sent_at`, and
    /// which was sent in `messages` messages.
    pub fn add_verification(&mut self, sent_at: Timestamp, messages: u32) {
        self.add(
            sent_at,
            Counts {
                sends: 0,
                verified: messages,
                sequential: 0,
            },
        );
    }

    fn add(&mut self, time: Timestamp, counts: Counts) {
        self.ten_minutes.add(time, counts, |_, _| {});
        self.hour.add(time, counts, |_, _| {});
        let (suspicious_hours, marked_until) = (self.suspicious_hours, self.marked_until);
        let past = &mut self.past;
        self.day.add(time, counts, |hour, counts| {
            let age = u32::try_from(marked_until.saturating_sub(hour)).unwrap_or(u32::MAX);
            let suspicious = suspicious_hours
                .checked_shr(age)
                .is_some_and(|bits| bits & 1 == 1);
            past.add_hour(counts, suspicious);
        });
        let hour = bucket_number::<HOUR>(time);
        if self.past_until != i64::MIN {
            let passed = hour.saturating_sub(self.past_until).max(0);
            self.past.pass(u32::try_from(passed).unwrap_or(u32::MAX));
        }
        self.past_until = self.past_until.max(hour);
    }

    /// Notes that the cell is suspicious at `now`, so that this hour hardly counts as usual.
    pub fn mark_suspicious(&mut self, now: Timestamp) {
        let hour = bucket_number::<HOUR>(now);
        let passed = hour.saturating_sub(self.marked_until);
        if passed >= 0 {
            let shift = u32::try_from(passed).unwrap_or(u32::MAX);
            self.suspicious_hours = self.suspicious_hours.checked_shl(shift).unwrap_or(0) | 1;
            self.marked_until = hour;
        }
    }

    /// Returns the baseline of the cells below this one.
    pub fn baseline(&self, parent: Baseline) -> Baseline {
        Baseline {
            conversion: self.past.conversion(parent),
        }
    }

    /// Returns the number of messages in an hour that its largest number of verified messages
    /// in an hour stands for, the current day included.
    pub fn peak(&self, conversion: Share, now: Timestamp) -> u32 {
        let today = self.day.buckets(now).map(|(_, counts)| counts.verified);
        let verified = today.max().unwrap_or(0).max(self.past.peak());
        let sends = u64::from(verified) * 1_000_000 / u64::from(conversion.millionths().max(1));
        u32::try_from(sends).unwrap_or(u32::MAX)
    }

    /// Returns the counts of the last 10 minutes.
    pub fn last_ten_minutes(&self, now: Timestamp) -> Counts {
        self.ten_minutes.sum(now)
    }

    /// Returns the counts of the last hour.
    pub fn last_hour(&self, now: Timestamp) -> Counts {
        self.hour.sum(now)
    }

    /// Returns the counts of the last day.
    pub fn last_day(&self, now: Timestamp) -> Counts {
        self.day.sum(now)
    }

    /// Returns the number of messages since `start`, at most of the last 10 minutes.
    pub fn sends_since(&self, start: Timestamp, now: Timestamp) -> u32 {
        let first = bucket_number::<{ 10 * SECOND }>(start);
        let buckets = self.ten_minutes.buckets(now);
        let recent = buckets.filter(|(bucket, _)| *bucket >= first);
        recent.fold(0, |sum, (_, counts)| sum.saturating_add(counts.sends))
    }

    /// Returns the number of recent messages that people cannot be expected to have answered
    /// yet.
    pub fn pending(&self, now: Timestamp) -> u32 {
        let current = bucket_number::<{ 10 * SECOND }>(now);
        let tenths: u64 = self
            .ten_minutes
            .buckets(now)
            .map(|(bucket, counts)| {
                let age = usize::try_from(current.saturating_sub(bucket)).unwrap_or(0);
                u64::from(counts.sends) * PENDING_TENTHS.get(age).copied().unwrap_or(0)
            })
            .sum();
        u32::try_from(tenths.div_ceil(10)).unwrap_or(u32::MAX)
    }

    /// Returns the instants after `now` at which counts leave a window, if nothing is added.
    pub fn next_changes(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        let steps = [(10 * SECOND, 60), (5 * MINUTE, 12), (HOUR, 25)];
        let now = now.milliseconds();
        let mut instants: Vec<i64> = steps
            .iter()
            .flat_map(|&(step, count)| {
                let current = now.div_euclid(step);
                (1..=count).map(move |bucket| (current + bucket) * step)
            })
            .collect();
        instants.sort_unstable();
        instants.dedup();
        instants.into_iter().map(Timestamp::from_milliseconds)
    }
}

/// Tenths of the answers that are still to come, by the age of a message in units of 10
/// seconds. Half of those who answer at all have done so after 40 seconds, and nearly all after
/// 3 minutes.
const PENDING_TENTHS: [u64; 18] = [10, 9, 8, 6, 5, 4, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1];
