//! Tests that drive the real thing. One program, so that it is linked once.

mod conformance;
mod guessing;
mod imports;
mod main_job;
mod phones;
mod support;
