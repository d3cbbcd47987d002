//! How callers prove who they are: by a token of which only the digest is known here,
//! or by the certificate of their connection.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    domain::{Caller, CallerName, Policies},
    environment::Development,
};

/// All callers, and their proofs.
#[derive(Debug)]
pub enum Callers {
    /// None has to prove anything: development alone.
    Anyone(Arc<Caller>),
    /// Each has to.
    Known(Vec<Credentials>),
}

/// What proves that somebody is a caller.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Which caller.
    pub caller: Arc<Caller>,
    /// SHA-256 of its bearer tokens; several, so that they can be exchanged.
    pub tokens: Vec<[u8; 32]>,
    /// Names in its certificates (subject alternative names: DNS names and URIs).
    pub certificate_names: Vec<String>,
}

/// What somebody brought along to prove who it is.
#[derive(Clone, Debug, Default)]
pub struct Proof<'a> {
    /// The bearer token of the request.
    pub token: Option<&'a str>,
    /// The names in the certificate of the connection, which TLS has verified.
    pub certificate_names: &'a [String],
}

/// Why somebody is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// It brought nothing along.
    #[error("no bearer token and no client certificate")]
    NoProof,
    /// Its token is nobody's, or was withdrawn.
    #[error("the bearer token is nobody's")]
    Token,
    /// No name of its certificate is anybody's.
    #[error("the client certificate is nobody's")]
    Certificate,
}

impl Unknown {
    /// Its name among the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoProof => "no_proof",
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

impl Callers {
    /// Every caller.
    pub fn all(&self) -> Vec<&Arc<Caller>> {
        match self {
            Self::Anyone(caller) => vec![caller],
            Self::Known(known) => known
                .iter()
                .map(|credentials| &credentials.caller)
                .collect(),
        }
    }

    /// Callers of a development server that tells none apart.
    pub fn anyone(policies: Policies, _: Development) -> Self {
        Self::Anyone(Arc::new(Caller::development(policies)))
    }

    /// The caller of that name.
    pub fn named(&self, name: &CallerName) -> Option<&Arc<Caller>> {
        match self {
            Self::Anyone(caller) => Some(caller).filter(|caller| caller.name == *name),
            Self::Known(known) => known
                .iter()
                .map(|credentials| &credentials.caller)
                .find(|caller| caller.name == *name),
        }
    }

    /// The caller that `proof` proves. A token counts before a certificate, so that a
    /// proxy with a certificate can pass on the tokens of those behind it.
    ///
    /// # Errors
    /// Why it proves none.
    pub fn identify(&self, proof: &Proof<'_>) -> Result<&Arc<Caller>, Unknown> {
        let known = match self {
            Self::Anyone(caller) => return Ok(caller),
            Self::Known(known) => known,
        };
        if let Some(token) = proof.token {
            return by_token(known, token).ok_or(Unknown::Token);
        }
        if proof.certificate_names.is_empty() {
            return Err(Unknown::NoProof);
        }
        let by_name = known.iter().find(|credentials| {
            credentials
                .certificate_names
                .iter()
                .any(|name| proof.certificate_names.contains(name))
        });
        by_name
            .map(|credentials| &credentials.caller)
            .ok_or(Unknown::Certificate)
    }
}

/// The caller of a token. Compares with every digest to its end, so that the time it
/// takes tells nothing of any of them.
fn by_token<'a>(known: &'a [Credentials], token: &str) -> Option<&'a Arc<Caller>> {
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

    fn credentials(name: &str, tokens: &[&str], certificate_names: &[&str]) -> Credentials {
        let mut caller = Caller::development(Policies::default());
        caller.name = CallerName::new(name);
        Credentials {
            caller: Arc::new(caller),
            tokens: tokens
                .iter()
                .map(|token| Sha256::digest(token.as_bytes()).into())
                .collect(),
            certificate_names: certificate_names.iter().map(ToString::to_string).collect(),
        }
    }

    fn identify(token: Option<&str>, names: &[&str]) -> Result<String, Unknown> {
        let callers = Callers::Known(vec![
            credentials("crm", &["old", "new"], &["crm.internal"]),
            credentials("shop", &["other"], &["spiffe://example/shop"]),
        ]);
        let certificate_names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let proof = Proof {
            token,
            certificate_names: &certificate_names,
        };
        callers
            .identify(&proof)
            .map(|caller| caller.name.to_string())
    }

    #[test]
    fn tokens_and_certificates_name_their_callers() {
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
    fn nobody_else_is_a_caller() {
        assert_eq!(identify(None, &[]), Err(Unknown::NoProof));
        assert_eq!(identify(Some(""), &[]), Err(Unknown::Token));
        assert_eq!(
            identify(Some("Old"), &["crm.internal"]),
            Err(Unknown::Token)
        );
        assert_eq!(identify(None, &["crm"]), Err(Unknown::Certificate));
    }
}
