//! Purpose of a code.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::Deserialize;

/// Maximum length of a purpose's name, in bytes.
const MAX_LENGTH: usize = 32;

/// Purpose of a code, such as `login`: `[a-z][a-z0-9_-]{0,31}`. A code sent for one
/// purpose is unknown to every other. Clones share the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Purpose(Arc<str>);

/// The name of a purpose does not match `[a-z][a-z0-9_-]{0,31}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a purpose is 1 to 32 characters, a small letter and then small letters, digits, \"_\" or \"-\"; empty means \"default\""
)]
pub struct PurposeError;

impl Purpose {
    /// Name of the purpose that an empty one stands for.
    pub const DEFAULT: &str = "default";

    /// Parses a purpose; empty stands for [`DEFAULT`](Self::DEFAULT).
    ///
    /// # Errors
    /// [`PurposeError`] if the name does not match `[a-z][a-z0-9_-]{0,31}`.
    pub fn parse(name: &str) -> Result<Self, PurposeError> {
        if name.is_empty() {
            return Ok(Self::default());
        }
        let well_formed = name.len() <= MAX_LENGTH
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if well_formed {
            Ok(Self(name.into()))
        } else {
            Err(PurposeError)
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Purpose {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for Purpose {
    type Err = PurposeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name)
    }
}

impl TryFrom<String> for Purpose {
    type Error = PurposeError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name)
    }
}

impl Borrow<str> for Purpose {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn purpose_names_match_the_documented_format() {
        let longest = "a".repeat(32);
        for good in ["a", "login", "sign-up_2", longest.as_str()] {
            assert_eq!(Purpose::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Purpose::parse("").unwrap(), Purpose::default());
        assert_eq!(Purpose::default().as_str(), "default");
        let too_long = "a".repeat(33);
        for bad in [
            "Login",
            "1a",
            "-a",
            "_a",
            "a b",
            "a\0",
            "логин",
            "a.b",
            too_long.as_str(),
        ] {
            assert_eq!(Purpose::parse(bad), Err(PurposeError), "{bad:?}");
        }
    }

    #[test]
    fn purpose_parses_and_displays_as_its_name() {
        let login = Purpose::parse("login").unwrap();
        assert_eq!("login".parse(), Ok(login.clone()));
        assert_eq!("Login".parse::<Purpose>(), Err(PurposeError));
        assert_eq!(Purpose::try_from("login".to_owned()), Ok(login.clone()));
        assert_eq!(Purpose::try_from("Login".to_owned()), Err(PurposeError));
        assert_eq!(login.to_string(), "login");
        assert!(BTreeSet::from([login]).contains("login"));
    }
}
