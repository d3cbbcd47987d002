//! Connections as the server takes them: plain or TLS, with what the client's
//! certificate says. tonic's own TLS knows no revocation lists, and tells nobody why
//! it turned a client away.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::WebPkiClientVerifier,
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// The target of the lines for auditors, by which the log knows them.
const AUDIT: &str = "otpd_audit";

/// How long a client may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait for the server to take them.
const BACKLOG: usize = 128;
/// How long to wait after the system refused a connection, which it does while there
/// are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("client_ca", authorities)? {
                    roots.add(authority).map_err(failed("client_ca"))?;
                }
                let mut lists = Vec::new();
                if let Some(path) = &self.client_crl {
                    let found = CertificateRevocationListDer::pem_file_iter(path)
                        .and_then(Iterator::collect::<Result<Vec<_>, pem::Error>>);
                    lists = found.map_err(failed("client_crl"))?;
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
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(failed("key"))?;
        let mut config = builder
            .with_single_cert(certificates("certificate", &self.certificate)?, key)
            .map_err(failed("key"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(
    key: &'static str,
    path: &PathBuf,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, pem::Error>>)
        .map_err(failed(key))?;
    if found.is_empty() {
        return Err(failed(key)("holds no certificate"));
    }
    Ok(found)
}

fn failed<Problem: ToString>(key: &'static str) -> impl FnOnce(Problem) -> TlsError {
    move |problem| TlsError {
        key,
        problem: problem.to_string(),
    }
}

/// Who is at the other end of a connection; part of each request on it.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// The names in its certificate, which has been verified: DNS names and URIs.
    pub certificate_names: Arc<[String]>,
}

/// A connection, ready for HTTP/2.
#[derive(Debug)]
pub struct Connection {
    stream: Transport,
    peer: Peer,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connections that `listener` takes, after the handshake of `acceptor` if there is
/// one. A slow handshake keeps nobody else waiting.
pub fn incoming(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
) -> impl Stream<Item = io::Result<Connection>> {
    let (sender, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (acceptor, sender) = (acceptor.clone(), sender.clone());
                    tokio::spawn(async move {
                        if let Some(connection) = establish(stream, address, acceptor).await {
                            // Fails only when the server has stopped taking connections.
                            let _ = sender.send(Ok(connection)).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "[OTP] A connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

async fn establish(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
) -> Option<Connection> {
    // A reply is one small packet; it must not wait for another one to join it.
    let _ = stream.set_nodelay(true);
    let mut peer = Peer {
        address: Some(address),
        ..Peer::default()
    };
    let Some(acceptor) = acceptor else {
        return Some(Connection {
            stream: Transport::Plain(stream),
            peer,
        });
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let own = certificates.and_then(<[_]>::first);
            peer.certificate_names = own.map(names).unwrap_or_default().into();
            Some(Connection {
                stream: Transport::Tls(Box::new(stream)),
                peer,
            })
        }
        Ok(Err(cause)) => {
            tracing::warn!(target: AUDIT, from = %address, %cause, "[OTP AUDIT] TLS handshake refused");
            None
        }
        Err(_) => {
            tracing::warn!(target: AUDIT, from = %address, "[OTP AUDIT] TLS handshake took too long");
            None
        }
    }
}

/// The DNS names and URIs among the subject alternative names of a certificate.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
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

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
