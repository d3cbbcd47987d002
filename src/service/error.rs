//! Errors of requests.

use std::{fmt, time::Duration};

use crate::{auth::AuthError, engine::BatchError, store::StoreError};
use otpd_rules::{
    ChallengeId, Channel, CodeError, Lockout, Purpose, PurposeError, RateLimited, RecipientError,
    RecordKey, Refusal, Timestamp,
};

/// When to come back at the earliest where too many requests wait, or race for one
/// record: such races last milliseconds.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// When to come back at the latest: however many wait now, most callers have given up by
/// then.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why a request gets no reply. One table, in `grpc::status`, turns these into gRPC
/// statuses.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The recipient is none.
    #[error("recipient: {0}")]
    Recipient(#[from] RecipientError),
    /// The purpose is none.
    #[error("purpose: {0}")]
    Purpose(#[from] PurposeError),
    /// The typed code is none.
    #[error("code: {0}")]
    Code(#[from] CodeError),
    /// Another field of the request is not as it must be.
    #[error("{field}: {problem}")]
    Request {
        /// The field, by its name in the contract.
        field: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Nobody whom otpd knows makes this request.
    #[error("{0}; send a known token as \"authorization: Bearer TOKEN\", or a known certificate")]
    CallerUnknown(#[from] AuthError),
    /// This caller's codes are not for this.
    #[error("this caller may not use the purpose \"{0}\"")]
    PurposeNotAllowed(Purpose),
    /// This caller may not send there.
    #[error("this caller may not send to this destination")]
    DestinationBlocked,
    /// No provider is configured for this message.
    #[error(
        "no provider is configured for {0} to this destination; choose another channel, or add a route"
    )]
    NoRoute(Channel),
    /// This caller may not forget wrong answers.
    #[error("this caller may not reset failures; leave reset_failures unset")]
    ResetNotAllowed,
    /// The cool-down since the last send is not over.
    #[error("a code was sent a moment ago; send again in {}", WaitSeconds(*wait))]
    ResendTooSoon {
        /// How long it still lasts.
        wait: Duration,
        /// The code that lives meanwhile, and when it dies.
        live: Option<(ChallengeId, Timestamp)>,
    },
    /// A limit on sends leaves no room.
    #[error("the limit {} is reached; send again in {}", .0.limit.key(), WaitSeconds(.0.wait))]
    SendLimit(RateLimited),
    /// A limit on wrong answers leaves no room.
    #[error("the limit {} is reached; try again in {}", .0.limit.key(), WaitSeconds(.0.wait))]
    VerifyLimit(RateLimited),
    /// Too many wrong answers: the next one has to wait.
    #[error("too many wrong answers; try again in {}", WaitSeconds(*wait))]
    VerifyDelayed {
        /// How long.
        wait: Duration,
    },
    /// Far too many wrong answers: the record is shut.
    #[error("far too many wrong answers; shut until they are reset, or for {}", WaitSeconds(*wait))]
    VerifyLocked {
        /// How long.
        wait: Duration,
    },
    /// The store does not answer, or not in time.
    #[error("the store does not answer")]
    StoreUnavailable,
    /// More requests wait, or race for one record, than can be answered in time.
    #[error("too many requests at once; try again in {}", WaitSeconds(*wait))]
    Overloaded {
        /// When what waits now will have been answered.
        wait: Duration,
    },
    /// The caller's time ran out. What was asked may have been done all the same.
    #[error("not answered in the time that the caller gave; ask again with the same request_id")]
    DeadlineExceeded,
    /// The server ends, and this request did not finish in time.
    #[error("this server is shutting down; ask another one with the same request_id")]
    ShuttingDown,
    /// A fault of otpd itself.
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
            BatchError::Store(StoreError::Unavailable(_)) => Self::StoreUnavailable,
            BatchError::Panicked | BatchError::SealingKeyMissing | BatchError::Store(_) => {
                Self::Internal(error.to_string())
            }
        }
    }
}

impl ServiceError {
    /// The field `field` is not as it must be.
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

/// A wait as people read it: whole milliseconds, in seconds. A number of seconds with a
/// fraction would be written as 1.6989999999999998 at times.
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
        for (milliseconds, told) in [
            (1_699, "1.699 s"),
            (1_600, "1.6 s"),
            (30_000, "30 s"),
            (0, "0 s"),
            (2_591_999_780, "2591999.78 s"),
        ] {
            // What is less is left out.
            let wait = Duration::from_millis(milliseconds) + Duration::from_nanos(987);
            for error in [
                ServiceError::VerifyDelayed { wait },
                ServiceError::Overloaded { wait },
            ] {
                let error = error.to_string();
                assert!(
                    error.ends_with(&format!("; try again in {told}")),
                    "{error}"
                );
            }
        }
    }
}
