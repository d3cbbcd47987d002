//! Table of reasons and their gRPC statuses; the only one.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{reason::Reason, service::ServiceError};

/// Domain of every reason.
const DOMAIN: &str = "otp.v1";

/// Trailer with the delay for retrying gRPC clients (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Retry delay while the store is unavailable: about the interval of its health check.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Retry delay if this replica shuts down: another replica, or its successor, is available.
const SHUTDOWN_RETRY: Duration = Duration::from_millis(100);

impl Reason {
    /// Returns the status code.
    pub const fn code(self) -> Code {
        match self {
            Self::RecipientInvalid
            | Self::PurposeInvalid
            | Self::CodeMalformed
            | Self::RequestInvalid => Code::InvalidArgument,
            Self::CallerUnknown => Code::Unauthenticated,
            Self::PurposeNotAllowed | Self::DestinationBlocked | Self::ResetNotAllowed => {
                Code::PermissionDenied
            }
            Self::NoRoute => Code::FailedPrecondition,
            Self::ResendTooSoon
            | Self::SendLimit
            | Self::VerifyLimit
            | Self::VerifyDelayed
            | Self::VerifyLocked => Code::ResourceExhausted,
            Self::StoreUnavailable | Self::Overloaded | Self::ShuttingDown => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Internal => Code::Internal,
        }
    }
}

impl ServiceError {
    /// Returns the invalid field and the remedy.
    fn violation(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Recipient(error) => Some(("recipient", error.to_string())),
            Self::Purpose(error) => Some(("purpose", error.to_string())),
            Self::Code(error) => Some(("code", error.to_string())),
            Self::Request { field, problem } => Some((field, problem.clone())),
            _ => None,
        }
    }

    /// Returns the delay before a retry.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ResendTooSoon { wait, .. }
            | Self::VerifyDelayed { wait }
            | Self::Overloaded { wait }
            | Self::VerifyLocked { wait } => Some(*wait),
            Self::SendLimit(exceeded) | Self::VerifyLimit(exceeded) => Some(exceeded.wait),
            Self::StoreUnavailable => Some(STORE_RETRY),
            Self::ShuttingDown => Some(SHUTDOWN_RETRY),
            _ => None,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let pairs = match self {
            Self::ResendTooSoon {
                live: Some((challenge_id, expires_at)),
                ..
            } => vec![
                ("challenge_id", challenge_id.to_string()),
                (
                    "expires_at",
                    humantime::format_rfc3339_millis((*expires_at).into()).to_string(),
                ),
            ],
            Self::SendLimit(exceeded) | Self::VerifyLimit(exceeded) => {
                vec![("limit", exceeded.limit.key().to_owned())]
            }
            _ => Vec::new(),
        };
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}

/// Returns the delay before a retry that a status of the contract carries.
pub(super) fn retry_delay(status: &Status) -> Option<Duration> {
    let pushback = status.metadata().get(PUSHBACK)?.to_str().ok()?;
    pushback.parse().ok().map(Duration::from_millis)
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let reason = error.reason();
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.name(), DOMAIN, error.metadata());
        if let Some((field, problem)) = error.violation() {
            details.add_bad_request_violation(field, problem);
        }
        if let Some(wait) = error.retry_after() {
            details.set_retry_info(Some(wait));
        }
        let message = match &error {
            // The cause of an internal error is for the log, not for callers.
            ServiceError::Internal(_) => "internal error; see the log of otpd".to_owned(),
            error => error.to_string(),
        };
        let mut status = Self::with_error_details(reason.code(), message, details);
        if let Some(wait) = error.retry_after() {
            let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            status
                .metadata_mut()
                .insert(PUSHBACK, MetadataValue::from(milliseconds));
        }
        status
    }
}
