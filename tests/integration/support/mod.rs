//! What the tests run otpd on, and with.

mod database;
mod replica;
mod script;
mod words;

pub use database::{Database, Kind};
pub use replica::{Replica, otpd};
pub use script::{Challenge, Script, Step};
pub use words::{Typed, reason};
