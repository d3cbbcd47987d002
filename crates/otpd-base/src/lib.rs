//! Modules that the service and the delivery of messages both use: tables of the
//! configuration, the files that it names, the environment, targets of log lines, and a
//! queue in which callers take turns.

pub mod environment;
pub mod files;
pub mod lanes;
pub mod log_targets;
pub mod tables;
