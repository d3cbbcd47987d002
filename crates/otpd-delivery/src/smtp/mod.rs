//! E-mail over SMTP.

mod connection;
mod mail;
mod settings;

use std::fmt;

use lettre::transport::smtp::commands::{Data, Mail, Rcpt};

use super::{DeliveryError, OutgoingMessage, ProviderReceipt};
use connection::{ConnectionPool, SmtpCommand, classify_error};
pub use settings::{SmtpSettings, SmtpTable};

/// Provider that hands messages to an SMTP server.
pub struct SmtpProvider {
    settings: SmtpSettings,
    connections: ConnectionPool,
}

/// Shows no secrets.
impl fmt::Debug for SmtpProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SmtpProvider")
            .field("host", &self.settings.host)
            .field("port", &self.settings.port)
            .finish_non_exhaustive()
    }
}

impl SmtpProvider {
    /// Creates a provider; opens no connection yet.
    pub fn new(settings: SmtpSettings) -> Self {
        Self {
            settings,
            connections: ConnectionPool::default(),
        }
    }

    /// Hands a message over. The caller sets a time limit, and may drop the future at any
    /// moment.
    ///
    /// # Errors
    /// [`DeliveryError`] if the server has not accepted it.
    pub async fn deliver(
        &self,
        message: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let mail = mail::compose(&self.settings, message)?;
        let addresses = mail.envelope();
        let mut connection = self.connections.take(&self.settings).await?;
        let sender = Mail::new(addresses.from().cloned(), Vec::new());
        let step = |step| move |error| classify_error(step, &error);
        let sent = connection.command(sender).await;
        sent.map_err(step(SmtpCommand::Sender))?;
        for recipient in addresses.to() {
            let recipient = Rcpt::new(recipient.clone(), Vec::new());
            let taken = connection.command(recipient).await;
            taken.map_err(step(SmtpCommand::Recipient))?;
        }
        connection
            .command(Data)
            .await
            .map_err(step(SmtpCommand::Data))?;
        message.progress.hand_over();
        let sent = connection.message(&mail.formatted()).await;
        sent.map_err(step(SmtpCommand::Content))?;
        self.connections.give_back(connection);
        Ok(ProviderReceipt::default())
    }

    /// Connects and authenticates, and sends nothing. The caller sets a time limit.
    ///
    /// # Errors
    /// Description of the problem.
    pub async fn check(&self) -> Result<String, String> {
        let connection = self.connections.take(&self.settings).await;
        let connection = connection.map_err(|error| error.cause)?;
        self.connections.give_back(connection);
        let SmtpSettings { host, port, .. } = &self.settings;
        Ok(match self.settings.login {
            None => format!("{host}:{port} answers"),
            Some(_) => format!("{host}:{port} accepted the login"),
        })
    }
}
