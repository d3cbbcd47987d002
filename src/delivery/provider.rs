//! What takes messages.

use super::{Accepted, DeliveryError, Envelope, log};

/// What takes messages.
#[derive(Debug)]
pub enum Provider {
    /// The development log: whoever can read it has the code.
    Log,
}

impl Provider {
    /// Hands a message over.
    ///
    /// # Errors
    /// Why it was not taken.
    #[expect(
        clippy::unused_async,
        reason = "the providers to come wait for their networks"
    )]
    pub async fn deliver(&self, envelope: &Envelope<'_>) -> Result<Accepted, DeliveryError> {
        match self {
            Self::Log => {
                log::deliver(envelope);
                Ok(Accepted::default())
            }
        }
    }

    /// Finds out whether it can be reached, without a message, and says so in words.
    ///
    /// # Errors
    /// What is wrong.
    #[expect(
        clippy::unused_async,
        reason = "the providers to come wait for their networks"
    )]
    pub async fn check(&self) -> Result<String, String> {
        match self {
            Self::Log => Ok("writes into the log".to_owned()),
        }
    }
}
