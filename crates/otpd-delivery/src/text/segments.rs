//! Number of segments of an SMS, which determines its cost.
//!
//! Alphabet and sizes are those of 3GPP TS 23.038 and 23.040: 140 octets per segment, six
//! of which go to a header if a message is split.

use std::fmt;

/// GSM 7-bit default alphabet (3GPP TS 23.038, 6.2.1), without its escape.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// Extension of the alphabet (6.2.1.1): an escape and a second septet for each.
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// Encoding of the characters of an SMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmsEncoding {
    /// Seven bits per character: 160 in a single segment, 153 in each of several.
    Gsm7,
    /// Two octets per character, because one is not in the GSM alphabet: 70 in a single
    /// segment, 67 in each of several.
    Ucs2,
}

impl SmsEncoding {
    /// Returns the number of units in a message of one segment.
    pub const fn alone(self) -> usize {
        match self {
            Self::Gsm7 => 160,
            Self::Ucs2 => 70,
        }
    }

    /// Returns the number of units in each segment of a split message.
    pub const fn split(self) -> usize {
        match self {
            Self::Gsm7 => 153,
            Self::Ucs2 => 67,
        }
    }
}

impl fmt::Display for SmsEncoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Gsm7 => "GSM-7",
            Self::Ucs2 => "UCS-2",
        })
    }
}

/// Length and segments of an SMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmsSegments {
    /// Encoding of its characters.
    pub encoding: SmsEncoding,
    /// Length: septets of GSM-7, in which an extension character counts two, or UTF-16
    /// code units of UCS-2, in which an emoji counts two.
    pub units: usize,
    /// Number of segments, each charged as a message; at least 1.
    pub count: usize,
}

impl fmt::Display for SmsSegments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            encoding,
            units,
            count,
        } = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(
            formatter,
            "{units} characters of {encoding}, {count} segment{plural}"
        )
    }
}

/// Counts the segments of `text` as an SMS. A character of two units is never split over
/// two segments, so a segment may stay one unit short.
pub fn segments(text: &str) -> SmsSegments {
    let encoding = if text.chars().all(is_gsm) {
        SmsEncoding::Gsm7
    } else {
        SmsEncoding::Ucs2
    };
    let widths = text.chars().map(|character| width(character, encoding));
    let units = widths.clone().sum();
    let count = if units <= encoding.alone() {
        1
    } else {
        let (full, _) = widths.fold((0, encoding.split()), |(full, used), width| {
            if used + width > encoding.split() {
                (full + 1, width)
            } else {
                (full, used + width)
            }
        });
        full
    };
    SmsSegments {
        encoding,
        units,
        count,
    }
}

/// Returns true if GSM-7 has `character`.
pub fn is_gsm(character: char) -> bool {
    BASIC.contains(character) || EXTENSION.contains(character)
}

fn width(character: char, encoding: SmsEncoding) -> usize {
    match encoding {
        SmsEncoding::Gsm7 => 1 + usize::from(EXTENSION.contains(character)),
        SmsEncoding::Ucs2 => character.len_utf16(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SmsEncoding::*, *};

    fn counted(text: &str) -> (SmsEncoding, usize, usize) {
        let SmsSegments {
            encoding,
            units,
            count,
        } = segments(text);
        (encoding, units, count)
    }

    #[test]
    fn segment_limits_match_the_standard() {
        for (length, expected) in [
            (0, 1),
            (1, 1),
            (160, 1),
            (161, 2),
            (153 * 2, 2),
            (153 * 2 + 1, 3),
            (153 * 3, 3),
            (153 * 3 + 1, 4),
        ] {
            assert_eq!(counted(&"a".repeat(length)), (Gsm7, length, expected));
        }
        for (length, expected) in [
            (1, 1),
            (70, 1),
            (71, 2),
            (67 * 2, 2),
            (67 * 2 + 1, 3),
            (67 * 3 + 1, 4),
        ] {
            assert_eq!(counted(&"я".repeat(length)), (Ucs2, length, expected));
        }
    }

    #[test]
    fn extension_character_counts_two_and_is_not_split() {
        assert_eq!(counted(&"€".repeat(80)), (Gsm7, 160, 1));
        assert_eq!(counted(&format!("{}€", "a".repeat(159))), (Gsm7, 161, 2));
        // 306 septets are two segments, unless the boundary falls into a pair.
        let even = format!("{}€{}", "a".repeat(151), "a".repeat(153));
        assert_eq!(counted(&even), (Gsm7, 306, 2));
        let odd = format!("{}€{}", "a".repeat(152), "a".repeat(152));
        assert_eq!(counted(&odd), (Gsm7, 306, 3));
    }

    #[test]
    fn surrogate_pair_counts_two_and_is_not_split() {
        assert_eq!(counted(&"😀".repeat(35)), (Ucs2, 70, 1));
        assert_eq!(counted(&format!("{}😀", "я".repeat(69))), (Ucs2, 71, 2));
        let even = format!("{}😀{}", "я".repeat(65), "я".repeat(67));
        assert_eq!(counted(&even), (Ucs2, 134, 2));
        let odd = format!("{}😀{}", "я".repeat(66), "я".repeat(66));
        assert_eq!(counted(&odd), (Ucs2, 134, 3));
    }

    #[test]
    fn one_non_gsm_character_switches_the_text_to_ucs_2() {
        assert_eq!(counted(&"a".repeat(100)).2, 1);
        assert_eq!(counted(&format!("{}—", "a".repeat(99))), (Ucs2, 100, 2));
        // The standard has Ç but not ç, and no tab.
        assert!(is_gsm('Ç') && !is_gsm('ç') && !is_gsm('\t') && !is_gsm('`'));
        assert!(is_gsm('@') && is_gsm('#') && is_gsm('\n'));
    }

    #[test]
    fn gsm_alphabet_size_matches_the_standard() {
        let mut all: Vec<char> = BASIC.chars().chain(EXTENSION.chars()).collect();
        assert_eq!((BASIC.chars().count(), all.len()), (127, 137));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 137);
    }

    /// Returns the minimum number of segments for `widths` in order, by trying every cut.
    fn fewest(widths: &[usize], size: usize) -> usize {
        let mut best = vec![0];
        for end in 1..=widths.len() {
            let mut fewest = usize::MAX;
            let mut used = 0;
            for start in (0..end).rev() {
                used += widths[start];
                if used > size {
                    break;
                }
                fewest = fewest.min(best[start] + 1);
            }
            best.push(fewest);
        }
        best[widths.len()].max(1)
    }

    proptest! {
        #[test]
        fn segment_count_matches_the_reference_implementation(text in "[a-z€\\[~😀яa]{0,420}|[a-z€\\[~]{140,480}|[а-я😀]{60,210}") {
            let gsm = text.chars().all(|character| {
                character.is_ascii_lowercase() || "€[~".contains(character)
            });
            let widths: Vec<usize> = text
                .chars()
                .map(|character| match (gsm, character) {
                    (true, '€' | '[' | '~') | (false, '😀') => 2,
                    _ => 1,
                })
                .collect();
            let units = widths.iter().sum::<usize>();
            let (alone, split) = if gsm { (160, 153) } else { (70, 67) };
            let expected = if units <= alone { 1 } else { fewest(&widths, split) };
            prop_assert_eq!(counted(&text), (if gsm { Gsm7 } else { Ucs2 }, units, expected));
        }
    }
}
