//! What must hold of a gateway's reply.

use std::fmt;

use serde_json::Value;

use super::template::{Template, Values};

/// Statuses from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses(u16, u16);

impl Statuses {
    /// Every status of success.
    pub const SUCCESS: Self = Self(200, 299);

    /// Whether `status` is one of them.
    pub fn contain(self, status: u16) -> bool {
        (self.0..=self.1).contains(&status)
    }
}

impl TryFrom<String> for Statuses {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const PROBLEM: &str = "not an HTTP status such as 200, or a range such as 200..299";
        let (first, last) = text.split_once("..").unwrap_or((&text, &text));
        let status = |text: &str| text.trim().parse().ok().filter(|s| (100..=599).contains(s));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            _ => Err(PROBLEM),
        }
    }
}

/// Something that is said of one place in a reply.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The place (RFC 6901).
    pub pointer: Template,
    /// What is said of it.
    pub test: Test,
}

/// What is said of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It is this.
    Equals(String),
    /// It is one of these.
    OneOf(Vec<String>),
    /// It is there, and none of these.
    NotOneOf(Vec<String>),
    /// It is there, and not null.
    Present,
    /// It is not there, or null.
    Absent,
    /// It is a number greater than this.
    GreaterThan(f64),
}

impl Condition {
    /// Whether it holds of `reply`.
    pub fn holds(&self, reply: &Value, values: &Values<'_>) -> bool {
        let value = reply.pointer(&self.pointer.render_in_pointer(values));
        let value = value.filter(|value| !value.is_null());
        let written = value.and_then(as_written);
        match &self.test {
            Test::Equals(expected) => written.as_ref() == Some(expected),
            Test::OneOf(expected) => written.is_some_and(|written| expected.contains(&written)),
            Test::NotOneOf(others) => written.is_some_and(|written| !others.contains(&written)),
            Test::Present => value.is_some(),
            Test::Absent => value.is_none(),
            Test::GreaterThan(bound) => written
                .and_then(|written| written.parse::<f64>().ok())
                .is_some_and(|number| number > *bound),
        }
    }
}

/// A value as it is compared: gateways write the same code once as a number and once
/// as a text.
pub fn as_written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Without what it compares with.
impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Equals(_) => "equals",
            Self::OneOf(_) => "one_of",
            Self::NotOneOf(_) => "not_one_of",
            Self::Present => "present",
            Self::Absent => "absent",
            Self::GreaterThan(_) => "greater_than",
        })
    }
}
