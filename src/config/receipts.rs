//! Table `[receipts]`: signed statements about verifications, for other services.

use std::net::SocketAddr;

use serde::Deserialize;
use url::Url;

use super::ConfigError;
use otpd_base::environment::Environment;

/// Receipts of verifications, for the services in `receipt_audiences` of the callers. The key
/// ring must have a key `receipt.1`: `otpd keygen --receipt 1`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptSettings {
    /// Name of this otpd in its receipts (the claim `iss`): a URL such as
    /// `https://otp.example`. Verifiers read the public keys from
    /// `/.well-known/jwks.json` below it.
    pub issuer: String,
    /// Address of the listener that serves the public keys, over plain HTTP: a proxy in front
    /// of it provides TLS. Unset: disabled; then publish the output of `otpd keys jwks` there.
    pub listen: Option<SocketAddr>,
}

impl ReceiptSettings {
    /// Checks the settings.
    pub(super) fn validate(&self, environment: Environment) -> Result<(), ConfigError> {
        let fault = |problem: &str| Err(ConfigError::new("receipts.issuer", problem));
        let url = Url::parse(&self.issuer).ok();
        let is_plain = |url: &Url| {
            let is_bare = url.username().is_empty() && url.password().is_none();
            is_bare && url.query().is_none() && url.fragment().is_none()
        };
        let Some(url) = url.filter(|url| url.has_host() && is_plain(url)) else {
            return fault("not a URL of a server; write one such as https://otp.example");
        };
        if self.issuer.ends_with('/') {
            return fault("must not end with a slash, because verifiers compare it exactly");
        }
        match (url.scheme(), environment) {
            ("https", _) | ("http", Environment::Development) => Ok(()),
            ("http", Environment::Production) => fault(
                "must begin with https:// in production, because an attacker who changes the public keys on their way can forge receipts",
            ),
            _ => fault("must begin with https://"),
        }
    }
}
