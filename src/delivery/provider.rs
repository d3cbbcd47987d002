//! The closed set of what takes messages.

use super::{
    DeliveryError, OutgoingMessage, ProviderReceipt,
    http::HttpProvider,
    log,
    settings::{ProviderKind, ProviderSettings},
    smtp::SmtpProvider,
};
use crate::{
    environment::{DevelopmentOnly, Environment},
    tables::ConfigKeyError,
};

/// What takes messages.
#[derive(Debug)]
pub enum Provider {
    /// The development log: whoever can read it has the code.
    Log(DevelopmentOnly),
    /// An SMTP server.
    Smtp(Box<SmtpProvider>),
    /// A gateway over HTTP.
    Http(Box<HttpProvider>),
}

impl Provider {
    /// The provider `name` in that environment; opens no connection yet.
    ///
    /// # Errors
    /// The key at fault, with the provider's table.
    pub fn new(
        name: &str,
        settings: ProviderSettings,
        environment: Environment,
    ) -> Result<Self, ConfigKeyError> {
        Ok(match settings.kind {
            ProviderKind::Log => {
                let development = environment.development().ok_or_else(|| {
                    ConfigKeyError::new(
                        format!("providers.{name}.kind"),
                        "production refuses the development log, which shows codes to whoever reads it; configure a provider that reaches people",
                    )
                })?;
                Self::Log(development)
            }
            ProviderKind::Smtp(settings) => Self::Smtp(Box::new(SmtpProvider::new(*settings))),
            ProviderKind::Http(settings) => {
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
    pub async fn deliver(
        &self,
        envelope: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        match self {
            Self::Log(_) => {
                log::deliver(envelope);
                Ok(ProviderReceipt::default())
            }
            Self::Smtp(smtp) => smtp.deliver(envelope).await,
            Self::Http(http) => http.deliver(envelope).await,
        }
    }

    /// Whether equal attempts make one message: the gateway takes an idempotency key. A
    /// line of the development log costs nothing, and is no message.
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Log(_) => true,
            Self::Smtp(_) => false,
            Self::Http(http) => http.is_idempotent(),
        }
    }

    /// Whether it would take messages, as far as that can be known without sending one;
    /// says what was seen. Whoever calls this sets it a time.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<String, String> {
        match self {
            Self::Log(_) => Ok("codes go to the log".to_owned()),
            Self::Smtp(smtp) => smtp.check().await,
            Self::Http(http) => http.check().await,
        }
    }
}
