//! Destinations that a caller may send to.

use std::str::FromStr;

use serde::Deserialize;

use super::{CountryCode, Recipient, Region};

/// Set of recipients, as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RecipientPattern {
    /// `*`: every recipient.
    All,
    /// `email`: every e-mail address.
    Email,
    /// Phone numbers of a region, such as `RU`.
    Region(Region),
    /// Phone numbers with a prefix, such as `+7999`.
    Prefix(String),
}

/// The text is not a destination.
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
            "*" => Ok(Self::All),
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
    /// Returns true if `recipient` is in the set.
    pub fn contains(&self, recipient: &Recipient) -> bool {
        match self {
            Self::All => true,
            Self::Email => recipient.is_email(),
            Self::Region(region) => CountryCode::of(recipient) == CountryCode::from(*region),
            Self::Prefix(prefix) => recipient
                .phone_number()
                .is_some_and(|number| number.starts_with(prefix)),
        }
    }
}

/// Destinations that a caller may send to, and those that it may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationPolicy {
    /// Allowed destinations.
    pub allowed: Vec<RecipientPattern>,
    /// Blocked destinations, even if they are allowed too.
    pub blocked: Vec<RecipientPattern>,
}

impl DestinationPolicy {
    /// Allows every recipient.
    pub fn allow_all() -> Self {
        Self {
            allowed: vec![RecipientPattern::All],
            blocked: Vec::new(),
        }
    }

    /// Returns true if messages may go to `recipient`.
    pub fn allows(&self, recipient: &Recipient) -> bool {
        let contains = |destination: &RecipientPattern| destination.contains(recipient);
        self.allowed.iter().any(contains) && !self.blocked.iter().any(contains)
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
    fn regions_with_one_calling_code_are_distinct() {
        let russia = destinations(&["RU"], &[]);
        assert!(russia.allows(&to("+79991234567")));
        assert!(!russia.allows(&to("+77011234567")));
        assert!(!russia.allows(&to("ann@example.com")));
    }

    #[test]
    fn email_address_does_not_match_phone_patterns() {
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
    fn blocked_destination_overrides_allowed_ones() {
        let but_one = destinations(&["*"], &["+7999", "email"]);
        assert!(!but_one.allows(&to("+79991234567")));
        assert!(but_one.allows(&to("+79161234567")));
        assert!(!but_one.allows(&to("ann@example.com")));
        assert!(!DestinationPolicy::default().allows(&to("+79991234567")));
        assert!(DestinationPolicy::allow_all().allows(&to("+79991234567")));
        assert!(DestinationPolicy::allow_all().allows(&to("ann@example.com")));
    }

    #[test]
    fn text_that_is_not_a_destination_is_rejected() {
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
