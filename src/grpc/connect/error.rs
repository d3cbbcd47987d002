//! Errors in the form of Connect: JSON with the code, the message and the details of a status.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message as _;
use serde::Serialize;
use serde_json::{Value, json};
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{self, HeaderValue, StatusCode, header::RETRY_AFTER},
};
use tonic_types::pb;

use super::response;
use crate::grpc::error::retry_delay;

/// Prefix of the type of a detail.
const TYPE_PREFIX: &str = "type.googleapis.com/";

/// Error in the form of Connect.
#[derive(Serialize)]
struct ConnectError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<ErrorDetail<'a>>,
}

/// Detail of an error.
#[derive(Serialize)]
struct ErrorDetail<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    /// Message in protobuf and base64.
    value: String,
    /// The same in JSON, for clients without protobuf.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Value>,
}

/// Returns the response for a status. The status stays with the response, for its log line and
/// its count.
pub(in crate::grpc) fn error_response(status: Status) -> http::Response<Body> {
    // Written by `error.rs` of this process, so it can be decoded.
    let details = pb::Status::decode(status.details())
        .unwrap_or_default()
        .details;
    let details = details.iter().map(|detail| {
        let name = detail.type_url.strip_prefix(TYPE_PREFIX);
        let name = name.unwrap_or(&detail.type_url);
        ErrorDetail {
            name,
            value: STANDARD_NO_PAD.encode(&detail.value),
            debug: readable(name, &detail.value),
        }
    });
    let error = ConnectError {
        code: code_name(status.code()),
        message: status.message(),
        details: details.collect(),
    };
    let error = serde_json::to_vec(&error).expect("texts and lists are JSON");
    let mut response = response("application/json", error.into());
    *response.status_mut() = http_status(status.code());
    if let Some(wait) = retry_delay(&status) {
        // Whole seconds, rounded up.
        let seconds = wait.as_millis().div_ceil(1_000);
        if let Ok(seconds) = HeaderValue::try_from(seconds.to_string()) {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
    }
    response.extensions_mut().insert(status);
    response
}

/// Returns a detail of a known type in the JSON form of proto3.
fn readable(name: &str, value: &[u8]) -> Option<Value> {
    match name {
        "google.rpc.ErrorInfo" => {
            let info = pb::ErrorInfo::decode(value).ok()?;
            let mut shown = json!({ "reason": info.reason, "domain": info.domain });
            if !info.metadata.is_empty() {
                shown["metadata"] = json!(info.metadata);
            }
            Some(shown)
        }
        "google.rpc.BadRequest" => {
            let violations = pb::BadRequest::decode(value).ok()?.field_violations;
            let shown = violations.into_iter().map(|violation| {
                json!({ "field": violation.field, "description": violation.description })
            });
            Some(json!({ "fieldViolations": shown.collect::<Vec<_>>() }))
        }
        "google.rpc.RetryInfo" => {
            let delay = pb::RetryInfo::decode(value).ok()?.retry_delay?;
            Some(json!({ "retryDelay": delay.to_string() }))
        }
        _ => None,
    }
}

/// Returns the name of a code in Connect.
pub(in crate::grpc) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// Returns the HTTP status of a code, by the table of the protocol.
const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        // A client that has left gets no response; 499 has no name in HTTP.
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::service::ServiceError;

    async fn shown(error: ServiceError) -> (u16, Option<String>, Value) {
        let response = error_response(Status::from(error));
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry_after, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn errors_have_status_code_reason_and_wait() {
        let milliseconds = Duration::from_millis;
        for (error, status, code, reason, retry_after) in [
            (
                ServiceError::request("code", "x"),
                400,
                "invalid_argument",
                "REQUEST_INVALID",
                None,
            ),
            (
                ServiceError::DestinationBlocked,
                403,
                "permission_denied",
                "DESTINATION_BLOCKED",
                None,
            ),
            (
                ServiceError::ResetNotAllowed,
                403,
                "permission_denied",
                "RESET_NOT_ALLOWED",
                None,
            ),
            (
                ServiceError::VerifyDelayed {
                    wait: milliseconds(1_001),
                },
                429,
                "resource_exhausted",
                "VERIFY_DELAYED",
                Some("2"),
            ),
            (
                ServiceError::VerifyLocked {
                    wait: milliseconds(60_000),
                },
                429,
                "resource_exhausted",
                "VERIFY_LOCKED",
                Some("60"),
            ),
            (
                ServiceError::Overloaded {
                    wait: milliseconds(1),
                },
                503,
                "unavailable",
                "OVERLOADED",
                Some("1"),
            ),
            (
                ServiceError::StoreUnavailable,
                503,
                "unavailable",
                "STORE_UNAVAILABLE",
                Some("1"),
            ),
            (
                ServiceError::ShuttingDown,
                503,
                "unavailable",
                "SHUTTING_DOWN",
                Some("1"),
            ),
            (
                ServiceError::DeadlineExceeded,
                504,
                "deadline_exceeded",
                "DEADLINE_EXCEEDED",
                None,
            ),
            (
                ServiceError::Internal("secret".to_owned()),
                500,
                "internal",
                "INTERNAL",
                None,
            ),
        ] {
            let (found, wait, json) = shown(error).await;
            assert_eq!((found, wait.as_deref()), (status, retry_after), "{json}");
            assert_eq!(json["code"], code);
            let details = json["details"].as_array().unwrap();
            let info = details
                .iter()
                .find(|detail| detail["type"] == "google.rpc.ErrorInfo");
            let info = info.unwrap();
            assert_eq!(info["debug"]["reason"], reason);
            assert_eq!(info["debug"]["domain"], "otp.v1");
            let value = STANDARD_NO_PAD
                .decode(info["value"].as_str().unwrap())
                .unwrap();
            assert_eq!(pb::ErrorInfo::decode(&*value).unwrap().reason, reason);
            assert!(!json.to_string().contains("secret"), "{json}");
            let retry = details
                .iter()
                .any(|detail| detail["type"] == "google.rpc.RetryInfo");
            assert_eq!(retry, retry_after.is_some(), "{json}");
        }
    }

    #[tokio::test]
    async fn status_without_details_has_code_and_message() {
        let response = error_response(Status::deadline_exceeded("late"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&*body, br#"{"code":"deadline_exceeded","message":"late"}"#);
    }
}
