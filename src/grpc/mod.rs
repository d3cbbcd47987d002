//! The contract in code, and nothing but translation: requests to what the service
//! takes, its replies and errors to what callers get.

mod admission;
mod arrival;
mod authentication;
pub mod codec;
mod content_type;
pub mod deadline;
mod journal;
mod measure;
mod otp_service;
mod oversize;
mod rejection;
pub mod status;
pub mod translate;

pub use admission::AdmissionLayer;
pub use arrival::ArrivalLayer;
pub use measure::MeasureLayer;
pub use otp_service::{Current, OtpGrpc};
pub use oversize::OversizeLayer;

/// The package `otp.v1`, generated from the contract.
#[expect(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("otp.v1");

    /// The compiled contract, which the reflection services hand out.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/otp_descriptor.bin"));
}

/// The longest message that is read. The longest sensible request is a tenth of it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
