//! A code on its way to its recipient.

use std::fmt;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Tells one message from every other; random. Providers that take an idempotency key
/// are given it, so that a message that is handed over twice arrives once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// A new one.
    pub fn generate(random: &mut impl Rng) -> Self {
        let mut id = [0; 16];
        random.fill_bytes(&mut id);
        Self(id)
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Why an attempt to hand a message over failed, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The provider cannot take it now: another provider, or a later attempt, may.
    Transient,
    /// The provider did not answer in time. It may have taken the message all the same.
    Timeout,
    /// The provider will never take this message; another provider may.
    Permanent,
    /// There is nobody at this destination: no provider can deliver.
    BadDestination,
    /// The account with the provider is empty or shut: it takes no message of anybody,
    /// until somebody pays or repairs it. Another provider may.
    NoBalance,
}

impl ErrorClass {
    /// The name in configuration, logs and the status of a delivery.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Permanent => "permanent",
            Self::BadDestination => "bad_destination",
            Self::NoBalance => "no_balance",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
