//! E-mail over SMTP.

mod connection;
mod mail;
mod settings;

use std::fmt;

use lettre::transport::smtp::commands::{Data, Mail, Rcpt};

use super::{DeliveryError, OutgoingMessage, ProviderReceipt};
use connection::{ConnectionPool, SmtpCommand, classify_error};
pub use settings::{SmtpSettings, SmtpTable};

/// Hands messages to an SMTP server.
pub struct SmtpProvider {
    settings: SmtpSettings,
    connections: ConnectionPool,
}

/// Shows nothing that could be secret.
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
    /// A provider; opens no connection yet.
    pub fn new(settings: SmtpSettings) -> Self {
        Self {
            settings,
            connections: ConnectionPool::default(),
        }
    }

    /// Hands a message over. Whoever calls this sets it a time, and may drop it at any
    /// moment.
    ///
    /// # Errors
    /// Why the server has not taken it, and what can be done about it.
    pub async fn deliver(
        &self,
        envelope: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let mail = mail::compose(&self.settings, envelope)?;
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
        envelope.progress.hand_over();
        let sent = connection.message(&mail.formatted()).await;
        sent.map_err(step(SmtpCommand::Content))?;
        self.connections.give_back(connection);
        Ok(ProviderReceipt::default())
    }

    /// Connects and authenticates, and sends nothing. Whoever calls this sets it a time.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<String, String> {
        let connection = self.connections.take(&self.settings).await;
        let connection = connection.map_err(|error| error.cause)?;
        self.connections.give_back(connection);
        let SmtpSettings { host, port, .. } = &self.settings;
        Ok(match self.settings.login {
            None => format!("{host}:{port} answers"),
            Some(_) => format!("{host}:{port} knows the account"),
        })
    }
}
