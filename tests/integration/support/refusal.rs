//! Error returned to a refused caller.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A status of the contract, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// The `ErrorInfo`'s; its domain was checked.
    pub reason: String,
    /// Invalid field, if any.
    pub field: String,
    /// Description of the problem, with the remedy.
    pub remedy: String,
    /// Time after which to retry, if that helps; the trailer for retry policies has the same value.
    pub wait: Option<Duration>,
}

impl Refusal {
    /// Takes apart a status that must be one of the contract.
    #[track_caller]
    pub fn of(status: &Status) -> Self {
        let Some(info) = status.get_details_error_info() else {
            panic!("no ErrorInfo in {status:?}");
        };
        assert_eq!(info.domain, "otp.v1");
        let wait = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        let pushback = pushback.map(|value| value.to_str().expect("digits").to_owned());
        assert_eq!(
            pushback,
            wait.map(|wait| wait.as_millis().to_string()),
            "{status:?}"
        );
        let violations = status
            .get_details_bad_request()
            .map(|details| details.field_violations)
            .unwrap_or_default();
        assert!(violations.len() <= 1, "{violations:?}");
        let violation = violations.into_iter().next();
        Self {
            code: status.code(),
            reason: info.reason,
            field: violation
                .as_ref()
                .map(|violation| violation.field.clone())
                .unwrap_or_default(),
            remedy: violation
                .map(|violation| violation.description)
                .unwrap_or_default(),
            wait,
        }
    }
}
