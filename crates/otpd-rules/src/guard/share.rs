//! Shares and probabilities in integers.

use std::fmt;

/// Share or probability between 0 and 1, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;
    /// The whole.
    pub const ONE: Self = Self(Self::WHOLE);

    /// Returns `millionths`, at most [`ONE`](Self::ONE).
    pub const fn from_millionths(millionths: u32) -> Self {
        if millionths < Self::WHOLE {
            Self(millionths)
        } else {
            Self::ONE
        }
    }

    /// Returns the share in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Returns the share of this share, rounded down.
    #[must_use]
    pub fn of(self, share: Self) -> Self {
        Self::ratio(
            u64::from(self.0) * u64::from(share.0),
            u64::from(Self::WHOLE) * u64::from(Self::WHOLE),
        )
    }

    /// Returns `part` of `whole`, rounded down; one if `part` is not smaller.
    pub fn ratio(part: u64, whole: u64) -> Self {
        if part >= whole {
            return Self::ONE;
        }
        let millionths = u128::from(part) * u128::from(Self::WHOLE) / u128::from(whole);
        Self(u32::try_from(millionths).unwrap_or(Self::WHOLE))
    }

    /// Returns this share of `count`, rounded to the nearest integer.
    pub fn times(self, count: u64) -> u64 {
        let whole = u128::from(Self::WHOLE);
        let product = (u128::from(count) * u128::from(self.0) + whole / 2) / whole;
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}

/// Writes a percentage.
impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / 10_000;
        match self.0 % 10_000 {
            0 => write!(formatter, "{whole} %"),
            rest => {
                let digits = format!("{rest:04}");
                write!(formatter, "{whole}.{} %", digits.trim_end_matches('0'))
            }
        }
    }
}

/// Returns the probability that a rate is below `bound`, given that its distribution is
/// Beta(`successes`, `failures`), rounded down. Both parameters are at least 1.
///
/// For integers this is a tail of the binomial distribution: I_x(a, b) = P(Bin(a+b−1, x) ≥ a)
/// (DLMF 8.17.5). Its terms are computed from the largest one outwards, as integers relative
/// to it; terms below 2⁻⁴⁸ of the largest are left out. The number of terms grows with the
/// square root of the counts.
pub fn probability_below(bound: Share, successes: u64, failures: u64) -> Share {
    let success = u128::from(bound.0);
    let failure = u128::from(Share::WHOLE - bound.0);
    let needed = successes.max(1);
    let trials = needed + failures.max(1) - 1;
    if failure == 0 {
        return Share::ONE;
    }
    let mode = u64::try_from((u128::from(trials) + 1) * success / u128::from(Share::WHOLE))
        .map_or(trials, |mode| mode.min(trials));
    let largest = 1_u128 << 48;
    let (mut enough, mut total) = (0, 0);
    let mut add = |count: u64, term: u128| {
        total += term;
        if count >= needed {
            enough += term;
        }
    };
    // P(k+1) = P(k) · (n−k)/(k+1) · p/(1−p)
    let mut term = largest;
    for count in mode..=trials {
        add(count, term);
        term = term * u128::from(trials - count) * success / (u128::from(count + 1) * failure);
        if term == 0 {
            break;
        }
    }
    let mut term = largest;
    for count in (1..=mode).rev() {
        term = term * u128::from(count) * failure / (u128::from(trials - count + 1) * success);
        if term == 0 {
            break;
        }
        add(count - 1, term);
    }
    let millionths = enough * u128::from(Share::WHOLE) / total;
    u32::try_from(millionths).map_or(Share::ONE, Share::from_millionths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probability_matches_values_of_the_incomplete_beta_function() {
        // scipy.stats.beta.cdf(x, a, b), in millionths.
        for (bound, successes, failures, expected) in [
            (500_000, 1, 1, 500_000),
            (300_000, 1, 1, 300_000),
            (250_000, 1, 3, 578_125),
            (325_000, 2, 17, 991_820),
            (300_000, 30, 70, 511_625),
        ] {
            let found = probability_below(Share(bound), successes, failures).millionths();
            assert!(
                found.abs_diff(expected) <= 1,
                "I_{bound}({successes}, {failures}) = {found}, not {expected}"
            );
        }
    }

    #[test]
    fn bounds_of_zero_and_one_are_certain() {
        assert_eq!(probability_below(Share(0), 3, 9), Share(0));
        assert_eq!(probability_below(Share::ONE, 3, 9), Share::ONE);
    }

    #[test]
    fn large_counts_do_not_overflow() {
        let bound = Share(350_000);
        assert_eq!(probability_below(bound, 10_000, 990_000), Share::ONE);
        assert_eq!(probability_below(bound, 400_000, 600_000), Share(0));
    }

    #[test]
    fn shares_are_written_as_percentages() {
        for (millionths, text) in [
            (0, "0 %"),
            (999_000, "99.9 %"),
            (5_000, "0.5 %"),
            (650_000, "65 %"),
            (2_000_000, "100 %"),
        ] {
            assert_eq!(Share::from_millionths(millionths).to_string(), text);
        }
        assert_eq!(Share::ratio(1, 3), Share(333_333));
        assert_eq!(Share::ratio(0, 0), Share::ONE);
        assert_eq!(Share(500_000).of(Share(500_000)), Share(250_000));
        assert_eq!(Share(333_333).times(3), 1);
    }
}
