//! Rule 6: rate limits, by the generic cell rate algorithm (GCRA).
//!
//! The whole state of a limit is one instant: the time at which its burst is full again.
//! (ATM Forum, Traffic Management 4.0, calls it the theoretical arrival time, TAT.) So a
//! limit that was never used, or not for long, needs no state at all.

use std::time::Duration;

use super::Timestamp;

/// Number of cells per period. They are available at once, and then refilled evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Time to refill one cell, in whole milliseconds, rounded up: rounded down, more
    /// than `count` would fit into a period.
    interval: Duration,
    count: u32,
}

impl Quota {
    /// Returns a quota of `count` cells in each `period`; `None` for a limit that is off,
    /// written as 0.
    pub fn new(count: u32, period: Duration) -> Option<Self> {
        if count == 0 {
            return None;
        }
        let interval = period.as_millis().div_ceil(u128::from(count));
        let interval = Duration::from_millis(u64::try_from(interval).unwrap_or(u64::MAX));
        Some(Self { interval, count })
    }

    /// Returns the emission interval: the time in which one cell is refilled.
    pub fn interval(self) -> Duration {
        self.interval
    }

    /// Returns the time to refill all cells.
    pub fn burst(self) -> Duration {
        self.interval.saturating_mul(self.count)
    }

    /// Consumes one cell of a limit that will be `full_at` again, and returns the time at
    /// which it is full again after that.
    ///
    /// # Errors
    /// Time until a cell is available, if there is none.
    pub fn consume(
        self,
        full_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Timestamp, Duration> {
        let latest = now.saturating_add(self.burst());
        // It is further ahead than a whole burst only if the clock stepped back.
        let full_at = full_at.unwrap_or(now).clamp(now, latest);
        let next = full_at.saturating_add(self.interval);
        if next <= latest {
            Ok(next)
        } else {
            Err(latest.duration_until(next))
        }
    }

    /// Returns the state to which a limit is clamped if the clock stepped back and left
    /// it further ahead than a whole burst. So its wait starts once, not again at each
    /// request. `None` if it is within a burst.
    pub fn clamp_after_rollback(self, full_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let latest = now.saturating_add(self.burst());
        (latest < full_at).then_some(latest)
    }

    /// Returns the part of a consumed cell that can be refunded at `now`. The limit was
    /// `full_at` after it was consumed; the part before `now` has been refilled.
    pub fn refund(self, full_at: Timestamp, now: Timestamp) -> Duration {
        now.duration_until(full_at).min(self.interval)
    }
}

/// Kind of a rate limit, named after its key in a
/// [`PurposePolicy`](super::PurposePolicy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateLimitKind {
    /// Sends per record and hour.
    SendsPerHour,
    /// Sends per record and day.
    SendsPerDay,
    /// Sends per client IP and hour.
    IpSendsPerHour,
    /// Failed attempts per client IP and hour.
    IpFailuresPerHour,
    /// Sends per site of a client with IPv6 and hour.
    IpSiteSendsPerHour,
    /// Failed attempts per site of a client with IPv6 and hour.
    IpSiteFailuresPerHour,
    /// Sends per dialling prefix and day.
    PrefixSendsPerDay,
    /// Sends per caller and day.
    CallerSendsPerDay,
}

impl RateLimitKind {
    /// Returns the configuration key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::SendsPerHour => "sends_per_hour",
            Self::SendsPerDay => "sends_per_day",
            Self::IpSendsPerHour => "ip_sends_per_hour",
            Self::IpFailuresPerHour => "ip_failures_per_hour",
            Self::IpSiteSendsPerHour => "ip_site_sends_per_hour",
            Self::IpSiteFailuresPerHour => "ip_site_failures_per_hour",
            Self::PrefixSendsPerDay => "prefix_sends_per_day",
            Self::CallerSendsPerDay => "caller_sends_per_day",
        }
    }
}

/// State of a limit that records share.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitState {
    /// Kind of the limit.
    pub name: RateLimitKind,
    /// Quota of the limit.
    pub rate: Quota,
    /// Time at which it is full again; `None` if it is full.
    pub full_at: Option<Timestamp>,
    /// True if this request has consumed a cell already, in an earlier try whose record
    /// was written by another request first.
    pub paid: bool,
}

/// Refusal by a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Exceeded limit; of several the one with the longest wait.
    pub limit: RateLimitKind,
    /// Time until a cell is available.
    pub wait: Duration,
}

/// New states of shared limits, in their order; `None` leaves one unchanged.
pub type TatUpdates = Vec<Option<Timestamp>>;

impl RateLimitState {
    fn take(&self, now: Timestamp) -> Result<Option<Timestamp>, RateLimited> {
        if self.paid {
            return Ok(None);
        }
        let taken = self.rate.consume(self.full_at, now).map(Some);
        taken.map_err(|wait| RateLimited {
            limit: self.name,
            wait,
        })
    }
}

/// Consumes one cell of each limit, or none at all.
///
/// # Errors
/// The exceeded limit with the longest wait.
pub fn consume_all(limits: &[RateLimitState], now: Timestamp) -> Result<TatUpdates, RateLimited> {
    let taken: Vec<_> = limits.iter().map(|limit| limit.take(now)).collect();
    let longest = taken
        .iter()
        .filter_map(|taken| taken.err())
        .max_by_key(|exceeded| exceeded.wait);
    longest.map_or_else(|| Ok(taken.into_iter().flatten().collect()), Err)
}

/// Returns the effect of a refused request on limits: none, unless the clock stepped
/// back.
pub fn clamp_all(limits: &[RateLimitState], now: Timestamp) -> TatUpdates {
    limits
        .iter()
        .map(|limit| limit.rate.clamp_after_rollback(limit.full_at?, now))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PurposePolicy;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(milliseconds)
    }

    #[test]
    fn burst_is_available_at_once_and_refilled_evenly() {
        let rate = Quota::new(5, HOUR).unwrap();
        let mut full_at = None;
        for _ in 0..5 {
            full_at = Some(rate.consume(full_at, at(0)).unwrap());
        }
        assert_eq!(full_at, Some(at(3_600_000)));
        assert_eq!(rate.consume(full_at, at(0)), Err(Duration::from_mins(12)));
        assert_eq!(
            rate.consume(full_at, at(1)),
            Err(Duration::from_millis(719_999))
        );
        assert!(rate.consume(full_at, at(720_000)).is_ok());
    }

    #[test]
    fn zero_disables_a_limit() {
        assert_eq!(Quota::new(0, HOUR), None);
    }

    #[test]
    fn refund_of_an_unused_cell_makes_it_available_again() {
        let rate = Quota::new(1, HOUR).unwrap();
        let taken = rate.consume(None, at(0)).unwrap();
        assert!(rate.consume(Some(taken), at(0)).is_err());
        assert_eq!(rate.refund(taken, at(0)), HOUR);
        assert_eq!(
            rate.consume(Some(taken.saturating_sub(HOUR)), at(0)),
            Ok(taken)
        );
    }

    #[test]
    fn refund_excludes_cells_refilled_meanwhile() {
        let rate = Quota::new(2, HOUR).unwrap();
        let taken = rate.consume(None, at(0)).unwrap();
        assert_eq!(taken, at(1_800_000));
        assert_eq!(rate.refund(taken, at(1_000_000)), Duration::from_secs(800));
        assert_eq!(rate.refund(taken, at(1_800_000)), Duration::ZERO);
        // Another cell was consumed before it: the limit was in use all the time.
        let second = rate.consume(Some(taken), at(0)).unwrap();
        assert_eq!(rate.refund(second, at(1_000_000)), rate.interval());
    }

    #[test]
    fn clock_rollback_clamps_limit_to_one_burst() {
        let rate = Quota::new(3, HOUR).unwrap();
        let full = at(3_600_000);
        assert_eq!(rate.clamp_after_rollback(full, at(0)), None);
        assert_eq!(rate.clamp_after_rollback(full, at(-1)), Some(at(3_599_999)));
        let limit = |full_at| RateLimitState {
            name: RateLimitKind::IpSendsPerHour,
            rate,
            full_at,
            paid: false,
        };
        let limits = [limit(None), limit(Some(full))];
        assert_eq!(clamp_all(&limits, at(0)), [None, None]);
        assert_eq!(clamp_all(&limits, at(-1)), [None, Some(at(3_599_999))]);
    }

    #[test]
    fn limit_kind_is_named_after_its_key() {
        let policy = format!("{:?}", PurposePolicy::default());
        for (name, key) in [
            (RateLimitKind::SendsPerHour, "sends_per_hour"),
            (RateLimitKind::SendsPerDay, "sends_per_day"),
            (RateLimitKind::IpSendsPerHour, "ip_sends_per_hour"),
            (RateLimitKind::IpFailuresPerHour, "ip_failures_per_hour"),
            (RateLimitKind::IpSiteSendsPerHour, "ip_site_sends_per_hour"),
            (
                RateLimitKind::IpSiteFailuresPerHour,
                "ip_site_failures_per_hour",
            ),
            (RateLimitKind::PrefixSendsPerDay, "prefix_sends_per_day"),
            (RateLimitKind::CallerSendsPerDay, "caller_sends_per_day"),
        ] {
            assert_eq!(name.key(), key);
            assert!(policy.contains(&format!(" {key}: ")), "{key}");
        }
    }

    proptest! {
        /// Within any window no more is granted than the burst and the refill, and a
        /// request after the returned wait is granted.
        #[test]
        fn limit_is_never_exceeded_and_waits_are_exact(
            count in 1_u32..20,
            period in 1_u64..100_000,
            steps in prop::collection::vec(0_i64..20_000, 1..200),
        ) {
            let rate = Quota::new(count, Duration::from_millis(period)).unwrap();
            let (mut now, mut full_at, mut taken) = (0, None, Vec::new());
            for step in steps {
                now += step;
                match rate.consume(full_at, at(now)) {
                    Ok(next) => {
                        full_at = Some(next);
                        taken.push(now);
                    }
                    Err(wait) => {
                        let wait = i64::try_from(wait.as_millis()).unwrap();
                        prop_assert!(rate.consume(full_at, at(now + wait)).is_ok());
                        prop_assert!(rate.consume(full_at, at(now + wait - 1)).is_err());
                    }
                }
            }
            let interval = rate.interval.as_millis();
            for (first, &start) in taken.iter().enumerate() {
                for (last, &end) in taken.iter().enumerate().skip(first) {
                    let refilled = u128::from((end - start).unsigned_abs()) / interval;
                    let allowed = u128::from(count) + refilled;
                    prop_assert!((last - first + 1) as u128 <= allowed);
                }
            }
        }

        #[test]
        fn clock_rollback_delays_by_at_most_one_burst(back in 0_i64..10_000_000) {
            let rate = Quota::new(3, HOUR).unwrap();
            let full_at = rate.consume(None, at(back)).unwrap();
            if let Err(wait) = rate.consume(Some(full_at), at(0)) {
                prop_assert!(wait <= rate.burst());
            }
        }
    }
}
