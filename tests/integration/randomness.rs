//! Codes are unbiased: a statistical test over a million codes of four digits, and
//! proof that it would catch generators that are not.
//!
//! What is counted (a *family* is a set of cells whose counts are one multinomial
//! draw with equal probabilities, if codes are independent and uniform):
//! - each of the 10,000 values: 1 family of 10⁶ draws;
//! - the digit at each position: 4 families of 10⁶ draws;
//! - each digit of a code with each of its neighbour's: 16 families of 100 cells,
//!   once for the pairs (0, 1), (2, 3), … and once for (1, 2), (3, 4), …: pairs that
//!   share a code would not be independent. 32 families of about 500,000 draws;
//! - codes that repeat their predecessor: a binomial count, one cell.
//!
//! The false-alarm rate: each family has a bound on every single count and a bound
//! on its χ², each with a false-alarm probability of at most [`BUDGET`] = 10⁻¹¹, and
//! the repetitions have theirs. By the union bound (Bonferroni) all of them together
//! sound with a probability of at most (2 × 37 + 1) × 10⁻¹¹ = 7.5 × 10⁻¹⁰ < 10⁻⁹.
//! Neither bound rests on an approximation; see [`tail_exponent`] and
//! [`largest_plausible`].

use otpd::keys::os_rng;
use otpd_rules::OtpCode;

const CODES: usize = 1_000_000;
const VALUES: usize = 10_000;
const POSITIONS: usize = 4;
/// The false-alarm probability of one bound.
const BUDGET: f64 = 1e-11;

#[test]
fn million_codes_are_unbiased() {
    let mut random = os_rng();
    let codes = draw(|| {
        let code = OtpCode::generate(4, &mut random);
        assert_eq!(code.length(), 4);
        code.expose().parse().expect("a code has only digits")
    });
    assert_eq!(alarms(&codes), Vec::<String>::new());
}

/// Also that the bounds are none that sound always.
#[test]
fn independent_sound_generator_passes() {
    let mut random = SplitMix(1);
    let codes = draw(|| random.below(10_000));
    assert_eq!(alarms(&codes), Vec::<String>::new());
}

#[test]
fn modulo_bias_is_detected() {
    // 256 = 25 × 10 + 6: the digits 0 to 5 come 4 % more often than the others.
    let mut random = SplitMix(2);
    let codes = draw(|| {
        let [a, b, c, d, ..] = random.next().to_le_bytes();
        [a, b, c, d]
            .iter()
            .fold(0, |code, byte| code * 10 + u16::from(byte % 10))
    });
    assert_caught(&codes, &["χ² of the values", "χ² of position 0"]);
}

#[test]
fn missing_last_value_is_detected() {
    let mut random = SplitMix(3);
    let codes = draw(|| random.below(9_999));
    assert_caught(&codes, &["0 times cell 9999 of the values"]);
}

#[test]
fn counter_is_detected() {
    // Like the low digits of a clock that is read every few ticks: each single
    // value comes equally often.
    let mut random = SplitMix(4);
    let mut ticks: u64 = 0;
    let codes = draw(|| {
        ticks += 1 + random.next() % 5;
        low_digits(ticks)
    });
    assert_caught(&codes, &["χ² of positions 0 and 0"]);
    let mut ticks: u64 = 0;
    let codes = draw(|| {
        ticks += 1;
        low_digits(ticks)
    });
    assert_caught(&codes, &["χ² of positions 3 and 3"]);
}

#[test]
fn repeated_codes_are_detected() {
    let mut random = SplitMix(5);
    let mut last = 0;
    let codes = draw(|| {
        if random.below(100) > 0 {
            last = random.below(10_000);
        }
        last
    });
    assert_caught(&codes, &["codes repeat", "χ² of positions 2 and 2"]);
}

fn draw(generator: impl FnMut() -> u16) -> Vec<u16> {
    std::iter::repeat_with(generator).take(CODES).collect()
}

fn low_digits(ticks: u64) -> u16 {
    u16::try_from(ticks % 10_000).expect("four digits fit")
}

fn assert_caught(codes: &[u16], expected: &[&str]) {
    let alarms = alarms(codes);
    for expected in expected {
        assert!(
            alarms.iter().any(|alarm| alarm.contains(expected)),
            "no alarm says {expected:?}: {alarms:#?}"
        );
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the seeded generators are wrong in the
/// same way on each run.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`; its bias of 2⁻⁵⁰ is far below the sensitivity of the test.
    fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.next() % u64::from(bound)).expect("it is below a u16")
    }
}

/// Returns the statistical anomalies of these codes.
fn alarms(codes: &[u16]) -> Vec<String> {
    let mut alarms = Vec::new();
    let values = codes.iter().map(|&code| usize::from(code));
    check("the values", VALUES, values, &mut alarms);
    for position in 0..POSITIONS {
        let digits = codes.iter().map(|&code| digit(code, position));
        check(&format!("position {position}"), 10, digits, &mut alarms);
    }
    for first in 0..POSITIONS {
        for second in 0..POSITIONS {
            for skipped in 0..2 {
                let pairs = codes[skipped..]
                    .chunks_exact(2)
                    .map(|pair| digit(pair[0], first) * 10 + digit(pair[1], second));
                let name = format!("positions {first} and {second} of neighbours");
                check(&name, 100, pairs, &mut alarms);
            }
        }
    }
    // Each code equals its predecessor with the same probability, independently of the earlier
    // ones: a binomial count.
    let repeated = codes.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let expected = float(codes.len() - 1) / float(VALUES);
    if tail_exponent(repeated, expected) > (2.0 / BUDGET).ln() {
        alarms.push(format!("{repeated} codes repeat their predecessor"));
    }
    alarms
}

fn digit(code: u16, position: usize) -> usize {
    let position = u32::try_from(position).expect("there are four");
    usize::from(code / 10_u16.pow(3 - position) % 10)
}

/// Checks one family of `cells`: each count, and their χ².
fn check(name: &str, cells: usize, draws: impl Iterator<Item = usize>, alarms: &mut Vec<String>) {
    let mut counts = vec![0_usize; cells];
    for cell in draws {
        counts[cell] += 1;
    }
    let total = counts.iter().sum();
    let expected = float(total) / float(cells);
    let largest_exponent = (2.0 * float(cells) / BUDGET).ln();
    for (cell, &count) in counts.iter().enumerate() {
        if tail_exponent(count, expected) > largest_exponent {
            alarms.push(format!(
                "{count} times cell {cell} of {name}, not {expected}"
            ));
        }
    }
    let chi_square: f64 = counts.iter().map(|&count| distance(count, expected)).sum();
    let largest = largest_plausible(cells, total, largest_exponent);
    if chi_square > largest {
        alarms.push(format!(
            "χ² of {name} is {chi_square:.0}, above {largest:.0}"
        ));
    }
}

/// Returns the contribution of one count to χ².
fn distance(count: usize, expected: f64) -> f64 {
    (float(count) - expected).powi(2) / expected
}

/// Chernoff's bound: a binomial (or Poisson) count of mean λ is as large as `count`
/// (or, below λ, as small) with a probability of at most e⁻ˣ, where x, returned, is
/// λ − c + c ln(c / λ). With both sides of n cells, x > ln(2n / p) happens with a
/// probability of at most p.
fn tail_exponent(count: usize, expected: f64) -> f64 {
    let count = float(count);
    if count == 0.0 {
        return expected;
    }
    expected - count + count * (count / expected).ln()
}

/// What χ² over `cells` counts that sum to `total` exceeds with a probability of at
/// most [`BUDGET`], while no count has an exponent above `largest_exponent`.
///
/// The counts are distributed as independent Poisson variables C of mean λ = total /
/// cells, given that these sum to the total. So whatever happens with probability q
/// to the variables happens to the counts with at most q / P(Poisson(total) = total).
/// For the variables, by Markov's inequality, for each t > 0:
/// P(χ² ≥ T, all within their bounds) ≤ e⁻ᵗᵀ E[exp(t (C − λ)² / λ); C within]ᶜᵉˡˡˢ.
/// The expectation is summed up term by term, the whole is set equal to the budget
/// and solved for T; the best of some t is taken, each of which is valid.
fn largest_plausible(cells: usize, total: usize, largest_exponent: f64) -> f64 {
    let expected = float(total) / float(cells);
    let within: Vec<(f64, f64)> = {
        let mut log_factorial = 0.0;
        // Of means this large the plausible counts end far below twice the mean.
        (1..=2 * total / cells)
            .filter_map(|count| {
                log_factorial += float(count).ln();
                let log_probability = float(count) * expected.ln() - expected - log_factorial;
                (tail_exponent(count, expected) <= largest_exponent)
                    .then(|| (log_probability, distance(count, expected)))
            })
            .collect()
    };
    assert!(tail_exponent(0, expected) > largest_exponent);
    assert!(tail_exponent(2 * total / cells, expected) > largest_exponent);
    // By Stirling's formula, too large by a factor of at most e^(1 / (12 total)): far
    // less than what is taken off.
    let log_total_hit = -0.5 * (std::f64::consts::TAU * float(total)).ln() - 0.01;
    (1..50)
        .map(|step| {
            let t = f64::from(step) * 0.01;
            let mean: f64 = within
                .iter()
                .map(|&(log_probability, distance)| (log_probability + t * distance).exp())
                .sum();
            (float(cells) * mean.ln() - BUDGET.ln() - log_total_hit) / t
        })
        .fold(f64::INFINITY, f64::min)
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("no count here exceeds a million"))
}
