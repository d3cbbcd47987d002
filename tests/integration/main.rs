//! Tests that drive the real thing. One program, so that it is linked once.

mod main_job;
mod outage;
mod phones;
mod secrecy;
mod support;
