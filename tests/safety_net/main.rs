//! The safety net: checks the promises of otpd against a separately written model, and the
//! checks themselves with seeded bugs. docs/reliability.md has the results.

mod dice;
mod golden_vectors;
mod linearizability;
mod long_run;
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
