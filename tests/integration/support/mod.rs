//! What the tests run otpd on, and with.

mod database;
mod replica;

pub use database::{Database, Kind};
pub use replica::{Replica, otpd};
