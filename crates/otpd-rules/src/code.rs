//! Generation and parsing of codes.

use std::fmt;

use rand::Rng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::is_ignorable;

/// Maximum length of a submitted code in bytes.
const MAX_TYPED_BYTES: usize = 128;

/// One-time password of 4 to 10 decimal digits. Shown masked; the digits are overwritten
/// when it is dropped.
#[derive(Clone)]
pub struct OtpCode(Zeroizing<String>);

impl OtpCode {
    /// Draws a code of `length` digits, every value equally likely.
    ///
    /// `random` must be cryptographically secure. Words above the largest multiple of the
    /// number of codes are rejected, because their remainders would favour the low codes.
    pub fn generate(length: u8, random: &mut impl Rng) -> Self {
        let codes = 10_u64.pow(u32::from(length));
        let fair_words = u64::MAX - u64::MAX % codes;
        let word = loop {
            let word = random.next_u64();
            if word < fair_words {
                break word;
            }
        };
        let width = usize::from(length);
        Self(Zeroizing::new(format!("{:0width$}", word % codes)))
    }

    /// Returns the code of these digits, or `None` unless they are 4 to 10 ASCII digits.
    pub fn from_digits(digits: &str) -> Option<Self> {
        let well_formed =
            (4..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        well_formed.then(|| Self(Zeroizing::new(digits.to_owned())))
    }

    /// Returns the digits. The caller must not let them reach logs or errors.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the number of digits.
    pub fn length(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a code has at most 10 digits")
    }

    /// Returns true if `other` has the same digits, in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }

    /// Returns true if `typed` is this code, in a time that does not depend on the
    /// position of the first difference.
    pub fn matches(&self, typed: &SubmittedCode) -> bool {
        self.0.as_bytes().ct_eq(typed.0.as_bytes()).into()
    }
}

impl fmt::Debug for OtpCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "OtpCode({} digits)", self.0.len())
    }
}

/// Digits that a person submitted. Their number can be checked only against the code.
#[derive(Clone)]
pub struct SubmittedCode(Zeroizing<String>);

/// The submitted text cannot be a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The text has only blanks, hyphens and invisible marks.
    #[error("empty; give the digits of the code")]
    Empty,
    /// The text has characters other than digits, blanks, hyphens and invisible marks.
    #[error("a code has only digits; blanks and hyphens between them are ignored")]
    NotDigits,
    /// The text is longer than any code.
    #[error("far too long; a code has at most 10 digits")]
    TooLong,
    /// The number of digits is not that of the live code; not counted as an attempt.
    #[error("this code has {expected} digits")]
    WrongLength {
        /// Number of digits of the live code.
        expected: u32,
    },
}

impl SubmittedCode {
    /// Parses a typed or pasted code. Blanks, line ends, hyphens and invisible marks are
    /// ignored, and every Unicode decimal digit counts as its value.
    ///
    /// # Errors
    /// [`CodeError`] for anything else, and for more than 128 bytes.
    pub fn parse(typed: &str) -> Result<Self, CodeError> {
        if typed.len() > MAX_TYPED_BYTES {
            return Err(CodeError::TooLong);
        }
        let mut digits = Zeroizing::new(String::with_capacity(typed.len()));
        for character in typed.chars().filter(|&character| !is_separator(character)) {
            let value = decimal_value(character).ok_or(CodeError::NotDigits)?;
            digits.push(char::from(b'0' + value));
        }
        if digits.is_empty() {
            Err(CodeError::Empty)
        } else {
            Ok(Self(digits))
        }
    }

    /// Returns the digits. The caller must not let them reach logs or errors.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the number of digits.
    pub fn length(&self) -> u32 {
        u32::try_from(self.0.len()).expect("at most 128 bytes were typed")
    }
}

impl fmt::Debug for SubmittedCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SubmittedCode({} digits)", self.0.len())
    }
}

/// Returns true for blanks, line ends, hyphens and invisible marks, as keyboards,
/// messengers and copying produce them.
fn is_separator(character: char) -> bool {
    let hyphen = matches!(
        character,
        '-' | '\u{058A}' | '\u{2010}'
            ..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}'
    );
    character.is_whitespace() || is_ignorable(character) || hyphen
}

/// Returns the value of a decimal digit (Unicode general category Nd) of any script.
fn decimal_value(character: char) -> Option<u8> {
    if character.is_ascii_digit() {
        return u8::try_from(character).ok().map(|byte| byte - b'0');
    }
    let code_point = u32::from(character);
    let run = ZEROS
        .partition_point(|&zero| zero <= code_point)
        .checked_sub(1)?;
    u8::try_from(code_point - ZEROS[run])
        .ok()
        .filter(|&value| value < 10)
}

/// Digit zero of each script, ascending: Unicode 17.0, general category Nd, in which the
/// ten digits of every script are consecutive.
const ZEROS: [u32; 77] = [
    0x0030, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6,
    0x0D66, 0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80,
    0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
    0xFF10, 0x104A0, 0x10D30, 0x10D40, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450,
    0x114D0, 0x11650, 0x116C0, 0x116D0, 0x116DA, 0x11730, 0x118E0, 0x11950, 0x11BF0, 0x11C50,
    0x11D50, 0x11DA0, 0x11DE0, 0x11F50, 0x16130, 0x16A60, 0x16AC0, 0x16B50, 0x16D70, 0x1CCF0,
    0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E5F1, 0x1E950,
    0x1FBF0,
];

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rand::TryRng;

    use super::*;

    /// Yields the given words, one after the other.
    struct Words<'a>(&'a [u64]);

    impl TryRng for Words<'_> {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            unimplemented!("a code is drawn from 64-bit words")
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let (first, rest) = self
                .0
                .split_first()
                .expect("the test gives as many words as are drawn");
            self.0 = rest;
            Ok(*first)
        }

        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
            unimplemented!("a code is drawn from 64-bit words")
        }
    }

    fn drawn(length: u8, words: &[u64]) -> String {
        OtpCode::generate(length, &mut Words(words))
            .expose()
            .to_owned()
    }

    #[test]
    fn codes_reach_both_ends_of_the_range() {
        assert_eq!(drawn(6, &[0]), "000000");
        assert_eq!(drawn(6, &[999_999]), "999999");
        assert_eq!(drawn(6, &[1_000_000]), "000000");
        assert_eq!(drawn(4, &[9_999]), "9999");
        assert_eq!(drawn(10, &[9_999_999_999]), "9999999999");
        assert_eq!(drawn(10, &[7]), "0000000007");
    }

    #[test]
    fn biased_random_words_are_rejected_and_redrawn() {
        // 2^64 = 18446744073709 × 10^6 + 551616.
        let first_unfair = 18_446_744_073_709 * 1_000_000;
        assert_eq!(drawn(6, &[first_unfair - 1]), "999999");
        assert_eq!(drawn(6, &[first_unfair, 42]), "000042");
        assert_eq!(drawn(6, &[u64::MAX, u64::MAX, 1]), "000001");
    }

    fn typed(text: &str) -> Result<String, CodeError> {
        SubmittedCode::parse(text).map(|code| code.0.to_string())
    }

    #[test]
    fn blanks_hyphens_and_other_scripts_are_accepted() {
        for text in [
            "123456",
            " 123 456 ",
            "123-456",
            "1\u{a0}2\u{2009}3\u{202f}4\t5 6",
            "123\u{2010}456",
            "123\u{2212}4\u{ff0d}56",
            "１２３４５６",
            "١٢٣٤٥٦",
            "۱۲۳۴۵۶",
            "१२३४५६",
            "𝟏𝟐𝟑𝟒𝟓𝟔",
            "𝟙2𝟛٤５6",
            "\u{200e}123456\u{200f}",
            "\u{61c}123\u{2064}456\u{fe0f}",
            "\u{feff}12\u{200d}34\u{ad}56\r\n",
            "123\n456\n",
            "123\u{2028}456\u{85}",
        ] {
            assert_eq!(typed(text).as_deref(), Ok("123456"), "{text:?}");
        }
        assert_eq!(typed("0000").as_deref(), Ok("0000"));
    }

    #[test]
    fn malformed_code_returns_its_error() {
        for text in ["", "   ", "--"] {
            assert_eq!(typed(text), Err(CodeError::Empty), "{text:?}");
        }
        for text in [
            "12345a",
            "12.34",
            "१२३x",
            "12\0 34",
            "½",
            "Ⅷ",
            "²",
            "12\u{7}34",
            "一二三四",
        ] {
            assert_eq!(typed(text), Err(CodeError::NotDigits), "{text:?}");
        }
        assert_eq!(typed(&"1".repeat(129)), Err(CodeError::TooLong));
        assert_eq!(typed(&"1".repeat(128)).map(|digits| digits.len()), Ok(128));
    }

    #[test]
    fn every_unicode_decimal_digit_is_accepted() {
        for zero in ZEROS {
            for value in 0..10 {
                let digit = char::from_u32(zero + value).unwrap();
                assert!(digit.is_numeric(), "{digit:?}");
                assert_eq!(
                    decimal_value(digit).map(u32::from),
                    Some(value),
                    "{digit:?}"
                );
            }
        }
        assert!(ZEROS.is_sorted());
        // Each run has ten digits, and the next character is not one.
        for end in ZEROS.map(|zero| zero + 10) {
            let after = char::from_u32(end).unwrap();
            assert!(
                ZEROS.contains(&end) || decimal_value(after).is_none(),
                "{after:?}"
            );
        }
    }

    #[test]
    fn code_has_four_to_ten_digits() {
        for digits in ["0000", "481516", "9999999999"] {
            let code = OtpCode::from_digits(digits).unwrap();
            assert_eq!(code.expose(), digits);
            assert_eq!(usize::try_from(code.length()), Ok(digits.len()));
        }
        for text in ["", "000", "00000000000", "48151a", "4815 16", "٤٨١٥"] {
            assert!(OtpCode::from_digits(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_equal_digits_match() {
        let code = OtpCode::from_digits("012345").unwrap();
        assert!(code.matches(&SubmittedCode::parse("012 345").unwrap()));
        for other in ["012346", "12345", "0123456", "112345"] {
            assert!(
                !code.matches(&SubmittedCode::parse(other).unwrap()),
                "{other}"
            );
        }
        assert!(code.ct_eq(&OtpCode::from_digits("012345").unwrap()));
        assert!(!code.ct_eq(&OtpCode::from_digits("012346").unwrap()));
    }

    #[test]
    fn debug_output_hides_the_code() {
        let code = OtpCode::from_digits("481516").unwrap();
        let typed = SubmittedCode::parse("481516").unwrap();
        assert_eq!(typed.expose(), "481516");
        assert_eq!(typed.length(), 6);
        assert_eq!(
            format!("{code:?} {typed:?}"),
            "OtpCode(6 digits) SubmittedCode(6 digits)"
        );
    }
}
