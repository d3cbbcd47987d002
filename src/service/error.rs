//! Errors of requests.

use std::{fmt, time::Duration};

use crate::{auth::AuthError, engine::BatchError, reason::Reason, store::StoreError};
use otpd_rules::{
    ChallengeId, Channel, CodeError, Lockout, Purpose, PurposeError, RateLimited, RecipientError,
    RecordKey, Refusal, Timestamp,
};

/// Minimum RetryInfo of an overload: conflicts about one record last milliseconds.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Maximum RetryInfo of an overload: most of the callers that wait now have given up by then.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Error of a request. One table, in `grpc::error`, turns it into a gRPC status.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The recipient is invalid.
    #[error("recipient: {0}")]
    Recipient(#[from] RecipientError),
    /// The purpose is invalid.
    #[error("purpose: {0}")]
    Purpose(#[from] PurposeError),
    /// The submitted code is malformed.
    #[error("code: {0}")]
    Code(#[from] CodeError),
    /// Another field of the request is invalid.
    #[error("{field}: {problem}")]
    Request {
        /// Name of the field in the contract.
        field: &'static str,
        /// Problem and remedy.
        problem: String,
    },
    /// The caller is not authenticated.
    #[error("{0}; send a known token as \"authorization: Bearer TOKEN\", or a known certificate")]
    CallerUnknown(#[from] AuthError),
    /// The caller may not use the purpose.
    #[error("this caller may not use the purpose \"{0}\"")]
    PurposeNotAllowed(Purpose),
    /// The caller may not send to the destination.
    #[error("this caller may not send to this destination")]
    DestinationBlocked,
    /// No provider is configured for this message.
    #[error(
        "no provider is configured for {0} to this destination; choose another channel, or add a route"
    )]
    NoRoute(Channel),
    /// The caller may not reset failed attempts.
    #[error("this caller may not reset failures; leave reset_failures unset")]
    ResetNotAllowed,
    /// The cool-down since the last send is not over.
    #[error("a code was sent a moment ago; send again in {}", WaitSeconds(*wait))]
    ResendTooSoon {
        /// Rest of the cool-down.
        wait: Duration,
        /// Challenge and expiry of the live code, if there is one.
        live: Option<(ChallengeId, Timestamp)>,
    },
    /// A rate limit of sends has no room.
    #[error("the limit {} is reached; send again in {}", .0.limit.key(), WaitSeconds(.0.wait))]
    SendLimit(RateLimited),
    /// A rate limit of failed attempts has no room.
    #[error("the limit {} is reached; retry in {}", .0.limit.key(), WaitSeconds(.0.wait))]
    VerifyLimit(RateLimited),
    /// Too many failed attempts: the next one has to wait.
    #[error("too many failed attempts; retry in {}", WaitSeconds(*wait))]
    VerifyDelayed {
        /// Rest of the wait.
        wait: Duration,
    },
    /// Lockout after the maximum number of failed attempts.
    #[error("locked after too many failed attempts; retry in {} or reset the failures", WaitSeconds(*wait))]
    VerifyLocked {
        /// Rest of the wait.
        wait: Duration,
    },
    /// The store does not answer in time.
    #[error("the store does not answer")]
    StoreUnavailable,
    /// More requests wait, or conflict about one record, than can be answered in time.
    #[error("too many requests at once; retry in {}", WaitSeconds(*wait))]
    Overloaded {
        /// Estimated time until the waiting requests are answered.
        wait: Duration,
    },
    /// The caller's deadline has passed. The request may have been committed all the same.
    #[error("deadline exceeded; retry with the same request_id")]
    DeadlineExceeded,
    /// The server shut down before this request finished.
    #[error("this replica is shutting down; retry with the same request_id")]
    ShuttingDown,
    /// Internal error.
    #[error("{0}")]
    Internal(String),
}

impl From<BatchError> for ServiceError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Full { wait } => Self::Overloaded {
                wait: wait.clamp(RETRY_MIN, RETRY_MAX),
            },
            BatchError::ContentionLimit => Self::Overloaded { wait: RETRY_MIN },
            BatchError::Store(StoreError::Unavailable(_) | StoreError::Locked(_)) => {
                Self::StoreUnavailable
            }
            BatchError::Panicked | BatchError::SealingKeyMissing | BatchError::Store(_) => {
                Self::Internal(error.to_string())
            }
        }
    }
}

impl ServiceError {
    /// Returns the reason of the refusal.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Recipient(_) => Reason::RecipientInvalid,
            Self::Purpose(_) => Reason::PurposeInvalid,
            Self::Code(_) => Reason::CodeMalformed,
            Self::Request { .. } => Reason::RequestInvalid,
            Self::CallerUnknown(_) => Reason::CallerUnknown,
            Self::PurposeNotAllowed(_) => Reason::PurposeNotAllowed,
            Self::DestinationBlocked => Reason::DestinationBlocked,
            Self::ResetNotAllowed => Reason::ResetNotAllowed,
            Self::NoRoute(_) => Reason::NoRoute,
            Self::ResendTooSoon { .. } => Reason::ResendTooSoon,
            Self::SendLimit(_) => Reason::SendLimit,
            Self::VerifyLimit(_) => Reason::VerifyLimit,
            Self::VerifyDelayed { .. } => Reason::VerifyDelayed,
            Self::VerifyLocked { .. } => Reason::VerifyLocked,
            Self::StoreUnavailable => Reason::StoreUnavailable,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::DeadlineExceeded => Reason::DeadlineExceeded,
            Self::Internal(_) => Reason::Internal,
        }
    }

    /// Returns the error for an invalid field.
    pub fn request(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Request {
            field,
            problem: problem.into(),
        }
    }

    /// Returns the error for a command that the rules refused, about the record of `key`.
    pub(super) fn refused(refusal: Refusal, key: RecordKey) -> Self {
        match refusal {
            Refusal::ResendTooSoon { wait, live } => Self::ResendTooSoon {
                wait,
                live: live.map(|(nonce, expires_at)| (ChallengeId { key, nonce }, expires_at)),
            },
            Refusal::Blocked(Lockout { wait, locked, .. }) if locked => Self::VerifyLocked { wait },
            Refusal::Blocked(Lockout { wait, .. }) => Self::VerifyDelayed { wait },
            Refusal::SendLimit(exceeded) => Self::SendLimit(exceeded),
            Refusal::VerifyLimit(exceeded) => Self::VerifyLimit(exceeded),
            Refusal::Code(error) => Self::Code(error),
            Refusal::Undeliverable(barred) => barred.into(),
            Refusal::IdempotencyKeyReused => Self::request(
                "request_id",
                "was used for a request with other fields; use a new one",
            ),
        }
    }

    /// Returns the error for an outcome that is not of the kind of its command, which the rules
    /// never return.
    pub(super) fn foreign_outcome() -> Self {
        Self::Internal("a command has the outcome of another one".to_owned())
    }
}

/// Formats a wait as seconds with whole milliseconds. A floating-point number of seconds would
/// sometimes be written as 1.6989999999999998.
struct WaitSeconds(Duration);

impl fmt::Display for WaitSeconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0.as_secs(), self.0.subsec_millis());
        let text = text.trim_end_matches('0').trim_end_matches('.');
        write!(formatter, "{text} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_in_whole_milliseconds() {
        for (milliseconds, expected) in [
            (1_699, "1.699 s"),
            (1_600, "1.6 s"),
            (30_000, "30 s"),
            (0, "0 s"),
            (2_591_999_780, "2591999.78 s"),
        ] {
            // Fractions of a millisecond are left out.
            let wait = Duration::from_millis(milliseconds) + Duration::from_nanos(987);
            for error in [
                ServiceError::VerifyDelayed { wait },
                ServiceError::Overloaded { wait },
            ] {
                let error = error.to_string();
                assert!(
                    error.ends_with(&format!("; retry in {expected}")),
                    "{error}"
                );
            }
        }
    }
}
