//! Pool of connections to an SMTP server.
//!
//! lettre's own pool takes a connection back even if its user was dropped between a
//! command and its reply, as happens at each time-out. The next message would then read
//! the previous reply as its own. Here a connection is returned only after the last reply
//! was read; a dropped one is closed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lettre::transport::smtp::{Error, client::AsyncSmtpConnection, response::Severity};
use tokio::time::Instant;

use super::settings::{MECHANISMS, SmtpSettings, TlsMode};
use crate::{DeliveryError, redact::redacted_cause};
use otpd_rules::DeliveryErrorKind;

/// Maximum idle time of a pooled connection. Servers close idle connections themselves,
/// after five minutes at the earliest (RFC 5321, section 4.5.3.2.7); many close them
/// sooner.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// Maximum number of pooled connections; more are opened as needed.
const MAX_POOLED: usize = 16;

/// Fraction of an attempt's time in which one pooled connection has to respond. A
/// firewall may have dropped it silently, and it would stay silent until the time-out.
const LIVENESS_CHECK_FRACTION: u32 = 5;

/// Idle connections, the newest last.
#[derive(Default)]
pub struct ConnectionPool(Mutex<Vec<(AsyncSmtpConnection, Instant)>>);

impl ConnectionPool {
    /// Returns a connection that is ready for a message.
    pub async fn take(
        &self,
        settings: &SmtpSettings,
    ) -> Result<AsyncSmtpConnection, DeliveryError> {
        while let Some(mut connection) = self.newest() {
            let patience = settings.connect_timeout / LIVENESS_CHECK_FRACTION;
            match tokio::time::timeout(patience, connection.test_connected()).await {
                Ok(true) => return Ok(connection),
                // The server has closed it.
                Ok(false) => {}
                // The others are older, and there is no time to check them one by one.
                Err(_) => self.kept().clear(),
            }
        }
        connect(settings).await
    }

    /// Returns a connection to the pool; its last reply must have been read.
    pub fn give_back(&self, connection: AsyncSmtpConnection) {
        let mut kept = self.kept();
        kept.retain(|(_, since)| since.elapsed() < MAX_IDLE);
        if kept.len() < MAX_POOLED {
            kept.push((connection, Instant::now()));
        }
    }

    fn newest(&self) -> Option<AsyncSmtpConnection> {
        let (connection, since) = self.kept().pop()?;
        (since.elapsed() < MAX_IDLE).then_some(connection)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(AsyncSmtpConnection, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(settings: &SmtpSettings) -> Result<AsyncSmtpConnection, DeliveryError> {
    let implicit = settings
        .tls
        .clone()
        .filter(|_| settings.mode == TlsMode::Implicit);
    let connected = AsyncSmtpConnection::connect_tokio1(
        (settings.host.as_str(), settings.port),
        Some(settings.connect_timeout),
        &settings.ehlo_name,
        implicit,
        None,
    );
    let mut connection = connected
        .await
        .map_err(|error| classify_error(SmtpCommand::Connection, &error))?;
    if let Some(tls) = settings
        .tls
        .clone()
        .filter(|_| settings.mode == TlsMode::StartTls)
    {
        if !connection.can_starttls() {
            return Err(DeliveryError::new(
                DeliveryErrorKind::Transient,
                "no connection: the server offers no STARTTLS",
            ));
        }
        let secured = connection.starttls(tls, &settings.ehlo_name).await;
        secured.map_err(|error| classify_error(SmtpCommand::Connection, &error))?;
    }
    if let Some(credentials) = settings.credentials() {
        let known = connection.auth(MECHANISMS, &credentials).await;
        known.map_err(|error| classify_error(SmtpCommand::Authentication, &error))?;
    }
    Ok(connection)
}

/// Step of an SMTP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpCommand {
    /// Connecting, TLS and the greetings.
    Connection,
    /// AUTH.
    Authentication,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA.
    Data,
    /// The mail itself. Without a reply to its end the server may have accepted it.
    Content,
}

impl SmtpCommand {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connecting",
            Self::Authentication => "AUTH",
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data | Self::Content => "DATA",
        }
    }
}

/// Classifies an error at `step`. Servers repeat addresses in their texts, so only the
/// codes of a reply are reported.
pub fn classify_error(step: SmtpCommand, error: &Error) -> DeliveryError {
    let Some(code) = error.status() else {
        let what = if step == SmtpCommand::Connection {
            "no connection"
        } else {
            "no response"
        };
        if error.is_client() && step == SmtpCommand::Authentication {
            return DeliveryError::new(
                DeliveryErrorKind::NoBalance,
                "AUTH: the server offers neither PLAIN nor LOGIN",
            );
        }
        let class = match step {
            SmtpCommand::Content if error.is_timeout() => DeliveryErrorKind::Timeout,
            SmtpCommand::Content => DeliveryErrorKind::UnknownOutcome,
            _ => DeliveryErrorKind::Transient,
        };
        let problem = redacted_cause(error);
        let at = step.name();
        return DeliveryError::new(class, format!("{what} ({at}): {problem}"));
    };
    let enhanced =
        std::error::Error::source(error).and_then(|reply| enhanced_code(&reply.to_string()));
    let class = match code.severity {
        Severity::PermanentNegativeCompletion => permanent(step, u16::from(code), enhanced),
        _ => DeliveryErrorKind::Transient,
    };
    let mut cause = format!("SMTP reply {code}");
    if let Some((subject, detail)) = enhanced {
        cause = format!("{cause} {}.{subject}.{detail}", u16::from(code) / 100);
    }
    DeliveryError::new(class, format!("{cause} to {}", step.name()))
}

fn permanent(step: SmtpCommand, code: u16, enhanced: Option<(u16, u16)>) -> DeliveryErrorKind {
    match (step, code, enhanced) {
        // The login is refused, so no message is accepted (RFC 4954, section 6), also if
        // a server asks for AUTH only at a later step.
        (SmtpCommand::Authentication, ..) | (_, 530 | 535, _) => DeliveryErrorKind::NoBalance,
        // RFC 3463, section 3.2: the address is wrong, not the message. Without such a
        // code a server may as well mean that it does not trust the sender.
        (SmtpCommand::Recipient, 550 | 551 | 553, Some((1, detail)))
            if !SENDER_ADDRESS_DETAILS.contains(&detail) =>
        {
            DeliveryErrorKind::BadDestination
        }
        _ => DeliveryErrorKind::Permanent,
    }
}

/// Details of X.1.7 and X.1.8, which are about the sender's address.
const SENDER_ADDRESS_DETAILS: [u16; 2] = [7, 8];

/// Returns the subject and detail of an enhanced status code (RFC 2034) at the beginning
/// of a reply.
fn enhanced_code(reply: &str) -> Option<(u16, u16)> {
    let first = reply.split_whitespace().next()?;
    let mut numbers = first.split('.').map(|part| {
        let digits = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| digits)
    });
    let (class, subject, detail): (u16, _, _) =
        (numbers.next()??, numbers.next()??, numbers.next()??);
    (matches!(class, 2 | 4 | 5) && numbers.next().is_none()).then_some((subject, detail))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use lettre::{Address, message::Mailbox, transport::smtp::extension::ClientId};
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Greets, then stays silent; counts the commands that get no reply.
    async fn fall_silent(stream: TcpStream, in_vain: Arc<AtomicUsize>) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        for reply in ["220 mail.example\r\n", "250 mail.example\r\n"] {
            stream.write_all(reply.as_bytes()).await.unwrap();
            stream.read_line(&mut line).await.unwrap();
        }
        if line.ends_with("NOOP\r\n") {
            in_vain.fetch_add(1, Ordering::Relaxed);
        }
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn one_timeout_discards_all_stale_pooled_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = SmtpSettings {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            mode: TlsMode::None,
            tls: None,
            login: None,
            from: Mailbox::new(None, Address::new("otpd", "example.com").unwrap()),
            reply_to: None,
            ehlo_name: ClientId::Domain("example.com".to_owned()),
            connect_timeout: Duration::from_secs(1),
        };
        let in_vain = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&in_vain);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(fall_silent(stream, Arc::clone(&counted)));
            }
        });
        let connections = ConnectionPool::default();
        for _ in 0..3 {
            connections.give_back(connect(&settings).await.unwrap());
        }
        connections.take(&settings).await.unwrap();
        assert_eq!(in_vain.load(Ordering::Relaxed), 1);
        assert!(connections.kept().is_empty());
    }
}
