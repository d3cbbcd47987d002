//! Tests that drive the real thing. One program, so that it is linked once.

mod conformance;
mod imports;
mod cool_down;
mod main_job;
mod phones;
mod purposes;
mod races;
mod randomness;
mod support;
mod sweeping;
