//! Conditions on a gateway's response.

use std::fmt;

use serde_json::Value;

use super::template::{ASTERISK, TemplateValues, ValueTemplate};

/// Range of HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(u16, u16);

impl StatusRange {
    /// Range of all success statuses.
    pub const SUCCESS: Self = Self(200, 299);

    /// Returns true if `status` is in the range.
    pub fn contain(self, status: u16) -> bool {
        (self.0..=self.1).contains(&status)
    }
}

impl TryFrom<String> for StatusRange {
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

/// Condition on one place in a response, or on several of one kind.
#[derive(Clone, Debug)]
pub struct ReplyCondition {
    /// Place in the response (RFC 6901); a step `*` stands for every element or member.
    pub pointer: ValueTemplate,
    /// Predicate on its value.
    pub test: Predicate,
}

/// Predicate on a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// Equals this value.
    Equals(String),
    /// Equals one of these values.
    OneOf(Vec<String>),
    /// Exists, and equals none of these values.
    NotOneOf(Vec<String>),
    /// Exists, and is not null.
    Present,
    /// Does not exist, or is null.
    Absent,
    /// Is a number greater than this.
    GreaterThan(f64),
}

/// Extent to which a condition is met, over the places of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchCount {
    /// Met at all places.
    Everywhere,
    /// Met at some of several places.
    Partly,
    /// Met at no place.
    Nowhere,
}

impl ReplyCondition {
    /// Returns the extent to which `reply` meets the condition.
    pub fn holds(&self, reply: &Value, values: &TemplateValues<'_>) -> MatchCount {
        let places = places(reply, &self.pointer.render_in_pointer(values));
        let held = places.iter().filter(|value| self.test.holds(**value));
        match held.count() {
            0 => MatchCount::Nowhere,
            all if all == places.len() => MatchCount::Everywhere,
            _ => MatchCount::Partly,
        }
    }
}

impl Predicate {
    fn holds(&self, value: Option<&Value>) -> bool {
        let value = value.filter(|value| !value.is_null());
        let written = value.and_then(as_written);
        match self {
            Self::Equals(expected) => written.as_ref() == Some(expected),
            Self::OneOf(expected) => written.is_some_and(|written| expected.contains(&written)),
            Self::NotOneOf(others) => written.is_some_and(|written| !others.contains(&written)),
            Self::Present => value.is_some(),
            Self::Absent => value.is_none(),
            Self::GreaterThan(bound) => written
                .and_then(|written| written.parse::<f64>().ok())
                .is_some_and(|number| number > *bound),
        }
    }
}

/// Step of a pointer that stands for every element of a list, or every member of an
/// object.
const EVERY: &str = "*";

/// Returns the places in `reply` that a pointer leads to, at least one. A place that does
/// not exist, or a list without elements, is `None`.
pub fn places<'r>(reply: &'r Value, pointer: &str) -> Vec<Option<&'r Value>> {
    let mut places = vec![Some(reply)];
    for step in pointer.split('/').skip(1) {
        places = places
            .into_iter()
            .flat_map(|place| below(place, step))
            .collect();
    }
    places
}

fn below<'r>(place: Option<&'r Value>, step: &str) -> Vec<Option<&'r Value>> {
    let all: Vec<_> = match place {
        Some(Value::Array(elements)) if step == EVERY => elements.iter().map(Some).collect(),
        Some(Value::Object(members)) if step == EVERY => members.values().map(Some).collect(),
        Some(_) if step == EVERY => Vec::new(),
        Some(value) => {
            let step = step.replace(ASTERISK, EVERY);
            vec![value.pointer(&format!("/{step}"))]
        }
        None => Vec::new(),
    };
    if all.is_empty() { vec![None] } else { all }
}

/// Returns a value as it is compared: gateways write the same code either as a number or
/// as a text.
pub fn as_written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Omits the values to compare with.
impl fmt::Display for Predicate {
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
