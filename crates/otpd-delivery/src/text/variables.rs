//! Variables that callers may insert into texts.
//!
//! A caller often passes on input of an end user, such as a name. Without limits an end
//! user could make otpd send a link, in the site's name and at its cost, to any number.
//! So a variable must be declared, short, on one line, and without links unless the
//! configuration allows them for it.

use std::collections::BTreeMap;

use super::{TextError, link_detection::looks_like_link, settings::VariableSettings};
use otpd_rules::is_ignorable;

/// Variables that otpd gives to every text.
pub(super) const GIVEN: [&str; 3] = ["code", "minutes", "ttl_seconds"];

/// Upper bound of a variable's `max_length`.
const MAX_LENGTH: usize = 256;
/// Maximum length of a variable's name, in bytes.
const MAX_NAME_BYTES: usize = 32;

/// Variables that the texts of one purpose declare.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(BTreeMap<String, VariableSettings>);

/// Variables of a request that do not match the declared ones. It names the variable, and
/// never shows its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// The texts of this purpose have no variable of that name.
    #[error("{name} is not declared for this purpose; {}", known(.declared))]
    Undeclared {
        /// Name of the variable, if it is a valid name.
        name: String,
        /// Names of the declared variables.
        declared: Vec<String>,
    },
    /// The variable is required, and missing or empty.
    #[error("{name} is required for this purpose; give it a value that is not empty")]
    Missing {
        /// Name of the variable.
        name: String,
    },
    /// The value is too long.
    #[error("{name} has {length} characters; at most {most} are allowed")]
    TooLong {
        /// Name of the variable.
        name: String,
        /// Number of characters of the value.
        length: usize,
        /// Maximum number of characters.
        most: usize,
    },
    /// The value has a character that is not visible in a message.
    #[error(
        "{name} has a control character, a line break, or an invisible character such as those that turn the direction of writing; leave it out"
    )]
    Invisible {
        /// Name of the variable.
        name: String,
    },
    /// Phones would show the value as a link.
    #[error(
        "{name} looks like a link or an address, which is refused so that otpd cannot be used to send links; leave out the full stop between letters, or set allow_links for this variable"
    )]
    Link {
        /// Name of the variable.
        name: String,
    },
}

fn known(declared: &[String]) -> String {
    if declared.is_empty() {
        "it has no variables".to_owned()
    } else {
        format!("its variables are {}", declared.join(", "))
    }
}

impl Variables {
    /// Merges the variables of `settings` with those of `general`; the former override
    /// the latter.
    pub fn declare(
        key: &str,
        settings: &BTreeMap<String, VariableSettings>,
        general: &Self,
    ) -> Result<Self, TextError> {
        let mut declared = general.0.clone();
        for (name, variable) in settings {
            let key = format!("{key}.variables.{name}");
            if !is_name(name) {
                let problem = "the name of a variable is a lower-case letter and then up to 31 lower-case letters, digits or \"_\"";
                return Err(TextError::new(&key, problem));
            }
            if GIVEN.contains(&name.as_str()) {
                let problem = "is given by otpd itself; choose another name";
                return Err(TextError::new(&key, problem));
            }
            if !(1..=MAX_LENGTH).contains(&variable.max_length) {
                let problem = format!(
                    "{} is out of bounds; allowed: 1 to {MAX_LENGTH}",
                    variable.max_length
                );
                return Err(TextError::new(&format!("{key}.max_length"), problem));
            }
            declared.insert(name.clone(), variable.clone());
        }
        Ok(Self(declared))
    }

    /// Returns the declared variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &VariableSettings)> {
        self.0
            .iter()
            .map(|(name, settings)| (name.as_str(), settings))
    }

    /// Returns true if a text may use `name`.
    pub fn has(&self, name: &str) -> bool {
        GIVEN.contains(&name) || self.0.contains_key(name)
    }

    /// Returns the names, those that otpd gives first.
    pub fn names(&self) -> String {
        let declared = self.0.keys().map(String::as_str);
        GIVEN
            .into_iter()
            .chain(declared)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Checks the variables that a caller gives.
    pub fn check(&self, values: &BTreeMap<String, String>) -> Result<(), VariableError> {
        for name in values.keys() {
            if !self.0.contains_key(name) {
                let name = if is_name(name) {
                    name
                } else {
                    "a variable with an invalid name"
                };
                return Err(VariableError::Undeclared {
                    name: name.to_owned(),
                    declared: self.0.keys().cloned().collect(),
                });
            }
        }
        self.0.iter().try_for_each(|(name, settings)| {
            let value = values.get(name).map_or("", String::as_str);
            check_value(name, settings, value)
        })
    }
}

fn check_value(name: &str, settings: &VariableSettings, value: &str) -> Result<(), VariableError> {
    let name = name.to_owned();
    let length = value.chars().count();
    if settings.required && value.trim().is_empty() {
        Err(VariableError::Missing { name })
    } else if length > settings.max_length {
        Err(VariableError::TooLong {
            name,
            length,
            most: settings.max_length,
        })
    } else if value.chars().any(is_invisible) {
        Err(VariableError::Invisible { name })
    } else if !settings.allow_links && looks_like_link(value) {
        Err(VariableError::Link { name })
    } else {
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Returns true for control characters, line and paragraph separators, and characters that
/// change the direction of writing or have no width. Joiners and variation selectors are not
/// among them: names in Persian or Mongolian and several emoji need them.
fn is_invisible(character: char) -> bool {
    let is_needed = matches!(
        character,
        '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}'
    );
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{FFF9}'..='\u{FFFB}')
        || (is_ignorable(character) && !is_needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(settings: &[(&str, bool, usize, bool)]) -> Variables {
        let settings = settings
            .iter()
            .map(|&(name, required, max_length, allow_links)| {
                let settings = VariableSettings {
                    required,
                    max_length,
                    allow_links,
                };
                (name.to_owned(), settings)
            })
            .collect();
        Variables::declare("texts.login", &settings, &Variables::default()).unwrap()
    }

    fn check(variables: &Variables, values: &[(&str, &str)]) -> Result<(), String> {
        let values = values
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        variables.check(&values).map_err(|error| error.to_string())
    }

    #[test]
    fn declared_variables_are_accepted_and_each_problem_is_reported() {
        let declared = variables(&[("name", true, 10, false), ("site", false, 64, true)]);
        for good in [
            &[("name", "Анна")][..],
            &[
                ("name", "十文字までの名前です"),
                ("site", "https://example.com/a?b"),
            ],
            &[("name", "نام\u{200c}ها"), ("site", "")],
            &[("name", "👩\u{200d}🚀")],
        ] {
            assert_eq!(check(&declared, good), Ok(()), "{good:?}");
        }
        for (bad, part) in [
            (&[][..], "name is required"),
            (&[("name", "")], "name is required"),
            (&[("name", " \u{a0}")], "name is required"),
            (
                &[("name", "12345678901")],
                "name has 11 characters; at most 10",
            ),
            (&[("name", "a\nb")], "name has a control"),
            (&[("name", "a\u{2028}b")], "name has a control"),
            (&[("name", "a\u{202e}b")], "name has a control"),
            (&[("name", "a\u{200b}b")], "name has a control"),
            (&[("name", "evil.com")], "name looks like a link"),
            (
                &[("name", "a"), ("nmae", "b")],
                "nmae is not declared for this purpose; its variables are name, site",
            ),
            (
                &[("name", "a"), ("SECRET VALUE", "b")],
                "a variable with an invalid name is not declared",
            ),
            (&[("name", "a"), ("code", "000000")], "code is not declared"),
            (&[("name", "a"), ("site", "a\u{7f}")], "site has a control"),
        ] {
            let error = check(&declared, bad).expect_err(part);
            assert!(error.starts_with(part), "{error:?} for {part:?}");
        }
        let error = check(&Variables::default(), &[("name", "a")]).unwrap_err();
        assert!(error.ends_with("it has no variables"), "{error}");
    }

    #[test]
    fn variable_error_never_shows_the_value() {
        let declared = variables(&[("name", true, 8, false)]);
        for value in ["secret too long", "se\ncret", "se.cret"] {
            let error = check(&declared, &[("name", value)]).unwrap_err();
            assert!(
                !error.contains("secret") && !error.contains("cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn specific_declaration_is_validated_and_overrides_the_general_one() {
        let general = variables(&[("name", true, 64, false), ("place", false, 64, false)]);
        let own = BTreeMap::from([("name".to_owned(), VariableSettings::default())]);
        let declared = Variables::declare("texts.login", &own, &general).unwrap();
        assert_eq!(declared.names(), "code, minutes, ttl_seconds, name, place");
        assert_eq!(check(&declared, &[]), Ok(()));

        for (name, max_length, key) in [
            ("code", 1, "texts.login.variables.code"),
            ("Name", 1, "texts.login.variables.Name"),
            ("1", 1, "texts.login.variables.1"),
            ("a-b", 1, "texts.login.variables.a-b"),
            ("name", 0, "texts.login.variables.name.max_length"),
            ("name", 257, "texts.login.variables.name.max_length"),
        ] {
            let settings = VariableSettings {
                max_length,
                ..VariableSettings::default()
            };
            let settings = BTreeMap::from([(name.to_owned(), settings)]);
            let error = Variables::declare("texts.login", &settings, &general).unwrap_err();
            assert_eq!(error.key, key);
        }
    }
}
