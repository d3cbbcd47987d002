//! What can go wrong with a request.

use std::time::Duration;

use crate::domain::{ChallengeId, CodeError, PurposeError, RecipientError, Timestamp};

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
    /// This caller may not forget wrong answers.
    #[error("this caller may not reset failures; leave reset_failures unset")]
    ResetNotAllowed,
    /// The cool-down since the last send is not over.
    #[error("a code was sent a moment ago; send again in {} s", wait.as_secs_f64())]
    ResendTooSoon {
        /// How long it still lasts.
        wait: Duration,
        /// The code that lives meanwhile, and when it dies.
        live: Option<(ChallengeId, Timestamp)>,
    },
    /// The store does not answer, or not in time.
    #[error("the store does not answer")]
    StoreUnavailable,
    /// Too many requests race for one record.
    #[error("too many requests at once for this recipient")]
    Overloaded,
    /// A fault of otpd itself.
    #[error("{0}")]
    Internal(String),
}

impl ServiceError {
    /// The field `field` is not as it must be.
    pub fn request(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Request {
            field,
            problem: problem.into(),
        }
    }
}
