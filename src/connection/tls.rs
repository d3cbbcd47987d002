//! TLS as the server speaks it. tonic's own knows no revocation lists, and tells nobody
//! why it turned a client away.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};
use zeroize::Zeroizing;

use crate::files;

/// The `[tls]` table of the configuration; every value names a PEM file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The server's certificate, with those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates; without any, none is asked for.
    pub client_ca: Option<PathBuf>,
    /// The revocation lists of these authorities.
    pub client_crl: Option<PathBuf>,
}

/// The TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("tls.{key}: {problem}")]
pub struct TlsError {
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl TlsSettings {
    /// Reads the files.
    ///
    /// # Errors
    /// The key whose file cannot be used.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(failed("certificate"))?;
        let builder = match &self.client_ca {
            None if self.client_crl.is_some() => {
                let problem = "needs tls.client_ca, the authority whose list it is";
                return Err(failed("client_crl")(problem));
            }
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("client_ca", authorities)? {
                    roots.add(authority).map_err(failed("client_ca"))?;
                }
                let mut lists = Vec::new();
                if let Some(path) = &self.client_crl {
                    let text = read("client_crl", path)?;
                    lists = CertificateRevocationListDer::pem_slice_iter(&text)
                        .collect::<Result<_, _>>()
                        .map_err(failed("client_crl"))?;
                    if lists.is_empty() {
                        return Err(failed("client_crl")("holds no revocation list in PEM"));
                    }
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .with_crls(lists)
                    .only_check_end_entity_revocation()
                    // Probes have no certificate. Who makes a call needs a proof all the
                    // same, and one that has a bad certificate does not get this far.
                    .allow_unauthenticated()
                    .build()
                    .map_err(failed("client_crl"))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = Zeroizing::new(read("key", &self.key)?);
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(failed("key"))?;
        let mut config = builder
            .with_single_cert(certificates("certificate", &self.certificate)?, key)
            .map_err(failed("key"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    files::read(path).map_err(|error| TlsError {
        key,
        problem: format!("cannot read {}: {error}", path.display()),
    })
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(key, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(failed(key))?;
    if found.is_empty() {
        return Err(failed(key)("holds no certificate in PEM"));
    }
    Ok(found)
}

fn failed<Problem: ToString>(key: &'static str) -> impl FnOnce(Problem) -> TlsError {
    move |problem| TlsError {
        key,
        problem: problem.to_string(),
    }
}

/// The DNS names and URIs among the subject alternative names of a certificate.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_list_that_would_revoke_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = file("certificate", &own.cert.pem());
        let settings = TlsSettings {
            certificate: certificate.clone(),
            key: file("key", &own.signing_key.serialize_pem()),
            client_ca: Some(certificate),
            client_crl: Some(file("list", "no list at all")),
        };
        let fault = |settings: &TlsSettings| settings.acceptor().err().map(|error| error.key);
        assert_eq!(fault(&settings), Some("client_crl"));
        let of_nobody = TlsSettings {
            client_ca: None,
            ..settings.clone()
        };
        assert_eq!(fault(&of_nobody), Some("client_crl"));
        let without = TlsSettings {
            client_crl: None,
            ..settings
        };
        assert_eq!(fault(&without), None);
    }
}
