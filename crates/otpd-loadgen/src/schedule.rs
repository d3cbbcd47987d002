//! Schedule of pairs that arrive at a rate, without waiting for each other.

use std::time::Duration;

/// Pair that is to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledPair {
    /// Start, after the begin of the run.
    pub planned: Duration,
    /// True if it counts.
    pub counted: bool,
}

/// Schedule of evenly spaced pairs, independent of the responses.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalSchedule {
    /// Pairs per second, after the ramp.
    pub rate: f64,
    /// Time in which the rate grows evenly from zero.
    pub ramp: Duration,
    /// Time after the ramp in which pairs do not count.
    pub warm_up: Duration,
    /// Time after that in which pairs count; `None` is unlimited.
    pub duration: Option<Duration>,
    /// Maximum number of pairs that count.
    pub pairs: Option<u64>,
}

impl ArrivalSchedule {
    /// Returns all pairs, one after the other.
    pub fn arrivals(self) -> impl Iterator<Item = ScheduledPair> {
        let counted_from = self.ramp + self.warm_up;
        let counted_until = self.duration.map(|duration| counted_from + duration);
        let mut left = self.pairs;
        (0..)
            .map(move |number| self.planned(number))
            .take_while(move |&planned| counted_until.is_none_or(|end| planned < end))
            .map(move |planned| ScheduledPair {
                planned,
                counted: planned >= counted_from,
            })
            .take_while(move |arrival| match &mut left {
                Some(left) if arrival.counted => {
                    left.checked_sub(1).inspect(|less| *left = *less).is_some()
                }
                _ => true,
            })
    }

    /// Returns the arrival of the pair of that number. In the ramp the rate is
    /// `rate·t/ramp`, so that `rate·t²/(2·ramp)` pairs have arrived after `t`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run has fewer than 2^53 pairs"
    )]
    fn planned(&self, number: u64) -> Duration {
        let number = number as f64;
        let ramp = self.ramp.as_secs_f64();
        let in_ramp = self.rate * ramp / 2.0;
        let seconds = if number < in_ramp {
            (2.0 * ramp * number / self.rate).sqrt()
        } else {
            ramp + (number - in_ramp) / self.rate
        };
        // At a rate near zero the second pair is later than any representable time.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a schedule of 100 pairs per second for ten seconds.
    pub fn schedule() -> ArrivalSchedule {
        ArrivalSchedule {
            rate: 100.0,
            ramp: Duration::ZERO,
            warm_up: Duration::ZERO,
            duration: Some(10 * SECOND),
            pairs: None,
        }
    }

    #[test]
    fn arrivals_are_evenly_spaced() {
        let arrivals: Vec<ScheduledPair> = schedule().arrivals().collect();
        assert_eq!(arrivals.len(), 1_000);
        for (number, arrival) in (0..).zip(&arrivals) {
            assert_eq!(arrival.planned.as_micros(), number * 10_000);
            assert!(arrival.counted);
        }
    }

    #[test]
    fn arrivals_during_ramp_and_warm_up_are_not_measured() {
        let schedule = ArrivalSchedule {
            ramp: 4 * SECOND,
            warm_up: 2 * SECOND,
            ..schedule()
        };
        let (counted, not_counted): (Vec<_>, Vec<_>) =
            schedule.arrivals().partition(|arrival| arrival.counted);
        assert_eq!(counted.len(), 1_000);
        // Half of the full rate during the ramp, then the full rate.
        assert_eq!(not_counted.len(), 200 + 200);
        assert_eq!(counted[0].planned, 6 * SECOND);
        assert!(counted[999].planned < 16 * SECOND);
    }

    #[test]
    fn rate_grows_linearly_during_ramp() {
        let schedule = ArrivalSchedule {
            ramp: 10 * SECOND,
            ..schedule()
        };
        let mut each_second = [0; 12];
        for arrival in schedule.arrivals() {
            let second = usize::try_from(arrival.planned.as_secs()).unwrap();
            if let Some(count) = each_second.get_mut(second) {
                *count += 1;
            }
        }
        for (second, &count) in (0_i32..).zip(&each_second) {
            let expected = if second < 10 { 5 + 10 * second } else { 100 };
            assert!((count - expected).abs() <= 1, "{each_second:?}");
        }
    }

    #[test]
    fn arrivals_stop_after_the_requested_pairs() {
        let schedule = ArrivalSchedule {
            warm_up: SECOND,
            duration: None,
            pairs: Some(7),
            ..schedule()
        };
        let arrivals: Vec<ScheduledPair> = schedule.arrivals().collect();
        assert_eq!(arrivals.len(), 107);
        assert_eq!(arrivals.iter().filter(|arrival| arrival.counted).count(), 7);
    }

    #[test]
    fn tiny_rate_is_accepted() {
        let schedule = ArrivalSchedule {
            rate: f64::MIN_POSITIVE,
            ..schedule()
        };
        assert_eq!(schedule.arrivals().count(), 1);
    }
}
