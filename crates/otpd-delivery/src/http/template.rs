//! Texts with `{names}` in them.
//!
//! Each name is replaced by its value, and nothing else is done. A request to a gateway
//! needs no conditions or loops. So each value can be escaped for its position, which a
//! template language that knows only texts could not do.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};

use crate::OutgoingMessage;

/// Characters to escape: all but the unreserved ones of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Escaped asterisk within a value of a pointer, so that it is not read as a step.
pub const ASTERISK: &str = "~2";

/// Value that differs between messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateVariable {
    /// Recipient: a phone number in E.164, or an e-mail address.
    ToE164,
    /// Digits of a phone number, without "+".
    ToDigits,
    /// Whole text of the message.
    Text,
    /// The code alone.
    Code,
    /// Whole seconds until the code expires.
    TtlSeconds,
    /// IP address of the end user; empty if it is unknown.
    ClientIp,
    /// Identifier of the message, the same at each attempt.
    MessageId,
    /// Identifier of the message, for a gateway that makes one message of all requests
    /// with one key.
    IdempotencyKey,
    /// Requested language; empty if none was requested.
    Locale,
    /// Identifier of the challenge.
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

/// Values of the names of one provider.
#[derive(Debug, Default)]
pub struct TemplateScope {
    /// Values of `secrets.NAME`.
    pub secrets: BTreeMap<String, SecretString>,
    /// Values of `parameters.NAME`.
    pub parameters: BTreeMap<String, String>,
}

/// Text with names in it.
#[derive(Clone)]
pub struct ValueTemplate(Vec<TemplatePart>);

#[derive(Clone)]
enum TemplatePart {
    Literal(String),
    Variable(TemplateVariable),
    Secret(SecretString),
}

/// Shows nothing, because the text itself may contain a secret.
impl fmt::Debug for ValueTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Template(…)")
    }
}

impl ValueTemplate {
    /// Parses a text in which `{name}` stands for a value, and `{{` and `}}` for a brace.
    ///
    /// # Errors
    /// Description of the problem. It shows only names.
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
                .ok_or("has a single brace; write {name}, or {{ and }} for braces")?;
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

    /// Returns the text with all values, unescaped.
    pub fn render(&self, values: &TemplateValues<'_>) -> String {
        self.render_with(values, |value| value.into())
    }

    /// Returns the text as part of a URL.
    pub fn render_in_url(&self, values: &TemplateValues<'_>) -> String {
        self.render_with(values, |value| utf8_percent_encode(value, RESERVED).into())
    }

    /// Returns the text as a JSON pointer, in which a value is one step or a part of it.
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

    /// Returns true if this is the number of seconds alone, which JSON writes without
    /// quotes.
    pub fn is_ttl_seconds(&self) -> bool {
        matches!(
            self.0[..],
            [TemplatePart::Variable(TemplateVariable::TtlSeconds)]
        )
    }

    /// Returns true if the text is the same for all messages.
    pub fn is_fixed(&self) -> bool {
        !self
            .0
            .iter()
            .any(|part| matches!(part, TemplatePart::Variable(_)))
    }

    /// Returns true if the text contains an idempotency key.
    pub fn has_idempotency_key(&self) -> bool {
        let is_key = |part: &TemplatePart| {
            matches!(
                part,
                TemplatePart::Variable(TemplateVariable::IdempotencyKey)
            )
        };
        self.0.iter().any(is_key)
    }

    /// Returns the text before the first value.
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(TemplatePart::Literal(literal)) => literal,
            _ => "",
        }
    }
}

impl ValueTemplate {
    /// Removes the first `length` bytes, which must be part of the text before the first
    /// value.
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
                .ok_or_else(|| {
                    format!("names {{secrets.{name}}}, which is not defined in secrets")
                });
        }
        if let Some(name) = name.strip_prefix("parameters.") {
            let parameter = self.parameters.get(name);
            return parameter
                .map(|value| TemplatePart::Literal(value.clone()))
                .ok_or_else(|| {
                    format!("names {{parameters.{name}}}, which is not defined in parameters")
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
                    "names {{{name}}}, which is not a variable; use one of {}, secrets.NAME or parameters.NAME",
                    known.join(", ")
                )
            })
    }
}

/// Values of one message; empty for requests without a message.
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
        formatter.write_str("TemplateValues(…)")
    }
}

impl<'a> TemplateValues<'a> {
    /// Returns the values of `message`, with its remaining life clamped between
    /// `shortest` and `longest`.
    pub fn new(message: &'a OutgoingMessage<'a>, shortest: Duration, longest: Duration) -> Self {
        let number = message.recipient.phone_number().unwrap_or_default();
        Self {
            to: message.recipient.as_str(),
            to_digits: number.trim_start_matches('+').to_owned(),
            text: &message.text.plain,
            code: message.code.expose(),
            ttl_seconds: message.life_left.min(longest).max(shortest).as_secs(),
            client_ip: message.client_ip,
            message_id: message.id.to_string(),
            locale: message.locale,
            challenge_id: message.challenge_id.to_string(),
        }
    }

    /// Returns the whole seconds until the code expires.
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

    /// Returns true if a text of a gateway repeats a part of the message. Phone numbers
    /// are recognized by their last digits, in whatever form a gateway writes them.
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

/// Number of last digits that identify a phone number; error codes of gateways are
/// shorter.
const LAST_DIGITS: usize = 6;
