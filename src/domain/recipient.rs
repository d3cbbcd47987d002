//! Whom a code is sent to, in one canonical form.

use std::{fmt, str::FromStr};

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat};
use serde::Deserialize;

/// The most bytes of a recipient that are looked at: an e-mail address has at
/// most 254 (RFC 5321), a phone number far fewer; the rest is room for blanks.
const MAX_WRITTEN_BYTES: usize = 320;
/// What Google's library reads of a phone number (`MAX_INPUT_STRING_LENGTH`).
const MAX_PHONE_CHARACTERS: usize = 250;
/// E.164, clause 6.2: the digits of an international number, its country's code among
/// them.
const MAX_PHONE_DIGITS: usize = 15;
/// RFC 5321, section 4.5.3.1.3: a path of 256 octets less its angle brackets.
const MAX_ADDRESS_BYTES: usize = 254;
/// RFC 5321, section 4.5.3.1.1.
const MAX_LOCAL_PART_BYTES: usize = 64;

/// Whom a code is sent to: a phone number in E.164, or an e-mail address in lower
/// case with an A-label domain. Two written forms of one recipient are equal.
/// Shown masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipient(String);

/// A text is no recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// Nothing was given.
    #[error("empty; give a phone number or an e-mail address")]
    Empty,
    /// More than 320 bytes were given.
    #[error("too long; at most 320 bytes are read")]
    TooLong,
    /// A control character was given.
    #[error("holds a control character; remove it")]
    ControlCharacter,
    /// A national number was given, and no region to read it in.
    #[error(
        "not an international number; write it with \"+\" and the country's code, or give its region"
    )]
    RegionMissing,
    /// No phone number can be read.
    #[error(
        "not a phone number that exists, nor an e-mail address; give e.g. +79991234567 or name@example.com"
    )]
    PhoneInvalid,
    /// The number has an extension, which no message reaches.
    #[error("a number with an extension cannot receive messages; give it without")]
    PhoneExtension,
    /// The part before the "@" is not a dot-atom of RFC 5322.
    #[error(
        "the part of the e-mail address before the \"@\" is not valid (ASCII letters, digits and !#$%&'*+-/=?^_`{{|}}~, with single dots between, at most 64)"
    )]
    EmailLocalPart,
    /// The part after the "@" is not a domain name.
    #[error("the domain of the e-mail address is not valid; give e.g. name@example.com")]
    EmailDomain,
}

impl Recipient {
    /// Reads a recipient as people write it. An "@" makes it an e-mail address,
    /// else it is a phone number, a national one being read in `region`.
    ///
    /// # Errors
    /// What is wrong with the text, and what to do about it.
    pub fn parse(written: &str, region: Option<Region>) -> Result<Self, RecipientError> {
        if written.len() > MAX_WRITTEN_BYTES {
            return Err(RecipientError::TooLong);
        }
        if written.chars().any(char::is_control) {
            return Err(RecipientError::ControlCharacter);
        }
        let written = written.trim();
        if written.is_empty() {
            return Err(RecipientError::Empty);
        }
        match written.rsplit_once('@') {
            Some((local_part, domain)) => email(local_part, domain),
            None => phone(written, region),
        }
    }

    /// The recipient of a canonical form that [`as_str`](Self::as_str) gave.
    pub fn from_canonical(canonical: String) -> Self {
        Self(canonical)
    }

    /// The canonical form. Whoever calls this answers for where it goes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The phone number in E.164, with its "+"; an e-mail address is none, though it may
    /// begin like one.
    pub fn phone_number(&self) -> Option<&str> {
        (!self.is_email()).then_some(&self.0)
    }

    /// The calling code of a phone number's country, with its "+".
    pub fn dialling_prefix(&self) -> Option<&str> {
        let number = self.phone_number()?;
        let prefixes = (2..=4).filter_map(|end| number.get(..end));
        prefixes.into_iter().find(|prefix| {
            let code = prefix
                .strip_prefix('+')
                .and_then(|digits| digits.parse().ok());
            // No calling code is the beginning of another one (E.164, clause 6.1).
            code.is_some_and(|code| {
                PHONE_NUMBER_UTIL
                    .get_region_for_country_code(code)
                    .is_some()
            })
        })
    }

    /// Whether this is an e-mail address.
    pub fn is_email(&self) -> bool {
        self.0.contains('@')
    }
}

/// Shows `+7999***4567` and `a***@example.com`: enough to follow a person's
/// request through a log, too little to call them. At least three digits are
/// hidden.
impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HIDDEN: usize = 3;
        const SHOWN_AT_AN_END: usize = 4;
        if let Some((local_part, domain)) = self.0.split_once('@') {
            let first = local_part.chars().next().unwrap_or_default();
            return write!(formatter, "{first}***@{domain}");
        }
        let digits = self.0.trim_start_matches('+');
        let shown = digits.len().saturating_sub(HIDDEN);
        let tail = SHOWN_AT_AN_END.min(shown / 2);
        let head = SHOWN_AT_AN_END.min(shown - tail);
        write!(
            formatter,
            "+{}***{}",
            &digits[..head],
            &digits[digits.len() - tail..]
        )
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Recipient({self})")
    }
}

fn phone(written: &str, region: Option<Region>) -> Result<Recipient, RecipientError> {
    use rlibphonenumber::ParseError;

    // Typesetters and phones put blanks between groups that Google's library does
    // not know, such as U+202F; and this port does not know the full-width tilde,
    // which stands for a pause.
    let plain = |character: char| match character {
        '\u{FF5E}' => '~',
        blank if blank.is_whitespace() => ' ',
        other => other,
    };
    let written: String = written.chars().map(plain).collect();
    // Google's library reads at most 250 characters; this port of it has no limit of
    // its own, and slices backwards where a URI's context stands before its number.
    let context_first = matches!(
        (written.find(";phone-context="), written.find("tel:")),
        (Some(context), Some(number)) if context < number
    );
    if written.chars().count() > MAX_PHONE_CHARACTERS || context_first {
        return Err(RecipientError::PhoneInvalid);
    }
    let number = PhoneNumber::parse(&written, region.map(|region| region.0)).map_err(|error| {
        let national = region.is_none() && !written.contains(['+', '＋']);
        match error {
            ParseError::InvalidCountryCode if national => RecipientError::RegionMissing,
            _ => RecipientError::PhoneInvalid,
        }
    })?;
    if number
        .extension
        .as_ref()
        .is_some_and(|extension| !extension.is_empty())
    {
        return Err(RecipientError::PhoneExtension);
    }
    if !number.is_valid() {
        return Err(RecipientError::PhoneInvalid);
    }
    let canonical = number.format_as(PhoneNumberFormat::E164);
    // Google's patterns are wider than E.164 where a country's own plan is open.
    if canonical.len() > "+".len() + MAX_PHONE_DIGITS {
        return Err(RecipientError::PhoneInvalid);
    }
    Ok(Recipient(canonical.into_owned()))
}

fn email(local_part: &str, domain: &str) -> Result<Recipient, RecipientError> {
    let local_part_is_dot_atom = local_part.len() <= MAX_LOCAL_PART_BYTES
        && local_part
            .split('.')
            .all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_text));
    if !local_part_is_dot_atom {
        return Err(RecipientError::EmailLocalPart);
    }
    let domain = idna::domain_to_ascii_strict(domain).map_err(|_| RecipientError::EmailDomain)?;
    let is_host_name = domain.contains('.')
        && !domain.ends_with('.')
        && domain
            .split('.')
            .next_back()
            .is_some_and(|top| !top.bytes().all(|b| b.is_ascii_digit()));
    let address = format!("{}@{domain}", local_part.to_ascii_lowercase());
    if !is_host_name || address.len() > MAX_ADDRESS_BYTES {
        return Err(RecipientError::EmailDomain);
    }
    Ok(Recipient(address))
}

/// RFC 5322, section 3.2.3: `atext`.
fn is_atom_text(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// A region in which a national phone number is read, such as `RU`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Region(rlibphonenumber::Region);

/// A text names no region that has phone numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 3166-1 alpha-2 region that has phone numbers; give e.g. RU or US")]
pub struct RegionError;

impl From<rlibphonenumber::Region> for Region {
    fn from(region: rlibphonenumber::Region) -> Self {
        Self(region)
    }
}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.len() != 2 {
            return Err(RegionError);
        }
        let region = name.to_ascii_uppercase().parse().map_err(|_| RegionError)?;
        let has_numbers = PHONE_NUMBER_UTIL
            .get_country_code_for_region(region)
            .is_some();
        has_numbers.then_some(Self(region)).ok_or(RegionError)
    }
}

impl TryFrom<String> for Region {
    type Error = RegionError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(written: &str, region: &str) -> Result<String, RecipientError> {
        let region = (!region.is_empty()).then(|| region.parse().expect("a region"));
        Recipient::parse(written, region).map(|recipient| recipient.as_str().to_owned())
    }

    /// A number with so many blanks in it that it is so many characters long.
    fn stretched(characters: usize) -> String {
        let blanks = " ".repeat(characters - "+79991234567".len());
        format!("+7{blanks}9991234567")
    }

    #[test]
    fn one_phone_written_in_many_ways_is_one_recipient() {
        for written in [
            "8 (999) 123-45-67",
            "+7 999 123 45 67",
            "9991234567",
            "８９９９１２３４５６７",
            "8\u{202f}999\u{2007}123\u{3000}4567",
            &stretched(MAX_PHONE_CHARACTERS),
        ] {
            assert_eq!(
                canonical(written, "RU").as_deref(),
                Ok("+79991234567"),
                "{written}"
            );
        }
    }

    #[test]
    fn the_longest_number_of_e_164_is_taken() {
        let longest = "+499912377868777";
        assert_eq!(longest.len(), "+".len() + MAX_PHONE_DIGITS);
        assert_eq!(canonical(longest, "").as_deref(), Ok(longest));
    }

    #[test]
    fn what_is_no_phone_is_named() {
        for (written, region, expected) in [
            ("", "RU", RecipientError::Empty),
            ("  ", "RU", RecipientError::Empty),
            ("9991234567", "", RecipientError::RegionMissing),
            ("+7999123456", "RU", RecipientError::PhoneInvalid),
            ("+0123456789", "", RecipientError::PhoneInvalid),
            ("＋0123456789", "", RecipientError::PhoneInvalid),
            ("hello", "RU", RecipientError::PhoneInvalid),
            // Germany's plan is open, but no international number is so long.
            ("+4999123778687778", "", RecipientError::PhoneInvalid),
            (
                "+7 999 123-45-67 ext. 5",
                "RU",
                RecipientError::PhoneExtension,
            ),
            ("+7999\u{0}1234567", "RU", RecipientError::ControlCharacter),
            ("+79991234567\n", "RU", RecipientError::ControlCharacter),
            (&"9".repeat(321), "RU", RecipientError::TooLong),
            (&"9".repeat(320), "RU", RecipientError::PhoneInvalid),
            (
                &stretched(MAX_PHONE_CHARACTERS + 1),
                "RU",
                RecipientError::PhoneInvalid,
            ),
            (
                "9991234567;phone-context=+7 tel:",
                "RU",
                RecipientError::PhoneInvalid,
            ),
        ] {
            assert_eq!(canonical(written, region), Err(expected), "{written:?}");
        }
    }

    #[test]
    fn addresses_are_lower_case_with_a_label_domains() {
        for (written, expected) in [
            ("Ann.Lee+tag@Example.COM", "ann.lee+tag@example.com"),
            (" ann@example.com ", "ann@example.com"),
            ("ann@почта.рф", "ann@xn--80a1acny.xn--p1ai"),
            ("ann@XN--80A1ACNY.xn--p1ai", "ann@xn--80a1acny.xn--p1ai"),
            ("ann@ｅｘａｍｐｌｅ.com", "ann@example.com"),
        ] {
            assert_eq!(canonical(written, "").as_deref(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        let long_local_part = format!("{}@example.com", "a".repeat(65));
        for written in [
            "@example.com",
            "a..b@example.com",
            ".a@example.com",
            "a b@example.com",
            "a@b@example.com",
            "почта@example.com",
            "\"a\"@example.com",
            &long_local_part,
        ] {
            assert_eq!(
                canonical(written, ""),
                Err(RecipientError::EmailLocalPart),
                "{written}"
            );
        }
        // 254 bytes are the longest address.
        let domain = format!("{}example.com", "abcdefgh.".repeat(26));
        let local_part = "a".repeat(254 - 1 - domain.len());
        let longest = format!("{local_part}@{domain}");
        assert_eq!(canonical(&longest, "").as_deref(), Ok(longest.as_str()));
        let too_long = format!("a{longest}");
        let long_domain = format!("a@{}example.com", "abcdefgh.".repeat(29));
        for written in [
            "a@",
            "a@localhost",
            "a@example..com",
            "a@-example.com",
            "a@exam_ple.com",
            "a@example.com.",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "a@exa mple.com",
            &long_domain,
            &too_long,
        ] {
            assert_eq!(
                canonical(written, ""),
                Err(RecipientError::EmailDomain),
                "{written}"
            );
        }
    }

    #[test]
    fn masks_hide_three_digits_and_the_local_part() {
        for (written, masked) in [
            ("+79991234567", "+7999***4567"),
            ("+29022222", "+290***22"),
            ("+4915112345678", "+4915***5678"),
            ("ann@example.com", "a***@example.com"),
        ] {
            let recipient = Recipient::from_canonical(written.to_owned());
            assert_eq!(recipient.to_string(), masked);
            assert_eq!(format!("{recipient:?}"), format!("Recipient({masked})"));
        }
    }

    #[test]
    fn the_dialling_prefix_is_the_countrys() {
        for (written, prefix) in [
            ("+79991234567", Some("+7")),
            ("+12015550123", Some("+1")),
            ("+37322123456", Some("+373")),
            ("+4915112345678", Some("+49")),
            ("ann@example.com", None),
            ("+79991234567@example.com", None),
        ] {
            let recipient = Recipient::from_canonical(written.to_owned());
            assert_eq!(recipient.dialling_prefix(), prefix, "{written}");
        }
    }

    #[test]
    fn regions_are_read_in_any_case() {
        assert_eq!("ru".parse::<Region>(), "RU".parse());
        for bad in ["", "R", "RUS", "ZZ", "1A", "РФ", "001"] {
            assert_eq!(bad.parse::<Region>(), Err(RegionError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_canonical_forms_are_fixed_points(written in "\\PC{0,40}|[+0-9() .-]{0,24}|[a-z.@]{1,20}") {
            for region in ["", "RU", "KZ", "US", "DE"] {
                if let Ok(once) = canonical(&written, region) {
                    prop_assert_eq!(canonical(&once, ""), Ok(once));
                }
            }
        }
    }
}
