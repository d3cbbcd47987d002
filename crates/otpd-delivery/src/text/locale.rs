//! Languages of texts, and the choice of a text for a request.

use std::{borrow::Borrow, collections::BTreeMap, fmt};

use serde::Deserialize;

/// Maximum length of a tag: RFC 5646, section 4.4.1, asks all programs to accept it.
const MAX_BYTES: usize = 35;

/// Language of a text, as a BCP 47 tag in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Locale(String);

/// The text is not a BCP 47 tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a language tag; give a language of two or three letters, and after it, if need be, a script and a region, such as \"ru\", \"en-GB\" or \"sr-Latn-RS\""
)]
pub struct LocaleError;

impl Locale {
    /// Parses a tag, in upper or lower case.
    ///
    /// # Errors
    /// `LocaleError` unless it is a language of two or three letters with subtags of at
    /// most eight letters and digits, the last of which is not a single letter, 35 bytes
    /// in all. RFC 5646 only reserves longer names of languages; without them a mistyped
    /// key is not accepted as one.
    pub fn parse(tag: &str) -> Result<Self, LocaleError> {
        let mut subtags = tag.split('-');
        let language = subtags.next().unwrap_or_default();
        let well_formed = tag.len() <= MAX_BYTES
            && (2..=3).contains(&language.len())
            && language.bytes().all(|byte| byte.is_ascii_alphabetic())
            && tag.rsplit('-').next().is_some_and(|last| last.len() > 1)
            && subtags.all(|subtag| {
                (1..=8).contains(&subtag.len())
                    && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        if well_formed {
            Ok(Self(tag.to_ascii_lowercase()))
        } else {
            Err(LocaleError)
        }
    }

    /// Returns the tag, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Locale {
    fn default() -> Self {
        Self("en".to_owned())
    }
}

impl TryFrom<String> for Locale {
    type Error = LocaleError;

    fn try_from(tag: String) -> Result<Self, Self::Error> {
        Self::parse(&tag)
    }
}

impl Borrow<str> for Locale {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Returns the entry of `written` for the language `asked`, by the lookup of RFC 4647,
/// section 3.4: the tag, then the tag without its last subtag, and so on.
pub(super) fn lookup<'a, T>(written: &'a BTreeMap<Locale, T>, asked: &str) -> Option<&'a T> {
    let asked = asked.to_ascii_lowercase();
    let mut range = asked.as_str();
    loop {
        if let Some(found) = written.get(range) {
            return Some(found);
        }
        // The RFC also drops a single letter that is then the last one. No tag of a text
        // ends with one.
        range = range.rsplit_once('-')?.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_tags_are_case_insensitive() {
        for (tag, read) in [
            ("ru", "ru"),
            ("en-GB", "en-gb"),
            ("sr-Latn-RS", "sr-latn-rs"),
            ("zh-Hant-CN-x-private1", "zh-hant-cn-x-private1"),
            ("kok", "kok"),
        ] {
            assert_eq!(Locale::parse(tag).unwrap().as_str(), read);
        }
        let long = format!("en{}", "-abcd".repeat(7));
        for tag in [
            "",
            "e",
            "en_GB",
            "en-",
            "-en",
            "en--GB",
            "русский",
            "orgin",
            "en-123456789",
            "e1",
            "en.plain",
            "de-x",
            long.as_str(),
        ] {
            assert_eq!(Locale::parse(tag), Err(LocaleError), "{tag:?}");
        }
    }

    #[test]
    fn longest_matching_locale_prefix_is_found() {
        let written: BTreeMap<Locale, &str> = ["ru", "en", "en-gb", "zh-hant", "de-x-alt"]
            .into_iter()
            .map(|tag| (Locale::parse(tag).unwrap(), tag))
            .collect();
        for (asked, found) in [
            ("ru", Some("ru")),
            ("RU-ru", Some("ru")),
            ("en-GB", Some("en-gb")),
            ("en-GB-oxendict", Some("en-gb")),
            ("en-US", Some("en")),
            ("zh-Hant-CN-x-private1-private2", Some("zh-hant")),
            ("zh", None),
            ("zh-Hans", None),
            ("de-x-alt", Some("de-x-alt")),
            ("de-x", None),
            ("de", None),
            ("r", None),
            ("", None),
            ("-", None),
            ("---", None),
            ("ru_RU", None),
            ("русский", None),
        ] {
            assert_eq!(lookup(&written, asked).copied(), found, "{asked:?}");
        }
    }
}
