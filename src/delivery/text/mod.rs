//! What messages say: templates by purpose and language, which are `[texts.…]` in the
//! configuration. docs/texts.md explains them to who writes them.

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

/// The texts of all purposes in all languages, compiled and tried out.
#[derive(Debug)]
pub struct MessageTemplates {
    engine: Engine,
    default_locale: Locale,
    /// What purposes without texts of their own have.
    general: PurposeTexts,
    purposes: BTreeMap<Purpose, PurposeTexts>,
}

/// What the messages of one purpose say.
#[derive(Debug)]
struct PurposeTexts {
    /// Its own, by language.
    tables: BTreeMap<Locale, PurposeTemplates>,
    variables: Variables,
    autofill: Autofill,
    /// How many digits its codes have.
    code_length: u8,
}

/// What the messages of one purpose say in one language: which template each field
/// has. All but the HTML have one.
#[derive(Clone, Debug)]
struct PurposeTemplates {
    /// Where it stands in the configuration: `texts.PURPOSE.LOCALE`.
    key: String,
    locale: Locale,
    /// Whether otpd brought it along.
    shipped: bool,
    templates: BTreeMap<TemplateField, String>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug)]
pub struct RenderContext<'a> {
    /// The code.
    pub code: &'a OtpCode,
    /// How long it still lives.
    pub life_left: Duration,
    /// What the caller gave, as [`MessageTemplates::check_variables`] passed it.
    pub variables: &'a BTreeMap<String, String>,
}

/// A mistake in the texts of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct TextError {
    /// The key at fault.
    pub key: String,
    /// What is wrong with it, and what to do.
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

/// A template failed on these very values, although it passed its trial at the start.
/// Shows nothing of what it was filled with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct RenderError {
    /// The template at fault.
    pub key: String,
    /// What happened.
    pub problem: String,
}

impl MessageTemplates {
    /// Whether a message of `purpose` can be given these `variables`.
    ///
    /// # Errors
    /// The first that cannot, or is missing. Never shows a value.
    pub fn check_variables(
        &self,
        purpose: &Purpose,
        variables: &BTreeMap<String, String>,
    ) -> Result<(), VariableError> {
        self.of(purpose).variables.check(variables)
    }

    /// What a message says. The same facts give the same text.
    ///
    /// The language is found by the lookup of RFC 4647, section 3.4, among the texts of
    /// the purpose, then there for the default locale, then among the general texts.
    /// The purpose goes before the language, because its text may name what the code
    /// confirms, a payment for instance, and a person must not confirm unseen what
    /// another language would have told.
    ///
    /// Variables that the texts do not declare are left out, and those that are not
    /// given are empty: the configuration may have changed since they were checked.
    ///
    /// # Errors
    /// Where the template fails, or its text lacks the code.
    pub fn render(
        &self,
        purpose: &Purpose,
        locale: &str,
        channel: Channel,
        facts: &RenderContext<'_>,
    ) -> Result<MessageBody, RenderError> {
        let texts = self.of(purpose);
        self.fill(texts, self.table(texts, locale), channel, facts)
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
            .expect("a general text in the default locale is demanded at the start")
    }

    fn fill(
        &self,
        texts: &PurposeTexts,
        table: &PurposeTemplates,
        channel: Channel,
        facts: &RenderContext<'_>,
    ) -> Result<MessageBody, RenderError> {
        let context = context(&texts.variables, channel, facts);
        let mut plain = self.field(table, TemplateField::of(channel), &context, facts.code)?;
        plain.truncate(plain.trim_end().len());
        if channel == Channel::Sms {
            texts.autofill.append(&mut plain, facts.code);
        }
        if channel != Channel::Email {
            return Ok(MessageBody {
                plain,
                subject: None,
                html: None,
            });
        }
        let subject = self.field(table, TemplateField::Subject, &context, facts.code)?;
        let html = table.templates.contains_key(&TemplateField::Html);
        Ok(MessageBody {
            plain,
            // A header is one line.
            subject: Some(subject.split_whitespace().collect::<Vec<_>>().join(" ")),
            html: html
                .then(|| self.field(table, TemplateField::Html, &context, facts.code))
                .transpose()?,
        })
    }

    /// Fills the template of one field.
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

/// Time that a message may take to its provider without a shorter life in its text.
const EN_ROUTE: Duration = Duration::from_secs(10);

/// Whole minutes that a code still lives, at least one. A code of five minutes says five
/// in its first message, not four.
fn whole_minutes(life_left: Duration) -> u64 {
    (life_left.saturating_add(EN_ROUTE).as_secs() / 60).max(1)
}

/// What a template is filled with. A voice spells the digits, since it would read
/// "123456" as a number.
fn context<'a>(
    declared: &'a Variables,
    channel: Channel,
    facts: &RenderContext<'_>,
) -> TemplateContext<'a> {
    let code = facts.code.expose();
    let code = if channel == Channel::Voice {
        let digits: Vec<String> = code.chars().map(String::from).collect();
        digits.join(", ")
    } else {
        code.to_owned()
    };
    let seconds = facts.life_left.as_secs().max(1);
    let given = [
        ("code", Value::from(code)),
        ("minutes", Value::from(whole_minutes(facts.life_left))),
        ("ttl_seconds", Value::from(seconds)),
    ];
    let variables = declared.iter().map(|(name, _)| {
        let value = facts.variables.get(name).map_or("", String::as_str);
        (name, Value::from(value))
    });
    variables.chain(given).collect()
}
