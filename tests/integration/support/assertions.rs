//! Extraction and comparison of parts of requests, replies and log lines.

use std::str::FromStr;

use tonic::Status;
use tonic_types::StatusExt as _;

/// Submitted code.
#[derive(Clone, Copy, Debug)]
pub enum Typed {
    Right,
    Mistyped,
}

impl Typed {
    /// Returns the text typed by a person with `code`.
    pub fn text(self, code: &str) -> String {
        match self {
            Self::Right => code.to_owned(),
            Self::Mistyped if code.starts_with('9') => format!("0{}", &code[1..]),
            Self::Mistyped => format!("9{}", &code[1..]),
        }
    }
}

/// Returns the reason of a failure.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("each failure has a reason");
    info.reason.clone()
}

/// An instant in milliseconds since the Unix epoch, as the store counts.
pub fn milliseconds(at: Option<prost_types::Timestamp>) -> i64 {
    let at = at.expect("the instant is set");
    assert_eq!(at.nanos % 1_000_000, 0);
    at.seconds * 1_000 + i64::from(at.nanos / 1_000_000)
}

/// A number that the environment asks for.
pub fn asked<Number: FromStr>(variable: &str) -> Option<Number> {
    let asked = std::env::var(variable).ok()?;
    let number = asked.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{variable} is no number: {asked}")))
}

/// Number of audit lines of an event with a cause that were written, or aggregated into a
/// summary.
pub fn audited(log: &str, event: &str, cause: &str) -> u64 {
    let lines = log.lines().filter(|line| {
        line.contains("[OTP AUDIT]") && line.contains(event) && line.contains(cause)
    });
    let count = |line: &str| {
        let (_, rest) = line
            .split_once("repeats=")
            .or_else(|| line.split_once("\"repeats\":"))?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    lines.map(|line| count(line).unwrap_or(1)).sum()
}
