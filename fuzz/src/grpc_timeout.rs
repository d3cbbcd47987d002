//! Time-outs of gRPC callers.

use std::time::Duration;

use otpd::grpc::deadline;
use tonic::codegen::http::{HeaderMap, HeaderValue};

/// Checks that a time-out is parsed as the gRPC protocol says: up to 8 digits and a unit.
pub fn grpc_timeout(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", value);
    assert_eq!(deadline::grpc_timeout(&headers), by_the_protocol(data));
}

/// Parses a time-out by a table of the units' nanoseconds.
fn by_the_protocol(data: &[u8]) -> Option<Duration> {
    let (unit, digits) = data.split_last()?;
    let nanoseconds: u128 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u128::from(digit - b'0'));
    Some(Duration::from_nanos_u128(number * nanoseconds))
}
