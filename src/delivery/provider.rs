//! The closed set of what takes messages.

use super::{
    Accepted, DeliveryError, Envelope,
    http::HttpProvider,
    log,
    settings::{KindSettings, ProviderSettings},
    smtp::SmtpProvider,
};
use crate::tables::KeyError;

/// What takes messages.
#[derive(Debug)]
pub enum Provider {
    /// The development log: whoever can read it has the code.
    Log,
    /// An SMTP server.
    Smtp(Box<SmtpProvider>),
    /// A gateway over HTTP.
    Http(Box<HttpProvider>),
}

impl Provider {
    /// The provider `name`; opens no connection yet.
    ///
    /// # Errors
    /// The key at fault, with the provider's table.
    pub fn new(name: &str, settings: ProviderSettings) -> Result<Self, KeyError> {
        Ok(match settings.kind {
            KindSettings::Log => Self::Log,
            KindSettings::Smtp(settings) => Self::Smtp(Box::new(SmtpProvider::new(*settings))),
            KindSettings::Http(settings) => {
                let http = HttpProvider::new(name, *settings);
                let http = http.map_err(|fault| fault.inside(&format!("providers.{name}")))?;
                Self::Http(Box::new(http))
            }
        })
    }

    /// Hands a message over. Whoever calls this sets it a time, and may drop it at any
    /// moment.
    ///
    /// # Errors
    /// Why the provider has not taken it, and what can be done about it.
    pub async fn deliver(&self, envelope: &Envelope<'_>) -> Result<Accepted, DeliveryError> {
        match self {
            Self::Log => {
                log::deliver(envelope);
                Ok(Accepted::default())
            }
            Self::Smtp(smtp) => smtp.deliver(envelope).await,
            Self::Http(http) => http.deliver(envelope).await,
        }
    }

    /// Whether it would take messages, as far as that can be known without sending one;
    /// says what was seen. Whoever calls this sets it a time.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<String, String> {
        match self {
            Self::Log => Ok("codes go to the log".to_owned()),
            Self::Smtp(smtp) => smtp.check().await,
            Self::Http(http) => http.check().await,
        }
    }
}
