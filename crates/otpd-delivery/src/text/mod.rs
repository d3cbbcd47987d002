//! Texts of messages: templates by purpose and language, `[texts.…]` in the
//! configuration. docs/texts.md explains them to operators.

mod autofill;
mod compile;
mod cost_report;
mod defaults;
mod link_detection;
mod locale;
mod segments;
mod settings;
mod template;
#[cfg(test)]
mod tests;
mod validate;
mod variables;

use std::{collections::BTreeMap, time::Duration};

use minijinja::Value;

pub use locale::Locale;
pub use settings::PurposeTextSettings;

use super::MessageBody;
use autofill::Autofill;
use locale::lookup;
use otpd_rules::{Channel, OtpCode, Purpose};
use settings::{TextSettings, VariableSettings};
use template::{Engine, TemplateContext, TemplateField, public_problem, shows_code};
use variables::{VariableError, Variables};

/// Texts of all purposes in all languages, compiled and validated.
#[derive(Debug)]
pub struct MessageTemplates {
    engine: Engine,
    default_locale: Locale,
    /// Texts of purposes without their own.
    general: PurposeTexts,
    purposes: BTreeMap<Purpose, PurposeTexts>,
}

/// Texts of one purpose.
#[derive(Debug)]
struct PurposeTexts {
    /// Own texts, by language.
    tables: BTreeMap<Locale, PurposeTemplates>,
    variables: Variables,
    autofill: Autofill,
    /// Number of digits of its codes.
    code_length: u8,
}

/// Texts of one purpose in one language, as the template of each field. All fields but
/// the HTML have one.
#[derive(Clone, Debug)]
struct PurposeTemplates {
    /// Key in the configuration: `texts.PURPOSE.LOCALE`.
    key: String,
    locale: Locale,
    /// True for the texts that otpd ships.
    shipped: bool,
    templates: BTreeMap<TemplateField, String>,
}

/// Input of a text.
#[derive(Clone, Copy, Debug)]
pub struct RenderContext<'a> {
    /// The code.
    pub code: &'a OtpCode,
    /// Time until the code expires.
    pub life_left: Duration,
    /// Variables of the caller, checked by [`MessageTemplates::check_variables`].
    pub variables: &'a BTreeMap<String, String>,
}

/// Error in the configured texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct TextError {
    /// Key of the wrong value.
    pub key: String,
    /// Description of the problem, and its remedy.
    pub problem: String,
}

impl TextError {
    fn new(key: &str, problem: impl ToString) -> Self {
        Self {
            key: key.to_owned(),
            problem: problem.to_string(),
        }
    }
}

/// Failure of a template on the values of a message, although it was valid at start-up.
/// It does not show the values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct RenderError {
    /// Key of the template.
    pub key: String,
    /// Description of the problem.
    pub problem: String,
}

impl MessageTemplates {
    /// Checks the `variables` of a message of `purpose`.
    ///
    /// # Errors
    /// `VariableError` for the first one that is invalid or missing. It never shows a
    /// value.
    pub fn check_variables(
        &self,
        purpose: &Purpose,
        variables: &BTreeMap<String, String>,
    ) -> Result<(), VariableError> {
        self.of(purpose).variables.check(variables)
    }

    /// Returns the text of a message. Equal inputs give equal texts.
    ///
    /// The language is found by the lookup of RFC 4647, section 3.4, among the texts of
    /// the purpose, then there for the default locale, then among the general texts. The
    /// purpose comes before the language, because its text may name the action that the
    /// code confirms, such as a payment. Otherwise a person could confirm an action that
    /// only a text in another language names.
    ///
    /// Variables that the texts do not declare are left out, and missing ones are empty,
    /// because the configuration may have changed since they were checked.
    ///
    /// # Errors
    /// [`RenderError`] if the template fails, or if its text lacks the code.
    pub fn render(
        &self,
        purpose: &Purpose,
        locale: &str,
        channel: Channel,
        render_context: &RenderContext<'_>,
    ) -> Result<MessageBody, RenderError> {
        let texts = self.of(purpose);
        self.fill(texts, self.table(texts, locale), channel, render_context)
    }

    fn of(&self, purpose: &Purpose) -> &PurposeTexts {
        self.purposes.get(purpose).unwrap_or(&self.general)
    }

    fn table<'a>(&'a self, texts: &'a PurposeTexts, locale: &str) -> &'a PurposeTemplates {
        let default = self.default_locale.as_str();
        lookup(&texts.tables, locale)
            .or_else(|| lookup(&texts.tables, default))
            .or_else(|| lookup(&self.general.tables, locale))
            .or_else(|| lookup(&self.general.tables, default))
            .expect("start-up fails without a general text in the default locale")
    }

    fn fill(
        &self,
        texts: &PurposeTexts,
        table: &PurposeTemplates,
        channel: Channel,
        render_context: &RenderContext<'_>,
    ) -> Result<MessageBody, RenderError> {
        let context = context(&texts.variables, channel, render_context);
        let mut plain = self.field(
            table,
            TemplateField::of(channel),
            &context,
            render_context.code,
        )?;
        plain.truncate(plain.trim_end().len());
        if channel == Channel::Sms {
            texts.autofill.append(&mut plain, render_context.code);
        }
        if channel != Channel::Email {
            return Ok(MessageBody {
                plain,
                subject: None,
                html: None,
            });
        }
        let subject = self.field(table, TemplateField::Subject, &context, render_context.code)?;
        let html = table.templates.contains_key(&TemplateField::Html);
        Ok(MessageBody {
            plain,
            // A header is one line.
            subject: Some(subject.split_whitespace().collect::<Vec<_>>().join(" ")),
            html: html
                .then(|| self.field(table, TemplateField::Html, &context, render_context.code))
                .transpose()?,
        })
    }

    /// Renders the template of one field.
    fn field(
        &self,
        table: &PurposeTemplates,
        field: TemplateField,
        context: &TemplateContext<'_>,
        code: &OtpCode,
    ) -> Result<String, RenderError> {
        let key = table.templates.get(&field).map_or("", String::as_str);
        let fault = |problem: String| RenderError {
            key: key.to_owned(),
            problem,
        };
        let text = self.engine.render(key, context);
        let text = text.map_err(|error| fault(public_problem(&error)))?;
        if field != TemplateField::Subject && !shows_code(field, &text, code.expose()) {
            return Err(fault("the text does not contain the code".to_owned()));
        }
        Ok(text)
    }
}

/// Time that a message may take to its provider before its text states a shorter life.
const DELIVERY_ALLOWANCE: Duration = Duration::from_secs(10);

/// Returns the whole minutes until a code expires, at least one. The first message of a
/// code of five minutes says five, not four.
fn whole_minutes(life_left: Duration) -> u64 {
    (life_left.saturating_add(DELIVERY_ALLOWANCE).as_secs() / 60).max(1)
}

/// Returns the values for a template. The code in a voice message is spelled, because it
/// would be read as one number.
fn context<'a>(
    declared: &'a Variables,
    channel: Channel,
    render_context: &RenderContext<'_>,
) -> TemplateContext<'a> {
    let code = render_context.code.expose();
    let code = if channel == Channel::Voice {
        let digits: Vec<String> = code.chars().map(String::from).collect();
        digits.join(", ")
    } else {
        code.to_owned()
    };
    let seconds = render_context.life_left.as_secs().max(1);
    let given = [
        ("code", Value::from(code)),
        (
            "minutes",
            Value::from(whole_minutes(render_context.life_left)),
        ),
        ("ttl_seconds", Value::from(seconds)),
    ];
    let variables = declared.iter().map(|(name, _)| {
        let value = render_context
            .variables
            .get(name)
            .map_or("", String::as_str);
        (name, Value::from(value))
    });
    variables.chain(given).collect()
}
