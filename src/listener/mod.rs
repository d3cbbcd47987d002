//! Server side of connections: plain or TLS, with the names of the client certificate, within
//! bounds that no client can exceed.

mod body_state;
mod connection_config;
mod connection_limit;
mod head_timeout;
mod http_api;
mod in_flight;
mod lingering_close;
mod memory_budget;
mod requests;
mod revocation;
mod serving;
mod settings;
mod tls;

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_rustls::{TlsAcceptor, rustls::pki_types::CertificateDer, server::TlsStream};

use crate::auth::CertificateName;
use head_timeout::HeadTimeout;

pub use connection_config::ConnectionConfig;
pub use http_api::{HttpApiRules, HttpApiSettings, target_host};
pub use lingering_close::close;
pub use memory_budget::{BudgetShare, MemoryBudget, MemoryReservation};
pub use revocation::report_outdated;
pub use serving::serve;
pub use settings::ConnectionSettings;
pub use tls::{ServerTls, TlsError, TlsSettings};

/// Connection preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Maximum number of bytes that a connection reads before it passes on the requests in them.
/// Headers take up to a hundred times as much memory as on the wire.
const READ_BURST: usize = 32 * 1024;

/// Identity of the peer of a connection; attached to each request on it.
#[derive(Clone, Debug, Default)]
pub struct PeerIdentity {
    /// Address of the peer.
    pub address: Option<SocketAddr>,
    /// Names in its verified certificate: DNS names and URIs.
    pub certificate_names: Arc<[CertificateName]>,
}

/// Version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpVersion {
    Http1,
    Http2,
}

/// Connection whose client has sent its first bytes.
#[derive(Debug)]
struct ClientStream {
    stream: StreamTransport,
    /// Maximum time in which the client accepts no bytes.
    write_timeout: Duration,
    /// Timer of the write timeout; runs only while the client accepts no bytes.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// First bytes, which were read to find the version of HTTP.
    preface: Vec<u8>,
    allowance: ReadAllowance,
    /// Timeout of the headers of HTTP/1.1; HTTP/2 has its keepalive instead.
    head_timeout: Option<HeadTimeout>,
}

/// Number of bytes that a connection may still read before it must pass on its requests, so
/// that the requests it has read are decided on before it reads more.
#[derive(Clone, Debug)]
struct ReadAllowance(Arc<AtomicUsize>);

impl Default for ReadAllowance {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(READ_BURST)))
    }
}

impl ReadAllowance {
    fn renew(&self) {
        self.0.store(READ_BURST, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn spend(&self, bytes: usize) {
        self.0
            .store(self.left().saturating_sub(bytes), Ordering::Relaxed);
    }
}

/// Failed TLS handshake, with its socket, on which the alert has been sent.
#[derive(Debug)]
struct FailedHandshake {
    error: io::Error,
    stream: TcpStream,
}

#[derive(Debug)]
enum StreamTransport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientStream {
    /// Completes the TLS handshake, if there is one. Has no timeout.
    async fn establish(
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
        write_timeout: Duration,
        peer: &mut PeerIdentity,
    ) -> Result<Self, FailedHandshake> {
        // A reply is one small packet; Nagle's algorithm would delay it.
        let _ = stream.set_nodelay(true);
        let stream = match acceptor {
            None => StreamTransport::Plain(stream),
            Some(acceptor) => {
                let accepted = acceptor.accept(stream).into_fallible().await;
                let stream = match accepted {
                    Ok(stream) => stream,
                    Err((error, stream)) => {
                        return Err(FailedHandshake { error, stream });
                    }
                };
                let certificates = stream.get_ref().1.peer_certificates();
                let leaf = certificates.and_then(<[_]>::first);
                peer.certificate_names = leaf.map(tls::names).unwrap_or_default().into();
                StreamTransport::Tls(Box::new(stream))
            }
        };
        Ok(Self {
            stream,
            write_timeout,
            write_timer: None,
            preface: Vec::new(),
            allowance: ReadAllowance::default(),
            head_timeout: None,
        })
    }

    /// Returns the result of a write, or an error after the write timeout. The keepalive of
    /// HTTP/2 cannot detect the stall, because its pings wait behind the blocked bytes.
    fn enforce_write_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        std::task::ready!(timer.as_mut().poll(context));
        let problem = "the client accepts no bytes";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }

    /// Reads as many bytes as the preface of HTTP/2 has, whatever they are. If `http1` is
    /// served, other bytes than those of the preface are the start of a request of HTTP/1.1.
    async fn read_preface(&mut self, http1: bool) -> io::Result<HttpVersion> {
        let mut preface = vec![0; PREFACE.len()];
        let mut length = 0;
        while length < preface.len() {
            match self.read(&mut preface[length..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => length += read,
            }
            if http1 && preface[..length] != PREFACE[..length] {
                preface.truncate(length);
                self.preface = preface;
                return Ok(HttpVersion::Http1);
            }
        }
        self.preface = preface;
        Ok(HttpVersion::Http2)
    }
}

impl ClientStream {
    /// Returns the certificates of the client, the leaf first; none without TLS.
    fn client_certificates(&self) -> Vec<CertificateDer<'static>> {
        match &self.stream {
            StreamTransport::Plain(_) => Vec::new(),
            StreamTransport::Tls(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                certificates.map(<[_]>::to_vec).unwrap_or_default()
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            let length = self.preface.len().min(buffer.remaining());
            buffer.put_slice(&self.preface[..length]);
            self.preface.drain(..length);
            if let Some(timeout) = &mut self.head_timeout {
                timeout.started();
            }
            return Poll::Ready(Ok(()));
        }
        if self.allowance.left() == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            StreamTransport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            StreamTransport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let length = buffer.filled().len() - before;
        self.allowance.spend(length);
        match &mut self.head_timeout {
            Some(timeout) => timeout.enforce(context, read, length),
            None => read,
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            StreamTransport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            StreamTransport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.enforce_write_timeout(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = match &mut self.stream {
            StreamTransport::Plain(stream) => Pin::new(stream).poll_flush(context),
            StreamTransport::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        self.enforce_write_timeout(context, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            StreamTransport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            StreamTransport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            StreamTransport::Plain(stream) => {
                Pin::new(stream).poll_write_vectored(context, buffers)
            }
            StreamTransport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        };
        self.enforce_write_timeout(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            StreamTransport::Plain(stream) => stream.is_write_vectored(),
            StreamTransport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
