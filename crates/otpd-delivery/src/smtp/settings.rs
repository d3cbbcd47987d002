//! Settings of an `smtp` provider.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use lettre::{
    Address,
    message::Mailbox,
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{Certificate, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::{http::read_secret, tls_roots};
use otpd_base::tables::{self, ConfigKeyError};

/// Ports for submission over STARTTLS, and with TLS from the first byte (RFC 8314).
const SUBMISSION_PORT: u16 = 587;
const SUBMISSIONS_PORT: u16 = 465;
/// Port for relay without TLS (RFC 5321, section 4.5.4.2).
const SMTP_PORT: u16 = 25;

/// Keys of an `smtp` provider; docs/providers.md explains each.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpTable {
    /// Name of the server, which its certificate must have.
    pub host: Option<String>,
    /// Port of the server.
    pub port: Option<u16>,
    /// Encryption of the connection.
    #[serde(deserialize_with = "tables::name")]
    pub tls: TlsMode,
    /// Allows `tls = "none"` to another machine.
    pub allow_plaintext: bool,
    /// User name for the login.
    pub user: Option<String>,
    /// Password for the login.
    pub password: Option<SecretString>,
    /// File that contains the password.
    pub password_file: Option<String>,
    /// Sender, with a name or without.
    pub from: Option<String>,
    /// Address for replies.
    pub reply_to: Option<String>,
    /// File of further authorities for the server's certificate, as PEM.
    pub ca: Option<PathBuf>,
    /// Name that otpd sends in EHLO.
    pub ehlo_name: Option<String>,
}

/// Encryption of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS after STARTTLS; without it no message is sent.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// No encryption.
    None,
}

/// Checked settings of an SMTP provider.
pub struct SmtpSettings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) mode: TlsMode,
    /// Parameters of TLS, unless the mode is none.
    pub(super) tls: Option<TlsParameters>,
    pub(super) login: Option<(String, SecretString)>,
    pub(super) from: Mailbox,
    pub(super) reply_to: Option<Mailbox>,
    pub(super) ehlo_name: ClientId,
    pub(super) connect_timeout: Duration,
}

/// Shows no secrets.
impl fmt::Debug for SmtpSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SmtpSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.mode)
            .finish_non_exhaustive()
    }
}

impl SmtpSettings {
    /// Checks the keys of a table, and reads the files that they name. One attempt may
    /// take `timeout`.
    ///
    /// # Errors
    /// [`ConfigKeyError`] for the first wrong key.
    pub fn new(table: SmtpTable, timeout: Duration) -> Result<Self, ConfigKeyError> {
        let host = required("host", table.host)?;
        let from = mailbox("from", &required("from", table.from)?)?;
        let loopback = host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback());
        if table.tls == TlsMode::None && !loopback && !table.allow_plaintext {
            return Err(ConfigKeyError::new(
                "tls",
                "codes would cross the network in the clear; use \"starttls\" or \"implicit\", or set allow_plaintext = true",
            ));
        }
        let tls = match table.tls {
            TlsMode::None => None,
            TlsMode::StartTls | TlsMode::Implicit => {
                let mut parameters = TlsParameters::builder(host.clone());
                let extra = table
                    .ca
                    .as_deref()
                    .map(tls_roots::certificates)
                    .transpose()?;
                for certificate in extra.unwrap_or_default() {
                    let certificate = Certificate::from_der(certificate.to_vec())
                        .map_err(|error| ConfigKeyError::new("ca", error))?;
                    parameters = parameters.add_root_certificate(certificate);
                }
                let parameters = parameters.build_rustls();
                Some(parameters.map_err(|error| ConfigKeyError::new("ca", error))?)
            }
        };
        Ok(Self {
            port: table.port.unwrap_or(match table.tls {
                TlsMode::StartTls => SUBMISSION_PORT,
                TlsMode::Implicit => SUBMISSIONS_PORT,
                TlsMode::None => SMTP_PORT,
            }),
            mode: table.tls,
            tls,
            login: login(table.user, table.password, table.password_file)?,
            reply_to: table
                .reply_to
                .map(|text| mailbox("reply_to", &text))
                .transpose()?,
            ehlo_name: ehlo_name(table.ehlo_name, &from)?,
            from,
            host,
            connect_timeout: timeout,
        })
    }

    pub(super) fn credentials(&self) -> Option<Credentials> {
        let (user, password) = self.login.as_ref()?;
        let password = password.expose_secret().to_owned();
        Some(Credentials::new(user.clone(), password))
    }
}

/// Mechanisms that lettre supports and that are not obsolete.
pub(super) const MECHANISMS: &[Mechanism] = &[Mechanism::Plain, Mechanism::Login];

fn required(key: &str, value: Option<String>) -> Result<String, ConfigKeyError> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ConfigKeyError::new(key, "is missing"))
}

fn login(
    user: Option<String>,
    password: Option<SecretString>,
    file: Option<String>,
) -> Result<Option<(String, SecretString)>, ConfigKeyError> {
    let password = match (password, file) {
        (Some(_), Some(_)) => {
            return Err(ConfigKeyError::new(
                "password_file",
                "password is set as well; leave one out",
            ));
        }
        (None, Some(path)) => Some(read_secret("password_file", &path)?),
        (password, None) => password,
    };
    match (user, password) {
        (Some(user), Some(password)) => Ok(Some((user, password))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigKeyError::new("password", "is missing; user is set")),
        (None, Some(_)) => Err(ConfigKeyError::new("user", "is missing; a password is set")),
    }
}

/// Parses an address with a name or without. Its domain is written in A-labels, which all
/// servers know.
fn mailbox(key: &str, text: &str) -> Result<Mailbox, ConfigKeyError> {
    let fault = || {
        ConfigKeyError::new(
            key,
            "is not an e-mail address; write name@example.com, or Name <name@example.com>",
        )
    };
    let (name, address) = match text.split_once('<') {
        None => (None, text.trim()),
        Some((name, rest)) => {
            let name = name.trim().trim_matches('"');
            let name = (!name.is_empty()).then(|| name.to_owned());
            (name, rest.trim().strip_suffix('>').ok_or_else(fault)?)
        }
    };
    let (user, domain) = address.rsplit_once('@').ok_or_else(fault)?;
    let domain = idna::domain_to_ascii_strict(domain).map_err(|_| fault())?;
    if !user.is_ascii()
        || name
            .as_deref()
            .is_some_and(|name| name.contains(char::is_control))
    {
        return Err(fault());
    }
    let address = Address::new(user, domain).map_err(|_| fault())?;
    Ok(Mailbox::new(name, address))
}

/// Returns the name for EHLO: the sender's domain unless another one is configured.
fn ehlo_name(given: Option<String>, from: &Mailbox) -> Result<ClientId, ConfigKeyError> {
    let name = given.unwrap_or_else(|| from.email.domain().to_owned());
    if let Ok(address) = name.parse() {
        return Ok(match address {
            IpAddr::V4(address) => ClientId::Ipv4(address),
            IpAddr::V6(address) => ClientId::Ipv6(address),
        });
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(ConfigKeyError::new(
            "ehlo_name",
            "is neither a domain nor an address",
        ));
    }
    Ok(ClientId::Domain(name))
}
