//! Validation of all templates at start-up, with the shortest and the longest values that
//! they may be given, so that no mistake is found first by an end user.

use std::{collections::BTreeMap, time::Duration};

use super::{
    MessageTemplates, PurposeTemplates, PurposeTexts, RenderContext, TemplateContext,
    TemplateField, TextError, VariableSettings, Variables, context, lookup,
    segments::{SmsEncoding, segments},
    shows_code,
    template::problem,
};
use otpd_rules::{Channel, OtpCode, Purpose};

/// Number of bytes of an SMS in which Android looks for a hash.
pub(super) const ANDROID_BYTES: usize = 140;
/// Longest life of a code, for samples: the upper bound of `code_ttl`.
const LONGEST_LIFE: Duration = Duration::from_mins(10);
/// Text that HTML must escape.
const MARKUP: &str = "<&>";

impl MessageTemplates {
    /// Renders samples of all templates.
    pub(super) fn validate_all(&self) -> Result<(), TextError> {
        let default = Purpose::default();
        let all = self.purposes.iter().chain([(&default, &self.general)]);
        for (purpose, texts) in all {
            for table in texts.tables.values() {
                for &field in table.templates.keys() {
                    self.validate_field(texts, table, field)?;
                }
            }
            for table in self.reachable(texts) {
                self.validate_android_length(purpose, texts, table)?;
            }
        }
        Ok(())
    }

    /// Renders one template with the shortest and the longest values, and with markup.
    fn validate_field(
        &self,
        texts: &PurposeTexts,
        table: &PurposeTemplates,
        field: TemplateField,
    ) -> Result<(), TextError> {
        let key = &table.templates[&field];
        let fault = |problem: String| Err(TextError::new(key, problem));
        let channel = match field {
            TemplateField::Voice => Channel::Voice,
            _ => Channel::Sms,
        };
        for (variables, life_left) in [
            (least(&texts.variables), Duration::from_secs(1)),
            (most(&texts.variables, 'x'), LONGEST_LIFE),
            (markup(&texts.variables), LONGEST_LIFE),
        ] {
            let code = sample_code(texts.code_length);
            let render_context = RenderContext {
                code: &code,
                life_left,
                variables: &variables,
            };
            let context: TemplateContext<'_> = context(&texts.variables, channel, &render_context);
            let text = match self.engine.render(key, &context) {
                Ok(text) => text,
                Err(error) => return fault(problem(&error)),
            };
            if text.trim().is_empty() {
                return fault("the text is empty".to_owned());
            }
            if field != TemplateField::Subject && !shows_code(field, &text, code.expose()) {
                return fault(
                    "the text does not always contain the code; write {{ code }} outside of every condition"
                        .to_owned(),
                );
            }
            if field == TemplateField::Html && text.contains(MARKUP) {
                return fault(
                    "lets callers insert HTML into the e-mail; remove `safe` and `autoescape`"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// Checks that an SMS with the longest values is short enough for Android.
    fn validate_android_length(
        &self,
        purpose: &Purpose,
        texts: &PurposeTexts,
        table: &PurposeTemplates,
    ) -> Result<(), TextError> {
        if texts.autofill.android_hash.is_none() {
            return Ok(());
        }
        let text = self.sample_sms(texts, table, 'x');
        let bytes = android_bytes(&text);
        if bytes <= ANDROID_BYTES {
            return Ok(());
        }
        let locale = &table.locale;
        let (key, problem) = if table.shipped {
            let key = format!("texts.{purpose}.android_hash");
            let remedy = format!("write a shorter one in [texts.{purpose}.{locale}]");
            (
                key,
                format!(
                    "the shipped text in {locale}, with all lines after it, has up to {bytes} bytes, and Android reads {ANDROID_BYTES}; {remedy}"
                ),
            )
        } else {
            let key = table.templates[&TemplateField::Sms].clone();
            (
                key,
                format!(
                    "with android_hash an SMS of {purpose} has up to {bytes} bytes, and Android reads {ANDROID_BYTES}; shorten the text or the max_length of its variables"
                ),
            )
        };
        Err(TextError::new(&key, problem))
    }

    /// Returns the longest SMS of a table: a sample code, and the maximum number of
    /// `letter`s that callers may give.
    pub(super) fn sample_sms(
        &self,
        texts: &PurposeTexts,
        table: &PurposeTemplates,
        letter: char,
    ) -> String {
        let render_context = RenderContext {
            code: &sample_code(texts.code_length),
            life_left: LONGEST_LIFE,
            variables: &most(&texts.variables, letter),
        };
        // A text that cannot be rendered has been rejected before.
        self.fill(texts, table, Channel::Sms, &render_context)
            .map_or(String::new(), |text| text.plain)
    }

    /// Returns the tables that messages of a purpose can use: its own, and the general
    /// ones if it has none in the default locale.
    pub(super) fn reachable<'a>(
        &'a self,
        texts: &'a PurposeTexts,
    ) -> impl Iterator<Item = &'a PurposeTemplates> {
        let own = &texts.tables;
        let alone = lookup(own, self.default_locale.as_str()).is_some();
        let general = &self.general.tables;
        let others = general
            .iter()
            .filter(move |(locale, _)| !alone && lookup(own, locale.as_str()).is_none());
        own.values().chain(others.map(|(_, table)| table))
    }
}

/// Returns the length of an SMS as Android counts it. The documentation gives bytes
/// without the encoding, so the longer one counts: UTF-8, or that of the SMS.
pub(super) fn android_bytes(text: &str) -> usize {
    let counted = segments(text);
    match counted.encoding {
        SmsEncoding::Gsm7 => text.len(),
        SmsEncoding::Ucs2 => text.len().max(counted.units * 2),
    }
}

fn sample_code(length: u8) -> OtpCode {
    let digits = &"1234567890"[..usize::from(length).clamp(4, 10)];
    OtpCode::from_digits(digits).expect("the sample has 4 to 10 digits")
}

fn values(
    declared: &Variables,
    value: impl Fn(&VariableSettings) -> String,
) -> BTreeMap<String, String> {
    declared
        .iter()
        .map(|(name, settings)| (name.to_owned(), value(settings)))
        .collect()
}

/// Returns the required variables only.
fn least(declared: &Variables) -> BTreeMap<String, String> {
    values(declared, |settings| {
        "x".repeat(usize::from(settings.required))
    })
}

/// Returns all variables at their maximum length.
fn most(declared: &Variables, letter: char) -> BTreeMap<String, String> {
    values(declared, |settings| {
        letter.to_string().repeat(settings.max_length)
    })
}

fn markup(declared: &Variables) -> BTreeMap<String, String> {
    values(declared, |_| MARKUP.to_owned())
}
