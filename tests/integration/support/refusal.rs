//! What a refused caller gets to read.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A status of the contract, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// The `ErrorInfo`'s; its domain was checked.
    pub reason: String,
    /// The field that is at fault, where one is.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub remedy: String,
}

impl Refusal {
    /// Takes apart a status that must be one of the contract.
    #[track_caller]
    pub fn of(status: &Status) -> Self {
        let Some(info) = status.get_details_error_info() else {
            panic!("no ErrorInfo in {status:?}");
        };
        assert_eq!(info.domain, "otp.v1");
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
        }
    }
}
