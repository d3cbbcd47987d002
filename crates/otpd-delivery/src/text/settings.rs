//! Settings of texts, `[texts.PURPOSE]` and `[texts.PURPOSE.LOCALE]`.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{self, Deserializer, MapAccess, Visitor},
};

use super::{locale::Locale, template::TemplateField};

/// Keys of `[texts.PURPOSE]`, apart from its locales.
const KEYS: &[&str] = &[
    "origin",
    "android_hash",
    "variables",
    "a table for each locale",
];

/// Texts of one purpose: `[texts.PURPOSE]`.
#[derive(Clone, Debug, Default)]
pub struct PurposeTextSettings {
    /// Host name of the site with the form that browsers fill in; empty means none.
    pub origin: Option<String>,
    /// Hash of the Android app that may read the code; empty means none.
    pub android_hash: Option<String>,
    /// Variables that callers may give.
    pub variables: BTreeMap<String, VariableSettings>,
    /// Texts by language: `[texts.PURPOSE.LOCALE]`.
    pub texts: BTreeMap<Locale, TextSettings>,
}

/// Texts of one purpose in one language, as templates. A missing one is the same as
/// `plain`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// Text for every channel without its own. Required.
    pub plain: Option<String>,
    /// Text of an SMS.
    pub sms: Option<String>,
    /// Text that is read aloud; the digits of the code are separated.
    pub voice: Option<String>,
    /// Text on WhatsApp.
    pub whatsapp: Option<String>,
    /// Text on Telegram.
    pub telegram: Option<String>,
    /// Subject of an e-mail; if missing, the general one of the language.
    pub subject: Option<String>,
    /// Plain text of an e-mail.
    pub email: Option<String>,
    /// HTML of an e-mail; if missing, it has none.
    pub html: Option<String>,
}

impl TextSettings {
    /// Returns the templates that are given.
    pub(super) fn templates(&self) -> impl Iterator<Item = (TemplateField, &str)> {
        let written = [
            (TemplateField::Plain, &self.plain),
            (TemplateField::Sms, &self.sms),
            (TemplateField::Voice, &self.voice),
            (TemplateField::Whatsapp, &self.whatsapp),
            (TemplateField::Telegram, &self.telegram),
            (TemplateField::Subject, &self.subject),
            (TemplateField::Email, &self.email),
            (TemplateField::Html, &self.html),
        ];
        written
            .into_iter()
            .filter_map(|(field, template)| Some((field, template.as_deref()?)))
    }
}

/// Variable that callers may give for texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VariableSettings {
    /// Requires it in every SendOtp.
    pub required: bool,
    /// Maximum number of characters, 1 to 256.
    pub max_length: usize,
    /// Allows text that phones and mail programs show as a link.
    pub allow_links: bool,
}

impl Default for VariableSettings {
    fn default() -> Self {
        Self {
            required: false,
            max_length: 64,
            allow_links: false,
        }
    }
}

/// Key of `[texts.PURPOSE]`.
enum TextKey {
    Origin,
    AndroidHash,
    Variables,
    Text(Locale),
}

// Derived code reads the key by itself as well, so that an error names it.
impl<'de> Deserialize<'de> for TextKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        match key.as_str() {
            "origin" => Ok(Self::Origin),
            "android_hash" => Ok(Self::AndroidHash),
            "variables" => Ok(Self::Variables),
            _ => Locale::parse(&key)
                .map(Self::Text)
                .map_err(|_| de::Error::unknown_field(&key, KEYS)),
        }
    }
}

struct PurposeVisitor;

impl<'de> Visitor<'de> for PurposeVisitor {
    type Value = PurposeTextSettings;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a table of texts by locale")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut settings = PurposeTextSettings::default();
        while let Some(key) = map.next_key()? {
            match key {
                TextKey::Origin => settings.origin = Some(map.next_value()?),
                TextKey::AndroidHash => settings.android_hash = Some(map.next_value()?),
                TextKey::Variables => settings.variables = map.next_value()?,
                TextKey::Text(locale) => {
                    let text = map.next_value()?;
                    if settings.texts.insert(locale.clone(), text).is_some() {
                        return Err(de::Error::custom(format_args!(
                            "{locale} is given twice, in upper and in lower case; remove one"
                        )));
                    }
                }
            }
        }
        Ok(settings)
    }
}

impl<'de> Deserialize<'de> for PurposeTextSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PurposeVisitor)
    }
}
