//! International numbers that were found valid lately. A code is verified soon after it was sent,
//! so most numbers arrive twice, and matching the patterns of a number takes several
//! microseconds.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// Number of slots, a power of two. They take 64 KiB.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 13;
/// Odd multiplier that spreads successive numbers over the slots: 2⁶⁴ divided by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Digits of a number in E.164, which do not begin with zero. So each number is one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InternationalNumber(u64);

impl InternationalNumber {
    /// Parses `+` and 1 to 15 digits, in the only form that has no blanks and punctuation.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        let is_number = (1..=super::MAX_PHONE_DIGITS).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_number.then(|| digits.parse().map(Self).ok())?
    }

    fn slot(self) -> usize {
        usize::try_from(self.0.wrapping_mul(SPREAD) >> (u64::BITS - SLOT_BITS)).unwrap_or_default()
    }
}

/// Numbers that were found valid lately, each until another one takes its slot.
pub(super) static KNOWN_NUMBERS: LazyLock<KnownNumbers> = LazyLock::new(KnownNumbers::default);

/// Set of numbers that forgets.
#[derive(Debug)]
pub(super) struct KnownNumbers(Box<[AtomicU64]>);

impl Default for KnownNumbers {
    fn default() -> Self {
        // No number is zero.
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl KnownNumbers {
    /// Returns true if the number was inserted. It may have been forgotten.
    pub fn contains(&self, number: InternationalNumber) -> bool {
        self.0[number.slot()].load(Ordering::Relaxed) == number.0
    }

    /// Adds a number.
    pub fn insert(&self, number: InternationalNumber) {
        self.0[number.slot()].store(number.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> InternationalNumber {
        InternationalNumber::parse(text).unwrap()
    }

    #[test]
    fn only_plus_and_digits_are_an_international_number() {
        assert_eq!(number("+79991234567").0, 79_991_234_567);
        assert_eq!(number("+999999999999999").0, 999_999_999_999_999);
        for text in [
            "",
            "+",
            "+0",
            "+07",
            "79991234567",
            "+7 999",
            "+7999a",
            "++7",
            "+٧",
            "\u{FF0B}7",
            "+1234567890123456",
            " +7",
            "+7 ",
        ] {
            assert_eq!(InternationalNumber::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn set_contains_only_inserted_numbers() {
        let known = KnownNumbers::default();
        let first = 79_990_000_000;
        for number in (first..first + 1_000).map(InternationalNumber) {
            assert!(!known.contains(number));
            known.insert(number);
            assert!(known.contains(number));
        }
        // A number that shares the slot of another one replaces it.
        let taken = InternationalNumber(first);
        let other = (first + 1_000..).map(InternationalNumber);
        let other = other.into_iter().find(|other| other.slot() == taken.slot());
        let other = other.unwrap();
        known.insert(taken);
        assert!(!known.contains(other));
        known.insert(other);
        assert!(known.contains(other) && !known.contains(taken));
        let left =
            (first..first + 1_000).filter(|number| known.contains(InternationalNumber(*number)));
        assert!(left.count() > 900);
    }
}
