//! The safety net: the promises of otpd, checked by a model that was written apart from
//! it, and by seeded bugs that the model must find. docs/reliability.md tells what it
//! found.

mod linearizability;
mod long_run;
mod model;
mod model_based;
mod reliability_report;
mod server;
mod settings;
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test program uses a part of it"
)]
#[path = "../integration/support/mod.rs"]
mod support;
