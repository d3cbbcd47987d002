//! `[texts.PURPOSE]` and `[texts.PURPOSE.LOCALE]`, as they are written.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{self, Deserializer, MapAccess, Visitor},
};

use super::{locale::Locale, template::TemplateField};

/// The keys of `[texts.PURPOSE]` besides its locales.
const KEYS: &[&str] = &[
    "origin",
    "android_hash",
    "variables",
    "a table for each locale",
];

/// What the messages of one purpose say: `[texts.PURPOSE]`.
#[derive(Clone, Debug, Default)]
pub struct PurposeTextSettings {
    /// The host name of the site whose form browsers fill; empty: none.
    pub origin: Option<String>,
    /// Which Android app may read the code; empty: none.
    pub android_hash: Option<String>,
    /// What callers may put into the texts.
    pub variables: BTreeMap<String, VariableSettings>,
    /// The texts, by language: `[texts.PURPOSE.LOCALE]`.
    pub texts: BTreeMap<Locale, TextSettings>,
}

/// What the messages of one purpose say in one language: templates, of which those
/// that are left out are like `plain`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// The text for every channel that has none of its own. Required.
    pub plain: Option<String>,
    /// The text of an SMS.
    pub sms: Option<String>,
    /// What is read aloud; the digits of the code stand apart.
    pub voice: Option<String>,
    /// The text on WhatsApp.
    pub whatsapp: Option<String>,
    /// The text on Telegram.
    pub telegram: Option<String>,
    /// The subject of an e-mail; left out: the general one of the language.
    pub subject: Option<String>,
    /// The plain text of an e-mail.
    pub email: Option<String>,
    /// The HTML of an e-mail; left out: it has none.
    pub html: Option<String>,
}

impl TextSettings {
    /// The templates that are written.
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

/// What a caller may put into texts under one name.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VariableSettings {
    /// Whether every SendOtp must give it.
    pub required: bool,
    /// How many characters it may have, 1 to 256.
    pub max_length: usize,
    /// Whether it may hold what phones and mail programs show as a link.
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

/// A key of `[texts.PURPOSE]`.
enum TextKey {
    Origin,
    AndroidHash,
    Variables,
    Text(Locale),
}

// Reading the key by itself, as derived code does, has the error name it.
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
                            "{locale} is written twice, in capitals and in small letters"
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
