//! Rule 5: failed attempts are counted across codes, and delay the next ones.

use std::time::Duration;

use super::{PurposePolicy, Timestamp, policy::MAX_FAILURE_DELAY};

/// Consecutive failed attempts of one record, across its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureCounter {
    /// Number of failed attempts.
    pub count: u32,
    /// Time of the last one; meaningless if there are none.
    pub last_at: Timestamp,
}

/// Period in which attempts are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// End of the period.
    pub until: Timestamp,
    /// Time until the end.
    pub wait: Duration,
    /// True if the record is locked by too many failed attempts, so that only a reset
    /// ends it earlier.
    pub locked: bool,
}

impl FailureCounter {
    /// No failed attempts.
    pub const NONE: Self = Self {
        count: 0,
        last_at: Timestamp::from_milliseconds(0),
    };

    /// Adds a failed attempt at `now`.
    #[must_use]
    pub fn record_failure(self, policy: &PurposePolicy, now: Timestamp) -> Self {
        Self {
            count: self.count_at(policy, now).saturating_add(1),
            last_at: now,
        }
    }

    /// Returns the number of failed attempts that still count: none if `failure_memory`
    /// has passed since the last one.
    pub fn count_at(self, policy: &PurposePolicy, now: Timestamp) -> u32 {
        if now < self.resets_at(policy) {
            self.count
        } else {
            0
        }
    }

    /// Returns the time at which they cease to count.
    pub fn resets_at(self, policy: &PurposePolicy) -> Timestamp {
        match self.count {
            0 => self.last_at,
            _ => self.last_at.saturating_add(policy.failure_memory),
        }
    }

    /// Returns the lockout that is in force `now`. From `failure_limit` failed attempts
    /// on the record is locked. Before that, attempts are delayed after every
    /// `max_attempts` failed ones, twice as long each time.
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
    fn delay_doubles_after_every_fifth_failed_attempt() {
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
    fn record_is_locked_for_30_days_after_100_failed_attempts() {
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
    fn lockouts_never_overflow() {
        let policy = PurposePolicy {
            max_attempts: 1,
            failure_limit: u32::MAX,
            ..PurposePolicy::default()
        };
        let block = failed(u32::MAX - 1).lockout_at(&policy, at(0)).unwrap();
        assert_eq!(block.until, at(3_600));
    }
}
