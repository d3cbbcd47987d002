//! Where a caller may send to.

use std::str::FromStr;

use rlibphonenumber::PhoneNumber;
use serde::Deserialize;

use super::{Recipient, Region};

/// A set of recipients, as configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RecipientPattern {
    /// `*`: everybody.
    Everybody,
    /// `email`: every e-mail address.
    Email,
    /// Such as `RU`: the phone numbers of a region.
    Region(Region),
    /// Such as `+7999`: the phone numbers that start so.
    Prefix(String),
}

/// A text names no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a destination; give a region such as RU, a prefix such as +7999, email, or *")]
pub struct DestinationError;

impl FromStr for RecipientPattern {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_prefix = |text: &str| {
            text.strip_prefix('+').is_some_and(|digits| {
                (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        match text {
            "*" => Ok(Self::Everybody),
            "email" => Ok(Self::Email),
            prefix if is_prefix(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            region => region
                .parse()
                .map(Self::Region)
                .map_err(|_| DestinationError),
        }
    }
}

impl TryFrom<String> for RecipientPattern {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl RecipientPattern {
    /// Whether `recipient` is in it.
    pub fn contains(&self, recipient: &Recipient) -> bool {
        match self {
            Self::Everybody => true,
            Self::Email => recipient.is_email(),
            Self::Region(region) => region_of(recipient) == Some(*region),
            Self::Prefix(prefix) => recipient
                .phone_number()
                .is_some_and(|number| number.starts_with(prefix)),
        }
    }
}

/// The region that a phone number is of.
fn region_of(recipient: &Recipient) -> Option<Region> {
    let number: PhoneNumber = recipient.phone_number()?.parse().ok()?;
    number.get_region_code().map(Region::from)
}

/// Where a caller may send to, less where it may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationPolicy {
    /// Allowed ones.
    pub allowed: Vec<RecipientPattern>,
    /// Blocked ones, whatever is allowed.
    pub blocked: Vec<RecipientPattern>,
}

impl DestinationPolicy {
    /// Everybody.
    pub fn everybody() -> Self {
        Self {
            allowed: vec![RecipientPattern::Everybody],
            blocked: Vec::new(),
        }
    }

    /// Whether messages may go to `recipient`.
    pub fn allows(&self, recipient: &Recipient) -> bool {
        let holds = |destination: &RecipientPattern| destination.contains(recipient);
        self.allowed.iter().any(holds) && !self.blocked.iter().any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(allowed: &[&str], blocked: &[&str]) -> DestinationPolicy {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        DestinationPolicy {
            allowed: parse(allowed),
            blocked: parse(blocked),
        }
    }

    fn to(recipient: &str) -> Recipient {
        Recipient::parse(recipient, None).unwrap()
    }

    #[test]
    fn regions_that_share_a_calling_code_are_told_apart() {
        let russia = destinations(&["RU"], &[]);
        assert!(russia.allows(&to("+79991234567")));
        assert!(!russia.allows(&to("+77011234567")));
        assert!(!russia.allows(&to("ann@example.com")));
    }

    #[test]
    fn an_address_that_begins_like_a_number_is_none() {
        let address = to("+79991234567@example.com");
        for phones in ["+7999", "RU"] {
            assert!(!destinations(&[phones], &[]).allows(&address), "{phones}");
            assert!(
                destinations(&["email"], &[phones]).allows(&address),
                "{phones}"
            );
        }
    }

    #[test]
    fn what_is_blocked_stays_blocked() {
        let but_one = destinations(&["*"], &["+7999", "email"]);
        assert!(!but_one.allows(&to("+79991234567")));
        assert!(but_one.allows(&to("+79161234567")));
        assert!(!but_one.allows(&to("ann@example.com")));
        assert!(!DestinationPolicy::default().allows(&to("+79991234567")));
        assert!(DestinationPolicy::everybody().allows(&to("+79991234567")));
        assert!(DestinationPolicy::everybody().allows(&to("ann@example.com")));
    }

    #[test]
    fn only_destinations_are_read() {
        for bad in [
            "",
            "Russia",
            "7999",
            "+",
            "+7 999",
            "ZZ",
            "**",
            "+1234567890123456",
        ] {
            assert_eq!(
                bad.parse::<RecipientPattern>(),
                Err(DestinationError),
                "{bad}"
            );
        }
    }
}
