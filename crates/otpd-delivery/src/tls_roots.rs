//! Certificate authorities that providers are verified against.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use otpd_base::{files, tables::ConfigKeyError};

/// Reads the certificates in a PEM file.
///
/// # Errors
/// [`ConfigKeyError`] for `ca` if there are none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigKeyError> {
    let fault =
        |problem: String| ConfigKeyError::new("ca", format!("{}: {problem}", path.display()));
    let text = files::read(path).map_err(|error| fault(error.to_string()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(error.to_string()))?;
    if found.is_empty() {
        return Err(fault("contains no certificate".to_owned()));
    }
    Ok(found)
}

/// Returns a TLS configuration that trusts the machine's authorities, and those in the
/// file `ca`.
///
/// # Errors
/// [`ConfigKeyError`] for `ca` if the file cannot be used, or if there is no authority at
/// all.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, ConfigKeyError> {
    let mut roots = RootCertStore::empty();
    // Unreadable certificates are left out: one odd file among the machine's certificates
    // must not stop all delivery.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in ca.map(certificates).transpose()?.unwrap_or_default() {
        roots
            .add(certificate)
            .map_err(|error| ConfigKeyError::new("ca", error))?;
    }
    if roots.is_empty() {
        return Err(ConfigKeyError::new(
            "ca",
            "this machine has no certificate authorities; install them (on Debian: ca-certificates), or name a file of them here",
        ));
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigKeyError::new("ca", error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
