//! Configuration of connections, which a reload replaces.

use std::sync::Arc;

use tokio_rustls::rustls::{self, pki_types::CertificateDer};

use super::{ConnectionSettings, HttpApiRules, ServerTls};

/// Configuration of a connection. An open connection keeps it, except that a reload verifies
/// the client certificate again.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// TLS; without it connections are plain text.
    pub tls: Option<ServerTls>,
    /// Limits and timeouts.
    pub bounds: ConnectionSettings,
    /// Rules of the HTTP API; without them only HTTP/2 is served.
    pub http_api: Option<Arc<HttpApiRules>>,
}

impl ConnectionConfig {
    /// Verifies the certificates of a client that was accepted with an earlier configuration.
    pub(super) fn verify(&self, certificates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let unverifiable = Err(rustls::Error::NoCertificatesPresented);
        self.tls
            .as_ref()
            .map_or(unverifiable, |tls| tls.verify(certificates))
    }
}
