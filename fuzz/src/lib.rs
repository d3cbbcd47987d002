//! Fuzz targets: one function each, which takes any bytes and panics if otpd breaks a
//! promise. docs/fuzzing.md lists them.

mod bytes;
mod challenge_id;
mod code;
mod configuration;
mod grpc_timeout;
mod json;
mod key_ring;
mod message;
mod names;
mod provider;
mod random;
mod recipient;
mod request;
mod scratch;
mod sealed;
mod surface;
mod template;
mod traceparent;

pub use challenge_id::challenge_id;
pub use code::code;
pub use configuration::configuration;
pub use grpc_timeout::grpc_timeout;
pub use json::json;
pub use key_ring::key_ring;
pub use names::names;
pub use provider::{pointer, provider, reply};
pub use recipient::recipient;
pub use request::request;
pub use sealed::sealed;
pub use surface::surface;
pub use template::template;
pub use traceparent::traceparent;
