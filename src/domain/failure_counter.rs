//! Rule 5: wrong answers are counted across codes, and slow the next ones down.

use std::time::Duration;

use super::{PurposePolicy, Timestamp, policy::MAX_FAILURE_DELAY};

/// Consecutive wrong answers of one record, across its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureCounter {
    /// How many.
    pub count: u32,
    /// When the last one was judged; of no meaning where there are none.
    pub last_at: Timestamp,
}

/// Answers are refused for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// Until when.
    pub until: Timestamp,
    /// How long that is.
    pub wait: Duration,
    /// Whether the record is shut for good, short of a reset: too many wrong answers.
    pub locked: bool,
}

impl FailureCounter {
    /// No wrong answers.
    pub const NONE: Self = Self {
        count: 0,
        last_at: Timestamp::from_milliseconds(0),
    };

    /// With one wrong answer more, judged `now`.
    #[must_use]
    pub fn record_failure(self, policy: &PurposePolicy, now: Timestamp) -> Self {
        Self {
            count: self.count_at(policy, now).saturating_add(1),
            last_at: now,
        }
    }

    /// How many still count: none after `failure_memory` without one.
    pub fn count_at(self, policy: &PurposePolicy, now: Timestamp) -> u32 {
        if now < self.resets_at(policy) {
            self.count
        } else {
            0
        }
    }

    /// When they cease to count.
    pub fn resets_at(self, policy: &PurposePolicy) -> Timestamp {
        match self.count {
            0 => self.last_at,
            _ => self.last_at.saturating_add(policy.failure_memory),
        }
    }

    /// Whether answers are refused `now`: for good from `failure_limit` on, and for a
    /// doubling while after every `max_attempts` before that.
    pub fn lockout_at(self, policy: &PurposePolicy, now: Timestamp) -> Option<Lockout> {
        let count = self.count_at(policy, now);
        let locked = count >= policy.failure_limit;
        let until = if locked {
            self.resets_at(policy)
        } else if count > 0 && count.is_multiple_of(policy.max_attempts) {
            let doublings = count / policy.max_attempts - 1;
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            let delay = policy
                .failure_delay
                .saturating_mul(factor)
                .min(MAX_FAILURE_DELAY);
            self.last_at.saturating_add(delay)
        } else {
            return None;
        };
        (now < until).then(|| Lockout {
            until,
            wait: now.duration_until(until),
            locked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(seconds * 1_000)
    }

    fn failed(count: u32) -> FailureCounter {
        FailureCounter {
            count,
            last_at: at(0),
        }
    }

    #[test]
    fn every_fifth_wrong_answer_delays_the_next_twice_as_long() {
        let policy = PurposePolicy::default();
        for (count, seconds) in [
            (5, 30),
            (10, 60),
            (15, 120),
            (20, 240),
            (35, 1_920),
            (40, 3_600),
            (95, 3_600),
        ] {
            let wait = Duration::from_secs(1);
            let expected = Lockout {
                until: at(seconds),
                wait,
                locked: false,
            };
            assert_eq!(
                failed(count).lockout_at(&policy, at(seconds - 1)),
                Some(expected),
                "{count}"
            );
            assert_eq!(
                failed(count).lockout_at(&policy, at(seconds)),
                None,
                "{count}"
            );
        }
        for count in [0, 1, 4, 6, 9, 99] {
            assert_eq!(failed(count).lockout_at(&policy, at(0)), None, "{count}");
        }
    }

    #[test]
    fn from_the_hundredth_on_the_record_is_shut_for_thirty_days() {
        let policy = PurposePolicy::default();
        let days = 30 * 24 * 3_600;
        for count in [100, 101, u32::MAX] {
            let wait = Duration::from_secs(1);
            let expected = Lockout {
                until: at(days),
                wait,
                locked: true,
            };
            assert_eq!(
                failed(count).lockout_at(&policy, at(days - 1)),
                Some(expected)
            );
            assert_eq!(failed(count).lockout_at(&policy, at(days)), None);
        }
        assert_eq!(failed(99).record_failure(&policy, at(1)).count, 100);
        assert_eq!(failed(99).record_failure(&policy, at(days)).count, 1);
        assert_eq!(failed(1).resets_at(&policy), at(days));
        assert_eq!(failed(0).resets_at(&policy), at(0));
    }

    #[test]
    fn delays_never_overflow() {
        let policy = PurposePolicy {
            max_attempts: 1,
            failure_limit: u32::MAX,
            ..PurposePolicy::default()
        };
        let block = failed(u32::MAX - 1).lockout_at(&policy, at(0)).unwrap();
        assert_eq!(block.until, at(3_600));
    }
}
