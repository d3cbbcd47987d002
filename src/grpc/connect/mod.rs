//! Connect protocol for calls with one request and one reply: a message is the body of a
//! request, and an error is JSON with an HTTP status. <https://connectrpc.com/docs/protocol>
//!
//! The call itself is that of gRPC, `OtpGrpc`; only the framing and the form of an error
//! differ. The crate `connectrpc` 0.9 needs messages of `buffa` in place of those of `prost`.

pub(super) mod call;
mod error;
mod json;

use http_body_util::Full;
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Bytes,
        http::{
            self, HeaderMap, HeaderValue,
            header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName},
        },
    },
};

use super::codec;
use crate::service::ServiceError;

pub(super) use error::{code_name, error_response};
pub use json::decode as decode_json;

const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// Maximum number of digits of a timeout.
const MAX_TIMEOUT_DIGITS: usize = 10;
/// Maximum number of digits of a timeout of gRPC.
const MAX_GRPC_DIGITS: usize = 8;

/// Format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageFormat {
    Json,
    Protobuf,
}

impl MessageFormat {
    /// Returns the media type of a message.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/proto",
        }
    }

    fn decode<M: Message + Default + DeserializeOwned>(self, bytes: &[u8]) -> Result<M, Status> {
        match self {
            Self::Json => json::decode(bytes).map_err(Status::from),
            Self::Protobuf => codec::decode(bytes),
        }
    }

    fn encode<M: Message + Serialize>(self, message: &M) -> Result<Bytes, Status> {
        match self {
            Self::Json => serde_json::to_vec(message)
                .map(Bytes::from)
                .map_err(|error| ServiceError::Internal(error.to_string()).into()),
            Self::Protobuf => Ok(message.encode_to_vec().into()),
        }
    }
}

fn response(media_type: &'static str, bytes: Bytes) -> http::Response<Body> {
    let mut response = http::Response::new(body(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns a body of a known length.
pub(super) fn body(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}

/// Checks the version of the protocol, which a request need not have.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), ServiceError> {
    match headers.get(VERSION) {
        Some(version) if version != "1" => {
            let problem = "must be 1, or left out";
            Err(ServiceError::request("connect-protocol-version", problem))
        }
        _ => Ok(()),
    }
}

/// Returns the timeout of a request in the form of gRPC.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<HeaderValue>, ServiceError> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let digits = value.to_str().unwrap_or_default();
    if !(1..=MAX_TIMEOUT_DIGITS).contains(&digits.len())
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        let problem = "must be a number of milliseconds with at most ten digits";
        return Err(ServiceError::request("connect-timeout-ms", problem));
    }
    let timeout = if digits.len() <= MAX_GRPC_DIGITS {
        format!("{digits}m")
    } else {
        // Longer than a day; milliseconds do not matter.
        format!("{}S", &digits[..digits.len() - 3])
    };
    let timeout = HeaderValue::try_from(timeout);
    Ok(Some(
        timeout.expect("digits and a letter are a header value"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_converted_to_those_of_grpc() {
        let timeout = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, value.parse().unwrap());
            grpc_timeout(&headers)
                .map(|value| value.map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(grpc_timeout(&HeaderMap::new()).unwrap(), None);
        for (given, expected) in [
            ("0", "0m"),
            ("2500", "2500m"),
            ("99999999", "99999999m"),
            ("100000000", "100000S"),
            ("9999999999", "9999999S"),
        ] {
            assert_eq!(
                timeout(given).unwrap().as_deref(),
                Some(expected),
                "{given}"
            );
        }
        for invalid in ["", "-1", "1.5", "10000000000", "1s", "+5", "0x1"] {
            assert!(timeout(invalid).is_err(), "{invalid}");
        }
    }
}
