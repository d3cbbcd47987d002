//! TLS of connections to PostgreSQL, set by the parameters of libpq.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::super::StoreError;

/// Value of `sslrootcert` that means the machine's authorities.
const SYSTEM: &str = "system";

/// Values of the TLS parameters, by their names in libpq.
#[derive(Debug, Default)]
pub(super) struct TlsParameters {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    sslcert: Option<String>,
    sslkey: Option<String>,
    channel_binding: Option<String>,
    /// Parameter of Java's driver. libpq accepts only `ssl=true`.
    ssl: Option<String>,
}

impl TlsParameters {
    /// Sets a parameter. The last value counts, and an empty one unsets it.
    pub fn set(&mut self, name: &str, value: String) {
        let field = match name {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "sslcert" => &mut self.sslcert,
            "sslkey" => &mut self.sslkey,
            "channel_binding" => &mut self.channel_binding,
            _ => &mut self.ssl,
        };
        *field = Some(value).filter(|value| !value.is_empty());
    }
}

/// TLS of the connections to one database.
#[derive(Clone, Debug)]
pub(super) struct DatabaseTls {
    mode: PgSslMode,
    roots: TrustAnchors,
    /// Files of otpd's own certificate and key.
    client: Option<(PathBuf, PathBuf)>,
}

/// Authorities that verify the server's certificate. sqlx is built without any authorities
/// (`crates/webpki-roots`), so it trusts only these.
#[derive(Clone, Debug)]
enum TrustAnchors {
    /// No authorities: the certificate is not checked.
    Unchecked,
    /// Authorities of the machine, as PEM.
    System(String),
    /// Authorities in a file, which sqlx reads for each connection.
    File(PathBuf),
}

impl DatabaseTls {
    /// Resolves the parameters as libpq does, but refuses those that would have no effect. A
    /// parameter that the URL does not set is read from its environment variable.
    ///
    /// # Errors
    /// [`StoreError::Url`] with the parameter at fault, and the file that it names.
    pub fn resolve(
        parameters: &TlsParameters,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let value = |given: &Option<String>, name| {
            let from_environment = || variable(name).filter(|value| !value.is_empty());
            given.clone().or_else(from_environment)
        };
        let root = value(&parameters.sslrootcert, "PGSSLROOTCERT");
        let mode = match (value(&parameters.sslmode, "PGSSLMODE"), &parameters.ssl) {
            (Some(mode), _) => parse_mode(&mode)?,
            (None, Some(ssl)) if ssl == "true" => PgSslMode::Require,
            (None, Some(_)) => return refuse("ssl: give sslmode instead"),
            (None, None) if root.as_deref() == Some(SYSTEM) => PgSslMode::VerifyFull,
            (None, None) => PgSslMode::Prefer,
        };
        let mode = match value(&parameters.channel_binding, "PGCHANNELBINDING").as_deref() {
            None | Some("disable" | "prefer") => mode,
            // otpd does not bind. The certificate authenticates the server instead.
            Some("require") if !matches!(mode, PgSslMode::Disable) => PgSslMode::VerifyFull,
            Some("require") => {
                return refuse("channel_binding=require: needs TLS; give sslmode=verify-full");
            }
            Some(_) => return refuse("channel_binding: give disable, prefer or require"),
        };
        let (mode, roots) = match (mode, root.as_deref()) {
            (PgSslMode::VerifyFull, None | Some(SYSTEM)) => {
                (mode, TrustAnchors::System(system_roots()?))
            }
            (_, Some(SYSTEM)) => {
                return refuse(
                    "sslrootcert=system: these authorities issue certificates for any name, so the server's name must be checked as well; give sslmode=verify-full",
                );
            }
            (PgSslMode::VerifyFull | PgSslMode::VerifyCa, Some(file)) => (
                mode,
                TrustAnchors::File(certificate_file("sslrootcert", file)?),
            ),
            (PgSslMode::Require, Some(file)) => (
                PgSslMode::VerifyCa,
                TrustAnchors::File(certificate_file("sslrootcert", file)?),
            ),
            (PgSslMode::VerifyCa, None) => {
                return refuse(
                    "sslmode=verify-ca: needs the certificate of the authority; give sslrootcert=FILE, or sslmode=verify-full",
                );
            }
            (_, Some(_)) => {
                return refuse(
                    "sslrootcert: has no effect with this sslmode; give sslmode=verify-full",
                );
            }
            (_, None) => (mode, TrustAnchors::Unchecked),
        };
        let (certificate, key) = (
            value(&parameters.sslcert, "PGSSLCERT"),
            value(&parameters.sslkey, "PGSSLKEY"),
        );
        let client = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(client_identity(&certificate, &key)?),
            _ => return refuse("sslcert and sslkey: give both, or neither"),
        };
        Ok(Self {
            mode,
            roots,
            client,
        })
    }

    /// Returns the same options with this TLS.
    pub fn apply(&self, options: PgConnectOptions) -> PgConnectOptions {
        let options = options.ssl_mode(self.mode);
        let options = match &self.roots {
            TrustAnchors::Unchecked => options,
            TrustAnchors::System(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
            TrustAnchors::File(path) => options.ssl_root_cert(path),
        };
        match &self.client {
            None => options,
            Some((certificate, key)) => options.ssl_client_cert(certificate).ssl_client_key(key),
        }
    }

    /// Returns whether the server's name must match its certificate.
    pub fn checks_name(&self) -> bool {
        matches!(self.mode, PgSslMode::VerifyFull)
    }

    /// Returns the first file that cannot be read now, with the cause.
    pub fn unreadable(&self) -> Option<String> {
        let root = match &self.roots {
            TrustAnchors::File(path) => Some(("sslrootcert", path)),
            TrustAnchors::Unchecked | TrustAnchors::System(_) => None,
        };
        let client = self.client.iter();
        let client =
            client.flat_map(|(certificate, key)| [("sslcert", certificate), ("sslkey", key)]);
        root.into_iter().chain(client).find_map(|(name, path)| {
            let error = fs::read(path).err()?;
            Some(format!("{name}: {}: {error}", path.display()))
        })
    }
}

/// Returns the cause if a connection failed because of TLS.
pub(super) fn handshake_problem(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::Io(cause) = error else {
        return None;
    };
    let problem = cause
        .get_ref()?
        .downcast_ref::<rustls::Error>()?
        .to_string();
    Some(if problem.contains("UnsupportedCertVersion") {
        "the server's certificate is of X.509 version 1, which otpd cannot use; \
         give the server a certificate of version 3 (one with a subjectAltName), \
         or connect without TLS by sslmode=disable"
            .to_owned()
    } else {
        problem
    })
}

fn parse_mode(name: &str) -> Result<PgSslMode, StoreError> {
    match name.to_ascii_lowercase().as_str() {
        "disable" => Ok(PgSslMode::Disable),
        "prefer" => Ok(PgSslMode::Prefer),
        "require" => Ok(PgSslMode::Require),
        "verify-ca" => Ok(PgSslMode::VerifyCa),
        "verify-full" => Ok(PgSslMode::VerifyFull),
        "allow" => refuse("sslmode=allow: not supported; give disable, prefer or verify-full"),
        _ => refuse("sslmode: give disable, prefer, require, verify-ca or verify-full"),
    }
}

/// Returns the machine's authorities as PEM. Unusable ones are left out, because a single one would
/// make sqlx refuse all of them.
fn system_roots() -> Result<String, StoreError> {
    let usable =
        |certificate: &CertificateDer<'_>| RootCertStore::empty().add(certificate.clone()).is_ok();
    let found = rustls_native_certs::load_native_certs().certs;
    let pem: String = found
        .iter()
        .filter(|certificate| usable(certificate))
        .map(pem_of)
        .collect();
    if pem.is_empty() {
        return refuse(
            "sslmode=verify-full: this machine has no certificate authorities; install them (on Debian: ca-certificates), or give sslrootcert=FILE",
        );
    }
    Ok(pem)
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// Returns the files of otpd's certificate and key after reading both.
fn client_identity(certificate: &str, key: &str) -> Result<(PathBuf, PathBuf), StoreError> {
    let certificate = certificate_file("sslcert", certificate)?;
    let path = Path::new(key);
    let fault = |problem: String| StoreError::Url(format!("sslkey: {key}: {problem}"));
    let text = fs::read(path).map_err(|error| fault(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| fault("holds no private key in PEM without a password".to_owned()))?;
    Ok((certificate, path.to_owned()))
}

/// Returns the path of a file that holds certificates, and no invalid one.
fn certificate_file(name: &str, file: &str) -> Result<PathBuf, StoreError> {
    let fault = |problem: String| StoreError::Url(format!("{name}: {file}: {problem}"));
    let text = fs::read(file).map_err(|error| fault(error.to_string()))?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        certificate.map_err(|error| fault(error.to_string()))?;
        found += 1;
    }
    if found == 0 {
        return Err(fault("holds no certificate in PEM".to_owned()));
    }
    Ok(PathBuf::from(file))
}

fn refuse<T>(problem: &str) -> Result<T, StoreError> {
    Err(StoreError::Url(problem.to_owned()))
}
