//! Rejection of invalid requests: codes, fields, frames and random bytes.

mod codes;
mod fields;
mod frames;
mod random;
