//! Recipient of a code, in one canonical form.

use std::{borrow::Cow, fmt, ops::RangeInclusive, str::FromStr, sync::Arc};

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat};
use serde::Deserialize;

mod known_numbers;

use super::is_ignorable;
use known_numbers::{InternationalNumber, KNOWN_NUMBERS};

/// Maximum length of a written recipient in bytes. An e-mail address has at most 254 (RFC
/// 5321), a phone number far fewer; the rest is room for blanks.
const MAX_WRITTEN_BYTES: usize = 320;
/// Maximum length of a phone number that Google's library reads
/// (`MAX_INPUT_STRING_LENGTH`).
const MAX_PHONE_CHARACTERS: usize = 250;
/// Maximum number of digits of an international number, its country code among them
/// (E.164, clause 6.2).
const MAX_PHONE_DIGITS: usize = 15;
/// Maximum length of an e-mail address: a path of 256 octets less its angle brackets (RFC
/// 5321, section 4.5.3.1.3).
const MAX_ADDRESS_BYTES: usize = 254;
/// Maximum length of the part before the "@" (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL_PART_BYTES: usize = 64;

/// Recipient of a code: a phone number in E.164, or an e-mail address in lower case with
/// an A-label domain. Two written forms of one recipient are equal. Clones share the text. Shown
/// masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipient(Arc<str>);

/// The text is not a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// The text is empty.
    #[error("empty; give a phone number or an e-mail address")]
    Empty,
    /// The text has more than 320 bytes.
    #[error("too long; at most 320 bytes are read")]
    TooLong,
    /// The text contains a control character.
    #[error("holds a control character; remove it")]
    ControlCharacter,
    /// The number is national, and there is no region to read it in.
    #[error(
        "not an international number; write it with \"+\" and the country's code, or give its region"
    )]
    RegionMissing,
    /// The text is neither a phone number nor an e-mail address.
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
    /// Parses a recipient as people write it. An "@" makes it an e-mail address. Else it
    /// is a phone number; a national one is read in `region`. Blanks around it and
    /// invisible marks are ignored.
    ///
    /// # Errors
    /// [`RecipientError`] says what is wrong with the text, and how to correct it.
    pub fn parse(written: &str, region: Option<Region>) -> Result<Self, RecipientError> {
        // An international number means the same in every region.
        let international = InternationalNumber::parse(written);
        if international.is_some_and(|number| KNOWN_NUMBERS.contains(number)) {
            return Ok(Self(written.into()));
        }
        let recipient = parse_text(written, region)?;
        if let Some(number) = international.filter(|_| *recipient.0 == *written) {
            KNOWN_NUMBERS.insert(number);
        }
        Ok(recipient)
    }

    /// Returns the recipient of a canonical form that came from [`as_str`](Self::as_str).
    pub fn from_canonical(canonical: impl Into<Arc<str>>) -> Self {
        Self(canonical.into())
    }

    /// Returns the canonical form. The caller must not let it reach logs or errors.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the phone number in E.164, with its "+"; `None` for an e-mail address,
    /// even if it begins like a number.
    pub fn phone_number(&self) -> Option<&str> {
        (!self.is_email()).then_some(&self.0)
    }

    /// Returns the country calling code of a phone number, with its "+".
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

    /// Returns true for an e-mail address.
    pub fn is_email(&self) -> bool {
        self.0.contains('@')
    }
}

/// Shows `+7999***4567` and `a***@example.com`: enough to follow a person's request
/// through a log, too little to call them. At least three digits are hidden.
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

/// Parses a recipient without the numbers that are known.
fn parse_text(written: &str, region: Option<Region>) -> Result<Recipient, RecipientError> {
    if written.len() > MAX_WRITTEN_BYTES {
        return Err(RecipientError::TooLong);
    }
    if written.chars().any(char::is_control) {
        return Err(RecipientError::ControlCharacter);
    }
    let around = |character: char| character.is_whitespace() || is_ignorable(character);
    let written = written.trim_matches(around);
    if written.is_empty() {
        return Err(RecipientError::Empty);
    }
    match written.rsplit_once('@') {
        Some((local_part, domain)) => email(&visible(local_part), &visible_domain(domain)),
        None => phone(&visible(written), region),
    }
}

/// Removes ignored characters, none of which is ASCII.
fn visible(written: &str) -> Cow<'_, str> {
    if written.is_ascii() {
        return Cow::Borrowed(written);
    }
    written.chars().filter(|&it| !is_ignorable(it)).collect()
}

/// Removes ignored characters of a domain. In domains of other scripts joiners
/// distinguish names (RFC 5892, appendix A), so they are left to the rules of such names.
fn visible_domain(written: &str) -> Cow<'_, str> {
    if written.is_ascii() {
        return Cow::Borrowed(written);
    }
    let is_joiner = |it: char| matches!(it, '\u{200C}' | '\u{200D}');
    let has_joiners = written
        .chars()
        .any(|it| !it.is_ascii() && !is_ignorable(it));
    written
        .chars()
        .filter(|&it| !is_ignorable(it) || (has_joiners && is_joiner(it)))
        .collect()
}

fn phone(written: &str, region: Option<Region>) -> Result<Recipient, RecipientError> {
    use rlibphonenumber::ParseError;

    // Typesetters and phones put blanks between groups that Google's library does not
    // know, such as U+202F. This port does not know the full-width tilde, which stands
    // for a pause.
    let plain = |character: char| match character {
        '\u{FF5E}' => '~',
        blank if blank.is_whitespace() => ' ',
        other => other,
    };
    let written: Cow<'_, str> = if written.is_ascii() {
        // Without control characters, its only blank is the space.
        Cow::Borrowed(written)
    } else {
        written.chars().map(plain).collect()
    };
    // Google's library reads at most 250 characters. This port has no limit, and slices
    // backwards if the context of a URI comes before its number.
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
    let number = if number.is_valid() {
        number
    } else {
        without_mexican_prefix(&number).ok_or(RecipientError::PhoneInvalid)?
    };
    let canonical = number.format_as(PhoneNumberFormat::E164);
    // Google's patterns are wider than E.164 if a country's own plan is open.
    if canonical.len() > "+".len() + MAX_PHONE_DIGITS {
        return Err(RecipientError::PhoneInvalid);
    }
    Ok(Recipient(canonical.into()))
}

/// Removes the "1" that led mobile numbers of Mexico until 2019, if that makes the number
/// valid. Address books and WhatsApp still have it: one phone is one recipient.
fn without_mexican_prefix(number: &PhoneNumber) -> Option<PhoneNumber> {
    const MEXICO: i32 = 52;
    const PREFIXED: RangeInclusive<u64> = 10_000_000_000..=19_999_999_999;

    let national = number.national_number;
    if number.country_code != MEXICO || !PREFIXED.contains(&national) {
        return None;
    }
    let written = format!("+{MEXICO}{:010}", national - PREFIXED.start());
    PhoneNumber::parse(&written, None)
        .ok()
        .filter(PhoneNumber::is_valid)
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
    Ok(Recipient(address.into()))
}

/// Returns true for `atext` (RFC 5322, section 3.2.3).
fn is_atom_text(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Region in which a national phone number is read, such as `RU`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Region(rlibphonenumber::Region);

/// The text is not a region that has phone numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 3166-1 alpha-2 region that has phone numbers; give e.g. RU or US")]
pub struct RegionError;

/// Returns the region of a phone number in canonical form.
pub(crate) fn region_of(number: &str) -> Option<rlibphonenumber::Region> {
    let number: PhoneNumber = number.parse().ok()?;
    number.get_region_code()
}

impl From<rlibphonenumber::Region> for Region {
    fn from(region: rlibphonenumber::Region) -> Self {
        Self(region)
    }
}

impl From<Region> for rlibphonenumber::Region {
    fn from(region: Region) -> Self {
        region.0
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
mod tests;
