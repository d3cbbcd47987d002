//! otpd: a gRPC service that sends and verifies one-time passwords, with state shared by all
//! its replicas. ARCHITECTURE.md has a map of the modules.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod engine;
pub mod grpc;
pub mod key_file;
pub mod keys;
mod labels;
pub mod listener;
pub mod metrics;
pub mod outbox;
pub mod reason;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod system_random;
pub mod telemetry;
pub mod traces;
