//! Country of a recipient, looked up cheaply enough for every message.

use std::{
    fmt,
    sync::{LazyLock, OnceLock},
};

use rlibphonenumber::PHONE_NUMBER_UTIL;

use super::{Recipient, Region, recipient::region_of};

/// Country of a phone number (ISO 3166-1 alpha-2), or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountryCode(Option<[u8; 2]>);

impl CountryCode {
    /// No country: an e-mail address, or a number that belongs to none.
    pub const NONE: Self = Self(None);
    /// Number of possible values, [`NONE`](Self::NONE) among them.
    pub const COUNT: usize = 26 * 26 + 1;

    /// Returns the country of `recipient`.
    pub fn of(recipient: &Recipient) -> Self {
        recipient
            .phone_number()
            .and_then(|number| number.strip_prefix('+'))
            .map_or(Self::NONE, of_number)
    }

    /// Returns an index for each, below [`COUNT`](Self::COUNT).
    pub fn number(self) -> usize {
        let letter = |letter: u8| usize::from(letter - b'A');
        self.0.map_or(26 * 26, |[first, second]| {
            letter(first) * 26 + letter(second)
        })
    }

    /// Returns the country of a [`number`](Self::number).
    pub fn numbered(number: usize) -> Self {
        let letter = |number: usize| u8::try_from(number).ok().map(|number| b'A' + number);
        let letters = letter(number / 26).zip(letter(number % 26));
        Self(
            letters
                .filter(|_| number < 26 * 26)
                .map(|(first, second)| [first, second]),
        )
    }

    /// Returns the country of a region of the phone number library.
    fn of_region(region: rlibphonenumber::Region) -> Self {
        Self::named(&region.as_region_str())
    }

    /// Returns the country of that name, if it has two letters.
    fn named(name: &str) -> Self {
        let letters = <[u8; 2]>::try_from(name.as_bytes()).ok();
        Self(letters.filter(|letters| letters.iter().all(u8::is_ascii_uppercase)))
    }
}

impl From<Region> for CountryCode {
    fn from(region: Region) -> Self {
        Self::of_region(region.into())
    }
}

/// Writes two capitals, or `none`.
impl fmt::Display for CountryCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(letters) => letters
                .iter()
                .try_for_each(|letter| write!(formatter, "{}", char::from(*letter))),
            None => formatter.write_str("none"),
        }
    }
}

/// Way to find the country of a number that starts with a calling code.
enum CallingCode {
    /// Not assigned.
    Unassigned,
    /// All its numbers belong to one country.
    One(CountryCode),
    /// The three digits after it, an area code, decide; looked up for the first number of
    /// each area.
    ByArea(Box<[OnceLock<CountryCode>]>),
    /// The whole number decides; looking it up takes some microseconds.
    Several,
}

/// North America: three digits for the area, each in one country.
const NORTH_AMERICA: usize = 1;
/// Russia and Kazakhstan: three digits for the area, each in one country.
const RUSSIA: usize = 7;
/// Area of no single country: the toll-free numbers of North America.
const SHARED_AREA: &str = "800";

/// Countries by calling code; none has more than three digits (E.164).
static CODES: LazyLock<Box<[CallingCode]>> = LazyLock::new(|| (0..1_000).map(code).collect());

fn code(calling_code: usize) -> CallingCode {
    let number = i32::try_from(calling_code).unwrap_or_default();
    let regions = PHONE_NUMBER_UTIL.get_regions_for_country_calling_code(number);
    let regions: Vec<_> = regions.into_iter().flatten().collect();
    match (&regions[..], calling_code) {
        ([], _) => CallingCode::Unassigned,
        ([one], _) => CallingCode::One(CountryCode::of_region(*one)),
        (_, NORTH_AMERICA | RUSSIA) => {
            CallingCode::ByArea((0..1_000).map(|_| OnceLock::new()).collect())
        }
        _ => CallingCode::Several,
    }
}

fn of_number(digits: &str) -> CountryCode {
    // No calling code is the beginning of another one (E.164, clause 6.1).
    for length in 1..=3 {
        let (Some(first), Some(rest)) = (digits.get(..length), digits.get(length..)) else {
            break;
        };
        let calling_code = first.parse().ok();
        match calling_code.and_then(|code: usize| CODES.get(code)) {
            None | Some(CallingCode::Unassigned) => {}
            Some(CallingCode::One(country)) => return *country,
            Some(CallingCode::ByArea(areas)) if !rest.starts_with(SHARED_AREA) => {
                let area = rest.get(..3).and_then(|area| area.parse().ok());
                let area = area.and_then(|area: usize| areas.get(area));
                return area.map_or(CountryCode::NONE, |area| match area.get() {
                    Some(country) => *country,
                    None => first_of_area(area, digits),
                });
            }
            Some(CallingCode::ByArea(_) | CallingCode::Several) => return lookup(digits),
        }
    }
    CountryCode::NONE
}

/// Looks up the country of a number whose area has none yet. That of an invalid number decides
/// nothing about the others.
fn first_of_area(area: &OnceLock<CountryCode>, digits: &str) -> CountryCode {
    let country = lookup(digits);
    if country != CountryCode::NONE {
        // Another thread has found the same.
        let _ = area.set(country);
    }
    country
}

/// Looks up the country by the whole number.
fn lookup(digits: &str) -> CountryCode {
    let region = region_of(&format!("+{digits}"));
    region.map_or(CountryCode::NONE, CountryCode::of_region)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RecipientPattern;

    const CORPUS: &str = include_str!("../../../tests/corpus/phones.tsv");

    #[test]
    fn country_of_every_corpus_number_matches_the_library() {
        let numbers = CORPUS.lines().filter_map(|line| line.split('\t').nth(2));
        let mut countries = std::collections::BTreeSet::new();
        for digits in numbers.filter_map(|number| number.strip_prefix('+')) {
            let country = of_number(digits);
            assert_eq!(country, lookup(digits), "+{digits}");
            countries.insert(country.to_string());
        }
        assert!(countries.len() > 200, "{countries:?}");
    }

    #[test]
    fn invalid_number_decides_nothing_about_its_area() {
        // The areas of this process are shared with the other tests.
        let area = OnceLock::new();
        assert_eq!(first_of_area(&area, "12121"), CountryCode::NONE);
        assert_eq!(area.get(), None);
        assert_eq!(first_of_area(&area, "12125550123").to_string(), "US");
        assert_eq!(
            area.get().map(CountryCode::to_string).as_deref(),
            Some("US")
        );
    }

    proptest! {
        #[test]
        fn country_of_a_valid_number_matches_the_library(
            digits in "(1[2-9][0-9]{2}[2-9][0-9]{6}|7[3-9][0-9]{9}|44[0-9]{9,10}|[1-9][0-9]{6,13})",
        ) {
            if let Ok(recipient) = Recipient::parse(&format!("+{digits}"), None) {
                let digits = recipient.as_str().trim_start_matches('+');
                let country = of_number(digits);
                prop_assert_eq!(country, lookup(digits));
                if let Some(region) = region_of(recipient.as_str()) {
                    let pattern = RecipientPattern::Region(region.into());
                    prop_assert_eq!(pattern.contains(&recipient), country != CountryCode::NONE);
                }
            }
        }
    }

    #[test]
    fn toll_free_numbers_of_north_america_are_distinct() {
        for (digits, country) in [
            ("18002000457", "US"),
            ("18001400457", "DO"),
            ("18002000457", "US"),
        ] {
            assert_eq!(of_number(digits).to_string(), country, "+{digits}");
        }
    }

    #[test]
    fn country_codes_round_trip_through_their_index() {
        for (recipient, country) in [
            ("+79991234567", "RU"),
            ("+77011234567", "KZ"),
            ("+12125550123", "US"),
            ("+14165550123", "CA"),
            ("+4915112345678", "DE"),
            ("name@example.com", "none"),
            ("+999123", "none"),
            ("+", "none"),
        ] {
            let found = CountryCode::of(&Recipient::from_canonical(recipient.to_owned()));
            assert_eq!(found.to_string(), country, "{recipient}");
            assert!(found.number() < CountryCode::COUNT);
            assert_eq!(CountryCode::numbered(found.number()), found);
        }
    }
}
