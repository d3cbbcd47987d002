//! Deadline of a request.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{
    codegen::http::{HeaderMap, HeaderName},
    metadata::MetadataMap,
};

/// Header with the timeout of the caller.
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Maximum duration of a request, also of one without a deadline.
const MAX_DURATION: Duration = Duration::from_mins(1);

/// Bounds of the margin before the caller's deadline, which is a tenth of its timeout. The
/// response must arrive before the deadline, because the caller ignores a late one; and when
/// the database hangs, many responses are due at the same moment.
const MARGIN_MIN: Duration = Duration::from_millis(5);
const MARGIN_MAX: Duration = Duration::from_secs(1);

/// Returns the deadline of a request by its `grpc-timeout`, less the margin.
pub fn deadline(metadata: &MetadataMap) -> Instant {
    let timeout =
        grpc_timeout(metadata.as_ref()).map_or(MAX_DURATION, |timeout| timeout.min(MAX_DURATION));
    let margin = (timeout / 10).clamp(MARGIN_MIN, MARGIN_MAX);
    Instant::now() + timeout.saturating_sub(margin)
}

/// Returns the timeout that the caller gives, if any.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    parse_timeout(value)
}

/// Parses a timeout of the gRPC protocol: up to 8 digits and a unit.
fn parse_timeout(value: &str) -> Option<Duration> {
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_parsed() {
        for (value, expected) in [
            ("2S", Some(Duration::from_secs(2))),
            ("1500m", Some(Duration::from_millis(1500))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("7u", Some(Duration::from_micros(7))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("2s", None),
            ("2é", None),
        ] {
            assert_eq!(parse_timeout(value), expected, "{value:?}");
        }
    }
}
