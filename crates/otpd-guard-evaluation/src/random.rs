//! Random numbers that are the same on every machine, also in the last bit.

/// Generator by Steele, Lea and Flood (SplitMix64).
#[derive(Clone, Debug)]
pub struct RandomSource(u64);

impl RandomSource {
    /// Returns the generator of a seed and a purpose, so that one part of a simulation does not
    /// change the numbers of another one.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose << 40);
        random.bits();
        random
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u32) -> u32 {
        let product = u128::from(self.bits()) * u128::from(bound);
        u32::try_from(product >> 64).unwrap_or_default()
    }

    /// Returns true in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// Returns an exponentially distributed duration with that mean, in milliseconds.
    pub fn exponential(&mut self, mean: f64) -> i64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits are the precision of the result"
        )]
        let uniform = ((self.bits() >> 11) as f64 + 1.0) / 9_007_199_254_740_993.0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 40 means, which are hours at most"
        )]
        let milliseconds = (-logarithm(uniform) * mean) as i64;
        milliseconds
    }
}

/// Returns the natural logarithm of a number in (0, 1]. The one of the C library differs in the
/// last bit between systems.
fn logarithm(mut number: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    let mut halvings = 0.0;
    while number < 0.75 {
        number *= 2.0;
        halvings += 1.0;
    }
    // ln x = 2 artanh((x−1)/(x+1))
    let ratio = (number - 1.0) / (number + 1.0);
    let square = ratio * ratio;
    let (mut sum, mut power) = (0.0, ratio);
    for index in 0..12 {
        sum += power / f64::from(2 * index + 1);
        power *= square;
    }
    2.0 * sum - halvings * LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_that_of_the_library() {
        for number in [1.0, 0.9, 0.5, 0.3, 1e-3, 1e-15] {
            let difference: f64 = logarithm(number) - f64::ln(number);
            assert!(difference.abs() < 1e-12, "{number}: {difference}");
        }
    }

    #[test]
    fn exponential_durations_have_their_mean() {
        let mut random = RandomSource::new(1, 1);
        let sum: i64 = (0..10_000).map(|_| random.exponential(5_000.0)).sum();
        assert!((48_000_000..52_000_000).contains(&sum), "{sum}");
    }
}
