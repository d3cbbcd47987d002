//! What the tests run otpd on, and with.

mod database;
mod proxy;
mod replica;
mod secrets;

pub use database::{Database, Kind};
pub use proxy::Proxy;
pub use replica::{Replica, otpd};
pub use secrets::{Secrets, hex};
