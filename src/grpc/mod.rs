//! The contract in code, and nothing but translation: requests to what the service
//! takes, its replies and errors to what callers get.

mod admission;
mod authentication;
mod body_timeout;
pub mod codec;
mod content_type;
pub mod convert;
pub mod deadline;
pub mod error;
mod metrics_layer;
mod otp_service;
mod rejection;
mod request_log;
mod size_limit;

pub use admission::AdmissionLayer;
pub use body_timeout::BodyTimeoutLayer;
pub use metrics_layer::RpcMetricsLayer;
pub use otp_service::{AppState, OtpGrpc};
pub use size_limit::SizeLimitErrorLayer;

/// The package `otp.v1`, generated from the contract.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    pub use otpd_contract::v1::*;
    tonic::include_proto!("otp.v1");

    /// The compiled contract, which the reflection services hand out.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/otp_descriptor.bin"));
}

/// The longest message that is read. The longest sensible request is a tenth of it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
