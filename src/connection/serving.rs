//! Takes connections, and serves each until it ends, is too old, or idle for too long.
//! tonic's own server does the same with fewer bounds: none on connections, their idle
//! time or their first bytes, and it cannot take new certificates while it runs.

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use futures_util::future::Either;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::RngExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_rustls::rustls::{self, pki_types::CertificateDer};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, codegen::http};
use tower::{Service, ServiceExt as _, util::Oneshot};

use super::{
    BudgetShare, ClientStream, ConnectionSettings, FailedHandshake, MemoryBudget, PeerIdentity,
    ServerTls, close,
    connection_limit::{ConnectionLimiter, LimitReached},
    in_flight::{GuardedBody, InFlightTracker},
};
use crate::{
    log_targets::{AUDIT, UNAUTHENTICATED},
    system_random::os_rng,
};

/// How long to wait after the system refused a connection, which it does while there
/// are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of refused connections that are closed without a reset at the same
/// time; more of them are reset.
const MAX_REFUSED_LINGERING: usize = 64;
/// How often it is told that connections are refused.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

/// The headers of a request, in all; more are answered with status 431.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// What a client may send of one message before it is read: a whole one, about.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What it may send of all its messages.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of an answer that wait for the client on one stream.
const SEND_BUFFER: usize = 16 * 1024;
/// Requests that a client took back before they were looked at, and those that broke the
/// protocol: with more of them the connection ends (CVE-2023-44487, "rapid reset", and
/// CVE-2025-8671, "made you reset").
const MAX_RESETS: usize = 20;
const MAX_FAULTS: usize = 1_024;

/// Far enough away to be never.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Terms of a connection. It keeps them, except that newer ones verify its client
/// certificate again.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// TLS; without it the connection is plain.
    pub tls: Option<ServerTls>,
    /// The bounds.
    pub bounds: ConnectionSettings,
}

impl ConnectionConfig {
    /// Verifies the certificates of a client that was accepted under earlier terms.
    fn verify(&self, certificates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let unverifiable = Err(rustls::Error::NoCertificatesPresented);
        self.tls
            .as_ref()
            .map_or(unverifiable, |tls| tls.verify(certificates))
    }
}

/// Serves the connections that `listener` takes, each under the newest terms and with a
/// service made for it, until `end`; then takes no more, and completes when what runs is
/// finished.
pub async fn serve<S>(
    listener: TcpListener,
    terms: watch::Receiver<Arc<ConnectionConfig>>,
    budget: MemoryBudget,
    service: impl Fn(&ConnectionConfig) -> S,
    end: CancellationToken,
) where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let connections = TaskTracker::new();
    let crowd = ConnectionLimiter::default();
    let mut refusals = RejectionLog::default();
    let lingering = Arc::new(Semaphore::new(MAX_REFUSED_LINGERING));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "[OTP] Connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut newest = terms.clone();
        let terms = Arc::clone(&newest.borrow_and_update());
        budget.resize(terms.bounds.memory_bytes());
        let place = crowd
            .try_acquire(address.ip(), &terms.bounds)
            .and_then(|place| {
                let memory =
                    budget.reserve(terms.bounds.connection_bytes(), BudgetShare::Connections);
                Ok((place, memory.map_err(|_| LimitReached::Memory)?))
            });
        match place {
            Ok(place) => {
                let service = service(&terms);
                let end = end.clone();
                connections.spawn(async move {
                    serve_connection(stream, address, &terms, newest, service, end).await;
                    drop(place);
                });
            }
            Err(full) => {
                refusals.log_refusal(address, full);
                if let Ok(permit) = Arc::clone(&lingering).try_acquire_owned() {
                    connections.spawn(async move {
                        close(stream).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One connection from its first byte to its last.
async fn serve_connection<S>(
    stream: TcpStream,
    address: SocketAddr,
    terms: &ConnectionConfig,
    newest: watch::Receiver<Arc<ConnectionConfig>>,
    service: S,
    end: CancellationToken,
) where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut peer = PeerIdentity {
        address: Some(address),
        ..PeerIdentity::default()
    };
    let established = establish(stream, address, terms, &mut peer);
    let connection = tokio::select! {
        connection = established => connection,
        () = end.cancelled() => None,
    };
    let Some(mut connection) = connection else {
        return;
    };
    serve_requests(&mut connection, peer, &terms.bounds, newest, service, end).await;
    connection.close().await;
}

/// Serves the requests of a connection until both sides are done, or until it has to be
/// cut off.
async fn serve_requests<S>(
    connection: &mut ClientStream,
    peer: PeerIdentity,
    bounds: &ConnectionSettings,
    mut newest: watch::Receiver<Arc<ConnectionConfig>>,
    service: S,
    end: CancellationToken,
) where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let address = peer.address.map(tracing::field::display);
    let certificates = connection.client_certificates();
    let is_accepted = Arc::new(AtomicBool::new(true));
    let activity = InFlightTracker::default();
    let answer = {
        let (activity, is_accepted) = (activity.clone(), Arc::clone(&is_accepted));
        service_fn(move |request: http::Request<Incoming>| {
            let busy = activity.begin();
            let mut request = request.map(Body::new);
            let mut peer = peer.clone();
            if !is_accepted.load(Ordering::Relaxed) {
                peer.certificate_names = Arc::default();
            }
            request.extensions_mut().insert(peer);
            let answer = call_now(service.clone(), request);
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(GuardedBody::new(response, busy))
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.max_streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_FAULTS)
        .keep_alive_interval(bounds.keepalive_interval)
        .keep_alive_timeout(bounds.keepalive_timeout);
    let allowance = connection.allowance.clone();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(connection), answer));

    let aged_at = Instant::now() + jittered(or_never(bounds.max_age));
    let max_idle = or_never(bounds.max_idle);
    // When it is cut off, once it was asked to end.
    let mut cut_off_at = None;
    loop {
        let next = cut_off_at.unwrap_or_else(|| aged_at.min(activity.idle_since() + max_idle));
        tokio::select! {
            // A request that comes after a reload is not looked at before the certificate.
            biased;
            Ok(()) = newest.changed(), if !certificates.is_empty() => {
                let terms = Arc::clone(&newest.borrow_and_update());
                let Err(cause) = terms.verify(&certificates) else { continue };
                tracing::warn!(target: UNAUTHENTICATED, from = address, %cause, "[OTP AUDIT] Client certificate no longer accepted");
                is_accepted.store(false, Ordering::Relaxed);
                if cut_off_at.is_none() {
                    cut_off_at = Some(Instant::now() + bounds.max_age_grace);
                    connection.as_mut().graceful_shutdown();
                }
            }
            ended = poll_fn(|context| {
                allowance.renew();
                connection.as_mut().poll(context)
            }) => {
                if let Err(error) = ended {
                    tracing::debug!(from = address, %error, "[OTP] Connection failed");
                }
                return;
            }
            // How long that may take is for the server to say.
            () = end.cancelled(), if cut_off_at.is_none() => {
                cut_off_at = Some(Instant::now() + NEVER);
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(next) => {
                if cut_off_at.is_some() {
                    tracing::debug!(from = address, "[OTP] Connection aborted after grace period");
                    return;
                }
                let now = Instant::now();
                let is_old = now >= aged_at;
                if is_old || now >= activity.idle_since() + max_idle {
                    let why = if is_old { "old" } else { "idle" };
                    tracing::debug!(from = address, why, "[OTP] Connection closing");
                    cut_off_at = Some(now + bounds.max_age_grace);
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Calls a service at once, so that it decides on the headers of a request before the
/// connection reads more of them.
fn call_now<S>(
    mut service: S,
    request: http::Request<Body>,
) -> Either<S::Future, Oneshot<S, http::Request<Body>>>
where
    S: Service<http::Request<Body>>,
{
    let mut context = Context::from_waker(Waker::noop());
    if service.poll_ready(&mut context).is_ready() {
        Either::Left(service.call(request))
    } else {
        Either::Right(service.oneshot(request))
    }
}

/// The connection, once its client has said what comes before the first request.
async fn establish(
    stream: TcpStream,
    address: SocketAddr,
    terms: &ConnectionConfig,
    peer: &mut PeerIdentity,
) -> Option<ClientStream> {
    let until = Instant::now() + terms.bounds.handshake_timeout;
    let tls = terms.tls.is_some();
    let patience = terms.bounds.keepalive_timeout;
    let acceptor = terms.tls.as_ref().map(|tls| tls.acceptor.clone());
    let established = ClientStream::establish(stream, acceptor, patience, peer);
    let mut connection = match timeout_at(until, established).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(FailedHandshake { error, stream })) => {
            tracing::warn!(target: UNAUTHENTICATED, from = %address, cause = %error, "[OTP AUDIT] TLS handshake failed");
            close(stream).await;
            return None;
        }
        Err(_) if tls => {
            tracing::warn!(target: UNAUTHENTICATED, from = %address, "[OTP AUDIT] TLS handshake timed out");
            return None;
        }
        Err(_) => return None,
    };
    match timeout_at(until, connection.read_preface()).await {
        Ok(Ok(())) => return Some(connection),
        // A probe that looks only whether somebody listens says nothing, and is no event.
        Ok(Err(_)) => {}
        Err(_) => {
            tracing::debug!(from = %address, "[OTP] Connection closed: no HTTP/2 preface before timeout");
        }
    }
    connection.close().await;
    None
}

fn or_never(duration: Duration) -> Duration {
    if duration.is_zero() { NEVER } else { duration }
}

/// A tenth more or less, so that connections made at once do not end at once.
fn jittered(duration: Duration) -> Duration {
    let factor = os_rng().random_range(0.9..1.1);
    duration.mul_f64(factor)
}

/// Connections that found no place, told so seldom that they cannot flood the log.
#[derive(Debug, Default)]
struct RejectionLog {
    untold: u64,
    told_at: Option<Instant>,
}

impl RejectionLog {
    fn log_refusal(&mut self, address: SocketAddr, full: LimitReached) {
        self.untold += 1;
        if self.told_at.is_some_and(|at| at.elapsed() < REFUSALS_TOLD) {
            return;
        }
        let bound = match full {
            LimitReached::All => "connections.max",
            LimitReached::Address => "connections.max_per_address",
            LimitReached::Site => "connections.max_per_site",
            LimitReached::Memory => "connections.memory_mib",
        };
        tracing::warn!(
            target: AUDIT,
            from = %address,
            bound,
            refused = self.untold,
            "[OTP AUDIT] Connection limit reached"
        );
        self.untold = 0;
        self.told_at = Some(Instant::now());
    }
}
