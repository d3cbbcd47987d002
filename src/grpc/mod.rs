//! gRPC layer: converts requests to commands of the service, and its replies and errors to
//! messages and statuses of the contract. It makes no decisions about codes. The HTTP API, with
//! Connect and gRPC-Web, is another form of the same calls.

mod admission;
mod admitted_response;
mod app_state;
mod authentication;
mod body_timeout;
pub mod codec;
pub mod connect;
mod content_type;
pub mod convert;
pub mod deadline;
mod dispatch;
pub mod error;
mod metrics_layer;
mod otp_service;
mod protocol;
mod protocol_check;
mod rejection;
mod request_log;
mod size_limit;

pub use admission::AdmissionLayer;
pub use app_state::AppState;
pub use body_timeout::BodyTimeoutLayer;
pub use dispatch::ProtocolDispatch;
pub use metrics_layer::RpcMetricsLayer;
pub use otp_service::OtpGrpc;
pub use size_limit::SizeLimitErrorLayer;

/// Package `otp.v1`, generated from the contract.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    pub use otpd_contract::v1::*;
    tonic::include_proto!("otp.v1");

    /// Compiled contract, served by the reflection services.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/otp_descriptor.bin"));
}

/// Maximum length of a request message. The longest sensible request is a tenth of it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
