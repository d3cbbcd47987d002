//! What the tests run otpd on, and with.

mod command;
mod database;
mod refusal;
mod replica;
mod request;
mod strangers;

pub use command::{Ended, run};
pub use database::{Database, Kind};
pub use refusal::Refusal;
pub use replica::{Replica, otpd};
pub use request::AnyRequest;
pub use strangers::unharmed;
