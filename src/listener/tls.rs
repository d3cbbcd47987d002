//! TLS of the server. The TLS of tonic supports no revocation lists, and does not report why
//! it refused a client.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject as _,
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};
use zeroize::Zeroizing;

use super::revocation::RevocationList;
use crate::auth::CertificateName;
use otpd_base::files;

/// Table `[tls]` of the configuration; every value names a PEM file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Server certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// Private key of the server certificate.
    pub key: PathBuf,
    /// Authorities of client certificates; unset: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these authorities.
    pub client_crl: Option<PathBuf>,
}

/// Certificates, keys and revocation lists, loaded from the files of [`TlsSettings`].
#[derive(Clone)]
pub struct ServerTls {
    /// Accepts new connections.
    pub(super) acceptor: TlsAcceptor,
    /// Verifies client certificates; none if clients are not asked for one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Revocation lists of the authorities of client certificates.
    pub(super) lists: Vec<RevocationList>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("ServerTls");
        shown.field("lists", &self.lists).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Verifies the certificates of a client, the leaf first.
    ///
    /// # Errors
    /// The reason why the client certificate is not accepted.
    pub(super) fn verify(&self, certificates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (Some(verifier), Some((leaf, intermediates))) =
            (&self.verifier, certificates.split_first())
        else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map(|_| ())
    }

    /// Returns descriptions of the revocation lists whose next update is overdue.
    pub fn outdated_lists(&self) -> Vec<String> {
        let now = UnixTime::now().as_secs();
        let outdated = self.lists.iter().filter(|list| list.is_outdated(now));
        outdated.map(ToString::to_string).collect()
    }
}

/// Invalid TLS settings.
#[derive(Debug, thiserror::Error)]
#[error("tls.{key}: {problem}")]
pub struct TlsError {
    /// Invalid key.
    pub key: &'static str,
    /// Problem with its value.
    pub problem: String,
}

impl TlsSettings {
    /// Loads the files, for connections of HTTP/2 and, with `http1`, of HTTP/1.1.
    ///
    /// # Errors
    /// The key of the first file that cannot be used.
    pub fn read(&self, http1: bool) -> Result<ServerTls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(failed("certificate"))?;
        let mut verifier = None;
        let mut parsed_lists = Vec::new();
        let builder = match &self.client_ca {
            None if self.client_crl.is_some() => {
                let problem = "needs tls.client_ca; set it to the authority of this list";
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
                parsed_lists = lists
                    .iter()
                    .map(|list| RevocationList::parse(list))
                    .collect::<Result<_, _>>()
                    .map_err(failed("client_crl"))?;
                let built = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .with_crls(lists)
                    .only_check_end_entity_revocation()
                    // Probes have no certificate. A call still needs credentials, and a client
                    // with an invalid certificate fails the handshake.
                    .allow_unauthenticated()
                    .build()
                    .map_err(failed("client_crl"))?;
                verifier = Some(Arc::clone(&built));
                builder.with_client_cert_verifier(built)
            }
        };
        let key = Zeroizing::new(read("key", &self.key)?);
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(failed("key"))?;
        let mut config = builder
            .with_single_cert(certificates("certificate", &self.certificate)?, key)
            .map_err(failed("key"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        if http1 {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Ok(ServerTls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            verifier,
            lists: parsed_lists,
        })
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

/// Returns the DNS names and URIs among the subject alternative names of a certificate.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<CertificateName> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(name) => Some(CertificateName::dns(name)),
        GeneralName::URI(name) => Some(CertificateName::Uri((*name).to_owned())),
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
    fn ineffective_revocation_list_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let server = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = file("certificate", &server.cert.pem());
        let settings = TlsSettings {
            certificate: certificate.clone(),
            key: file("key", &server.signing_key.serialize_pem()),
            client_ca: Some(certificate),
            client_crl: Some(file("list", "no list at all")),
        };
        let fault = |settings: &TlsSettings| settings.read(false).err().map(|error| error.key);
        assert_eq!(fault(&settings), Some("client_crl"));
        let without_ca = TlsSettings {
            client_ca: None,
            ..settings.clone()
        };
        assert_eq!(fault(&without_ca), Some("client_crl"));
        let without = TlsSettings {
            client_crl: None,
            ..settings
        };
        assert_eq!(fault(&without), None);
    }
}
