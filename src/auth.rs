//! Authentication of callers: by a bearer token, of which only the digest is stored, or by the
//! client certificate of the connection.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use otpd_base::environment::DevelopmentOnly;
use otpd_rules::{Caller, CallerName, PolicySet};

/// All callers, and their credentials.
#[derive(Debug)]
pub enum CallerRegistry {
    /// No authentication; only in development.
    Unauthenticated(Arc<Caller>),
    /// Authentication by these credentials.
    Configured(Vec<CallerCredentials>),
}

/// Credentials of one caller.
#[derive(Clone, Debug)]
pub struct CallerCredentials {
    /// Caller with these credentials.
    pub caller: Arc<Caller>,
    /// SHA-256 digests of its bearer tokens; several, so that tokens can be rotated.
    pub tokens: Vec<[u8; 32]>,
    /// Names in its certificates.
    pub certificate_names: Vec<CertificateName>,
}

/// Subject alternative name of a certificate (RFC 5280, section 4.2.1.6). A DNS name never
/// matches a URI, even with the same text, because an authority may issue any URI to anyone
/// but restrict its DNS names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// DNS name in lower case.
    Dns(String),
    /// URI.
    Uri(String),
}

impl CertificateName {
    /// Creates a DNS name; DNS names are case-insensitive (RFC 4343).
    pub fn dns(name: &str) -> Self {
        Self::Dns(name.to_ascii_lowercase())
    }

    /// Parses a name of the configuration. A name with a colon is a URI, because a URI has a
    /// scheme and a DNS name has no colon.
    ///
    /// # Errors
    /// The remedy, if it is neither.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const PROBLEM: &str = "neither a DNS name nor a URI; write a subject alternative name of the certificate, such as crm.internal or spiffe://example/crm";
        let is_dns = |byte: u8| byte.is_ascii_alphanumeric() || b".-_*".contains(&byte);
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        match text.split_once(':') {
            Some((scheme, rest)) => {
                let is_uri = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                    && scheme.bytes().all(is_scheme)
                    && !rest.is_empty()
                    && rest.bytes().all(|byte| byte.is_ascii_graphic());
                is_uri.then(|| Self::Uri(text.to_owned()))
            }
            None => (!text.is_empty() && text.bytes().all(is_dns)).then(|| Self::dns(text)),
        }
        .ok_or(PROBLEM)
    }
}

impl TryFrom<String> for CertificateName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// Credentials that a client presents.
#[derive(Clone, Debug, Default)]
pub struct PresentedCredentials<'a> {
    /// Bearer token of the request.
    pub token: Option<&'a str>,
    /// Names in the client certificate, which TLS has verified.
    pub certificate_names: &'a [CertificateName],
}

/// Failed authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credentials were presented.
    #[error("no bearer token and no client certificate")]
    NoProof,
    /// No caller has this token, or it was withdrawn.
    #[error("no caller has this bearer token")]
    Token,
    /// No caller has a name of this certificate.
    #[error("no caller has this client certificate")]
    Certificate,
}

impl AuthError {
    /// Returns the label value for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoProof => "no_proof",
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

impl CallerRegistry {
    /// Returns all callers.
    pub fn all(&self) -> Vec<&Arc<Caller>> {
        match self {
            Self::Unauthenticated(caller) => vec![caller],
            Self::Configured(known) => known
                .iter()
                .map(|credentials| &credentials.caller)
                .collect(),
        }
    }

    /// Creates the registry of a development server, which accepts all requests as one caller.
    pub fn anyone(policies: PolicySet, _: DevelopmentOnly) -> Self {
        Self::Unauthenticated(Arc::new(Caller::development(policies)))
    }

    /// Returns whether callers must prove who they are.
    pub const fn is_authenticated(&self) -> bool {
        matches!(self, Self::Configured(_))
    }

    /// Returns the caller of that name.
    pub fn get(&self, name: &CallerName) -> Option<&Arc<Caller>> {
        match self {
            Self::Unauthenticated(caller) => Some(caller).filter(|caller| caller.name == *name),
            Self::Configured(known) => known
                .iter()
                .map(|credentials| &credentials.caller)
                .find(|caller| caller.name == *name),
        }
    }

    /// Identifies the caller by the presented credentials. A token takes precedence over a
    /// certificate, so that a proxy with a certificate can forward the tokens of its clients.
    ///
    /// # Errors
    /// [`AuthError`] if they identify no caller.
    pub fn identify(
        &self,
        presented: &PresentedCredentials<'_>,
    ) -> Result<&Arc<Caller>, AuthError> {
        let known = match self {
            Self::Unauthenticated(caller) => return Ok(caller),
            Self::Configured(known) => known,
        };
        if let Some(token) = presented.token {
            return by_token(known, token).ok_or(AuthError::Token);
        }
        if presented.certificate_names.is_empty() {
            return Err(AuthError::NoProof);
        }
        let by_name = known.iter().find(|credentials| {
            credentials
                .certificate_names
                .iter()
                .any(|name| presented.certificate_names.contains(name))
        });
        by_name
            .map(|credentials| &credentials.caller)
            .ok_or(AuthError::Certificate)
    }
}

/// Returns the caller of a token. Compares with every digest in full, so that the time taken
/// reveals nothing about any of them.
fn by_token<'a>(known: &'a [CallerCredentials], token: &str) -> Option<&'a Arc<Caller>> {
    let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let mut found = None;
    for credentials in known {
        for token in &credentials.tokens {
            if token.ct_eq(&digest).into() {
                found = Some(&credentials.caller);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str, tokens: &[&str], certificate_names: &[&str]) -> CallerCredentials {
        let mut caller = Caller::development(PolicySet::default());
        caller.name = CallerName::new(name);
        CallerCredentials {
            caller: Arc::new(caller),
            tokens: tokens
                .iter()
                .map(|token| Sha256::digest(token.as_bytes()).into())
                .collect(),
            certificate_names: certificate_names
                .iter()
                .map(|name| CertificateName::parse(name).unwrap())
                .collect(),
        }
    }

    fn identify(token: Option<&str>, names: &[&str]) -> Result<String, AuthError> {
        let names: Vec<_> = names
            .iter()
            .map(|name| CertificateName::parse(name).unwrap())
            .collect();
        identify_named(token, &names)
    }

    fn identify_named(token: Option<&str>, names: &[CertificateName]) -> Result<String, AuthError> {
        let callers = CallerRegistry::Configured(vec![
            credentials("crm", &["old", "new"], &["crm.internal"]),
            credentials("shop", &["other"], &["spiffe://example/shop"]),
        ]);
        let presented = PresentedCredentials {
            token,
            certificate_names: names,
        };
        callers
            .identify(&presented)
            .map(|caller| caller.name.to_string())
    }

    #[test]
    fn tokens_and_certificates_map_to_callers() {
        assert_eq!(identify(Some("old"), &[]).as_deref(), Ok("crm"));
        assert_eq!(identify(Some("new"), &[]).as_deref(), Ok("crm"));
        assert_eq!(
            identify(Some("other"), &["crm.internal"]).as_deref(),
            Ok("shop")
        );
        assert_eq!(
            identify(None, &["x", "spiffe://example/shop"]).as_deref(),
            Ok("shop")
        );
    }

    #[test]
    fn dns_name_and_uri_with_equal_text_are_distinct() {
        let uri = CertificateName::Uri("crm.internal".to_owned());
        assert_eq!(identify_named(None, &[uri]), Err(AuthError::Certificate));
        let dns = CertificateName::dns("spiffe://example/shop");
        assert_eq!(identify_named(None, &[dns]), Err(AuthError::Certificate));
        let capitals = CertificateName::dns("CRM.Internal");
        assert_eq!(identify_named(None, &[capitals]).as_deref(), Ok("crm"));
    }

    #[test]
    fn configured_certificate_name_is_dns_name_or_uri() {
        let parse = CertificateName::parse;
        assert_eq!(
            parse("Crm.Internal"),
            Ok(CertificateName::dns("crm.internal"))
        );
        for uri in [
            "spiffe://example/crm",
            "urn:example:crm",
            "https://crm.internal",
        ] {
            assert_eq!(parse(uri), Ok(CertificateName::Uri(uri.to_owned())));
        }
        for neither in [
            "",
            "CN=crm",
            "crm internal",
            "//example/crm",
            ":crm",
            "1a:b",
            "crm:",
            "a:b c",
        ] {
            parse(neither).unwrap_err();
        }
    }

    #[test]
    fn unknown_credentials_map_to_no_caller() {
        assert_eq!(identify(None, &[]), Err(AuthError::NoProof));
        assert_eq!(identify(Some(""), &[]), Err(AuthError::Token));
        assert_eq!(
            identify(Some("Old"), &["crm.internal"]),
            Err(AuthError::Token)
        );
        assert_eq!(identify(None, &["crm"]), Err(AuthError::Certificate));
    }
}
