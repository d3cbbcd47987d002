//! Tests that drive the real thing. One program, so that it is linked once.

mod bad_codes;
mod bad_frames;
mod bad_input;
mod command_line;
mod conformance;
mod cool_down;
mod guessing;
mod imports;
mod log_lines;
mod main_job;
mod outage;
mod phones;
mod process;
mod production_files;
mod providers;
mod purposes;
mod races;
mod random_input;
mod randomness;
mod reflection;
mod secrecy;
mod support;
mod sweeping;
