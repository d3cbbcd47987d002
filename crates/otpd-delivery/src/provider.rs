//! Provider, as a closed set of kinds.

use super::{
    DeliveryError, OutgoingMessage, ProviderReceipt,
    http::HttpProvider,
    log,
    settings::{ProviderKind, ProviderSettings},
    smtp::SmtpProvider,
};
use otpd_base::{
    environment::{DevelopmentOnly, Environment},
    tables::ConfigKeyError,
};

/// Provider of any kind.
#[derive(Debug)]
pub enum Provider {
    /// Development log; it shows the code to all its readers.
    Log(DevelopmentOnly),
    /// An SMTP server.
    Smtp(Box<SmtpProvider>),
    /// A gateway over HTTP.
    Http(Box<HttpProvider>),
}

impl Provider {
    /// Creates the provider `name` in that environment; opens no connection yet.
    ///
    /// # Errors
    /// [`ConfigKeyError`] with the wrong key of the provider's table.
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
                        "the development log shows codes to all its readers, so it is not allowed in production; configure a provider that delivers messages",
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

    /// Hands a message over. The caller sets a time limit, and may drop the future at any
    /// moment.
    ///
    /// # Errors
    /// [`DeliveryError`] if the provider has not accepted it.
    pub async fn deliver(
        &self,
        message: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        match self {
            Self::Log(_) => {
                log::deliver(message);
                Ok(ProviderReceipt::default())
            }
            // Boxed, because the task of each message in flight would contain the larger of the
            // two futures, also while it waits.
            Self::Smtp(smtp) => Box::pin(smtp.deliver(message)).await,
            Self::Http(http) => Box::pin(http.deliver(message)).await,
        }
    }

    /// Returns true if equal attempts make one message, because the gateway takes an
    /// idempotency key. A line of the development log costs nothing, and is no message.
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Log(_) => true,
            Self::Smtp(_) => false,
            Self::Http(http) => http.is_idempotent(),
        }
    }

    /// Checks that the provider would accept messages, as far as possible without sending
    /// one. Returns a description of the result. The caller sets a time limit.
    ///
    /// # Errors
    /// Description of the problem.
    pub async fn check(&self) -> Result<String, String> {
        match self {
            Self::Log(_) => Ok("codes are written to the log".to_owned()),
            Self::Smtp(smtp) => smtp.check().await,
            Self::Http(http) => http.check().await,
        }
    }
}
