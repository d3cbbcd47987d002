//! Connections as the server takes them: plain or TLS, with what the client's
//! certificate says, under bounds that no client can break.

mod connection_limit;
mod in_flight;
mod lingering_close;
mod memory_budget;
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

pub use lingering_close::close;
pub use memory_budget::{BudgetShare, MemoryBudget, MemoryReservation};
pub use revocation::report_outdated;
pub use serving::{ConnectionConfig, serve};
pub use settings::ConnectionSettings;
pub use tls::{ServerTls, TlsError, TlsSettings};

/// What a client says first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// Bytes that a connection reads before it hands over the requests in them. Headers take
/// up to a hundred times as much in memory as on the way.
const READ_BURST: usize = 32 * 1024;

/// Who is at the other end of a connection; part of each request on it.
#[derive(Clone, Debug, Default)]
pub struct PeerIdentity {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// The names in its certificate, which has been verified: DNS names and URIs.
    pub certificate_names: Arc<[CertificateName]>,
}

/// A connection, ready for HTTP/2.
#[derive(Debug)]
struct ClientStream {
    stream: StreamTransport,
    /// How long a client may take none of what it is sent.
    patience: Duration,
    /// When that is over; there only while it takes nothing.
    given_up: Option<Pin<Box<Sleep>>>,
    /// What was read to see whether the client speaks at all.
    preface: Vec<u8>,
    allowance: ReadAllowance,
}

/// Number of bytes that a connection may still read before it has to hand its requests
/// over: those that it has read are decided on before there are more of them.
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

/// A TLS handshake that failed, with its socket, on which the alert has been sent.
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
    /// Takes what a client has to say before its first request, however slowly it does.
    async fn establish(
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
        patience: Duration,
        peer: &mut PeerIdentity,
    ) -> Result<Self, FailedHandshake> {
        // A reply is one small packet; it must not wait for another one to join it.
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
                let own = certificates.and_then(<[_]>::first);
                peer.certificate_names = own.map(tls::names).unwrap_or_default().into();
                StreamTransport::Tls(Box::new(stream))
            }
        };
        Ok(Self {
            stream,
            patience,
            given_up: None,
            preface: Vec::new(),
            allowance: ReadAllowance::default(),
        })
    }

    /// What came of writing, or the end of all patience. HTTP/2 itself cannot tell: its
    /// own signs of life wait behind what the client does not take.
    fn enforce_write_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.given_up = None;
            return written;
        }
        let patience = self.patience;
        let given_up = self
            .given_up
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        std::task::ready!(given_up.as_mut().poll(context));
        let problem = "the client takes nothing of what it is sent";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }

    /// Waits until the client has begun to speak HTTP/2, or something else.
    async fn read_preface(&mut self) -> io::Result<()> {
        let mut preface = vec![0; PREFACE_BYTES];
        self.read_exact(&mut preface).await?;
        self.preface = preface;
        Ok(())
    }
}

impl ClientStream {
    /// Certificates that the client has shown, its own first; none without TLS.
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
        self.allowance.spend(buffer.filled().len() - before);
        read
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
