//! Texts with `{names}` in them.
//!
//! A name is replaced by its value, and that is all: a request to a gateway needs no
//! conditions or loops, and so each value can be escaped by where it stands, which a
//! template language that knows only texts could not do.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};

use crate::delivery::OutgoingMessage;

/// What RFC 3986, section 2.3, leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An asterisk within a value of a pointer, where it is no step of its own.
pub const ASTERISK: &str = "~2";

/// A value that differs from message to message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateVariable {
    /// The recipient: a phone number in E.164, or an e-mail address.
    ToE164,
    /// The digits of a phone number, without "+".
    ToDigits,
    /// The whole message.
    Text,
    /// The code alone.
    Code,
    /// How many whole seconds the code still lives.
    TtlSeconds,
    /// The end user's address; empty where it is unknown.
    ClientIp,
    /// The id of the message, the same at each attempt.
    MessageId,
    /// The same, for a gateway that makes one message of all requests with one key.
    IdempotencyKey,
    /// The language that was asked for; empty where none was.
    Locale,
    /// The id of the challenge.
    ChallengeId,
}

impl TemplateVariable {
    const ALL: [(&'static str, Self); 10] = [
        ("to_e164", Self::ToE164),
        ("to_digits", Self::ToDigits),
        ("text", Self::Text),
        ("code", Self::Code),
        ("ttl_seconds", Self::TtlSeconds),
        ("client_ip", Self::ClientIp),
        ("message_id", Self::MessageId),
        ("idempotency_key", Self::IdempotencyKey),
        ("locale", Self::Locale),
        ("challenge_id", Self::ChallengeId),
    ];
}

/// What the names of one provider stand for.
#[derive(Debug, Default)]
pub struct TemplateScope {
    /// `secrets.NAME`.
    pub secrets: BTreeMap<String, SecretString>,
    /// `parameters.NAME`.
    pub parameters: BTreeMap<String, String>,
}

/// A text with names in it.
#[derive(Clone)]
pub struct ValueTemplate(Vec<TemplatePart>);

#[derive(Clone)]
enum TemplatePart {
    Literal(String),
    Variable(TemplateVariable),
    Secret(SecretString),
}

/// Shows nothing: somebody may have written a secret into the text itself.
impl fmt::Debug for ValueTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Template(…)")
    }
}

impl ValueTemplate {
    /// Reads a text in which `{name}` stands for a value, and `{{` and `}}` for a brace.
    ///
    /// # Errors
    /// What is wrong with it. It shows names only.
    pub fn parse(text: &str, names: &TemplateScope) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(position) = rest.find(['{', '}']) {
            literal.push_str(&rest[..position]);
            let brace = &rest[position..=position];
            rest = &rest[position + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = rest
                .split_once('}')
                .filter(|_| brace == "{")
                .ok_or("has a brace alone; write {name}, or {{ and }} for braces")?;
            rest = after;
            match names.resolve(name)? {
                TemplatePart::Literal(value) => literal.push_str(&value),
                part => {
                    parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
                    parts.push(part);
                }
            }
        }
        literal.push_str(rest);
        parts.push(TemplatePart::Literal(literal));
        parts.retain(|part| !matches!(part, TemplatePart::Literal(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// The text with all values, each as it is.
    pub fn render(&self, values: &TemplateValues<'_>) -> String {
        self.render_with(values, |value| value.into())
    }

    /// The text as part of a URL.
    pub fn render_in_url(&self, values: &TemplateValues<'_>) -> String {
        self.render_with(values, |value| utf8_percent_encode(value, RESERVED).into())
    }

    /// The text as a JSON pointer, where a value is one step or a part of it.
    pub fn render_in_pointer(&self, values: &TemplateValues<'_>) -> String {
        self.render_with(values, |value| {
            let value = value.replace('~', "~0").replace('/', "~1");
            value.replace('*', ASTERISK).into()
        })
    }

    fn render_with(
        &self,
        values: &TemplateValues<'_>,
        escape: impl for<'v> Fn(&'v str) -> Cow<'v, str>,
    ) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                TemplatePart::Literal(literal) => text.push_str(literal),
                TemplatePart::Variable(variable) => text.push_str(&escape(&values.of(*variable))),
                TemplatePart::Secret(secret) => text.push_str(&escape(secret.expose_secret())),
            }
        }
        text
    }

    /// Whether this is the number of seconds alone, which JSON writes without quotes.
    pub fn is_ttl_seconds(&self) -> bool {
        matches!(
            self.0[..],
            [TemplatePart::Variable(TemplateVariable::TtlSeconds)]
        )
    }

    /// Whether the text is the same for all messages.
    pub fn is_fixed(&self) -> bool {
        !self
            .0
            .iter()
            .any(|part| matches!(part, TemplatePart::Variable(_)))
    }

    /// Whether an idempotency key stands in the text.
    pub fn has_idempotency_key(&self) -> bool {
        let is_key = |part: &TemplatePart| {
            matches!(
                part,
                TemplatePart::Variable(TemplateVariable::IdempotencyKey)
            )
        };
        self.0.iter().any(is_key)
    }

    /// The text before the first value that is not written in it.
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(TemplatePart::Literal(literal)) => literal,
            _ => "",
        }
    }
}

impl ValueTemplate {
    /// The template without the first `length` bytes, which are of its beginning.
    pub fn without_beginning(mut self, length: usize) -> Self {
        if let Some(TemplatePart::Literal(literal)) = self.0.first_mut() {
            literal.drain(..length);
        }
        self
    }
}

impl TemplateScope {
    fn resolve(&self, name: &str) -> Result<TemplatePart, String> {
        if let Some(name) = name.strip_prefix("secrets.") {
            let secret = self.secrets.get(name);
            return secret
                .map(|secret| TemplatePart::Secret(secret.clone()))
                .ok_or_else(|| format!("names {{secrets.{name}}}, which is not among secrets"));
        }
        if let Some(name) = name.strip_prefix("parameters.") {
            let parameter = self.parameters.get(name);
            return parameter
                .map(|value| TemplatePart::Literal(value.clone()))
                .ok_or_else(|| {
                    format!("names {{parameters.{name}}}, which is not among parameters")
                });
        }
        let known = TemplateVariable::ALL
            .iter()
            .find(|(known, _)| *known == name);
        known
            .map(|(_, variable)| TemplatePart::Variable(*variable))
            .ok_or_else(|| {
                let known: Vec<&str> = TemplateVariable::ALL.iter().map(|(name, _)| *name).collect();
                format!(
                    "names {{{name}}}, and there is no such variable; there are {}, secrets.NAME and parameters.NAME",
                    known.join(", ")
                )
            })
    }
}

/// The values of one message; or none, for requests that are about no message.
#[derive(Default)]
pub struct TemplateValues<'a> {
    to: &'a str,
    to_digits: String,
    text: &'a str,
    code: &'a str,
    ttl_seconds: u64,
    client_ip: Option<IpAddr>,
    message_id: String,
    locale: &'a str,
    challenge_id: String,
}

/// Shows nothing of the message.
impl fmt::Debug for TemplateValues<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Values(…)")
    }
}

impl<'a> TemplateValues<'a> {
    /// The values of `message`, its life put between `shortest` and `longest`.
    pub fn new(envelope: &'a OutgoingMessage<'a>, shortest: Duration, longest: Duration) -> Self {
        let number = envelope.recipient.phone_number().unwrap_or_default();
        Self {
            to: envelope.recipient.as_str(),
            to_digits: number.trim_start_matches('+').to_owned(),
            text: &envelope.text.plain,
            code: envelope.code.expose(),
            ttl_seconds: envelope.life_left.min(longest).max(shortest).as_secs(),
            client_ip: envelope.client_ip,
            message_id: envelope.id.to_string(),
            locale: envelope.locale,
            challenge_id: envelope.challenge_id.to_string(),
        }
    }

    /// How many whole seconds the code still lives.
    pub fn ttl_seconds(&self) -> u64 {
        self.ttl_seconds
    }

    fn of(&self, variable: TemplateVariable) -> Cow<'_, str> {
        match variable {
            TemplateVariable::ToE164 => self.to.into(),
            TemplateVariable::ToDigits => self.to_digits.as_str().into(),
            TemplateVariable::Text => self.text.into(),
            TemplateVariable::Code => self.code.into(),
            TemplateVariable::TtlSeconds => self.ttl_seconds.to_string().into(),
            TemplateVariable::ClientIp => {
                self.client_ip.map_or("".into(), |ip| ip.to_string().into())
            }
            TemplateVariable::MessageId | TemplateVariable::IdempotencyKey => {
                self.message_id.as_str().into()
            }
            TemplateVariable::Locale => self.locale.into(),
            TemplateVariable::ChallengeId => self.challenge_id.as_str().into(),
        }
    }

    /// Whether a text of a gateway repeats something of the message. Numbers are known
    /// by their last digits, in whatever form a gateway writes them.
    pub fn appear_in(&self, text: &str) -> bool {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let tail = &self.to_digits[self.to_digits.len().saturating_sub(LAST_DIGITS)..];
        let text = text.to_lowercase();
        let ip = self.of(TemplateVariable::ClientIp);
        let whole = [self.to, self.text, &ip, &self.challenge_id];
        let in_digits = [self.code, tail];
        whole
            .iter()
            .any(|value| !value.is_empty() && text.contains(&value.to_lowercase()))
            || in_digits
                .iter()
                .any(|value| !value.is_empty() && digits.contains(value))
    }
}

/// So many last digits of a phone number say whose it is; error codes of gateways are
/// shorter.
const LAST_DIGITS: usize = 6;
