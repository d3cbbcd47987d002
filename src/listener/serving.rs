//! Accepts connections, and serves each until it ends or exceeds its maximum age or idle time.
//!
//! The server of tonic 0.14 (`transport::Server::serve_with_incoming`) lacks the following, with
//! the place in its `src/transport/server/mod.rs`:
//! - An end of one connection: `serve_connection` owns the connection in a task of its own, and
//!   only the shutdown of the whole server reaches it. Idle connections, and those of a revoked
//!   certificate, need a graceful end of their own.
//! - A graceful end by age: with `max_connection_age_grace`, `connection_timeout_future` sends no
//!   GOAWAY at the age and aborts the connection after the grace period. The age has no jitter.
//! - A hook before each poll of the connection, which renews the read allowance here.
//! - `max_send_buf_size`: `serve_internal` leaves hyper's 400 KiB for each stream, so the memory
//!   budget would not hold.
//! - A call of the service before the connection reads on: `TowerToHyperService::call` of
//!   hyper-util only makes a future, which calls the service in a task of its own.
//! - The stream at the end: `serve_connection` drops it, so a lingering close would need a task
//!   that the shutdown does not await.

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
use crate::system_random::os_rng;
use otpd_base::log_targets::{AUDIT, UNAUTHENTICATED};

/// Delay after a failed `accept`, which fails while the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of refused connections that are closed without a reset at the same
/// time; more of them are reset.
const MAX_REFUSED_LINGERING: usize = 64;
/// Minimum interval between log lines about refused connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum total size of the headers of a request; larger ones are answered with status 431.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Flow-control window of a stream: about one whole message.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Maximum number of bytes of a response that are buffered on one stream.
const SEND_BUFFER: usize = 16 * 1024;
/// Maximum numbers of streams that a client resets before they are processed
/// (CVE-2023-44487, "rapid reset"), and of streams that are reset because of its protocol
/// errors (CVE-2025-8671, "made you reset"). With more of them the connection ends.
const MAX_RESETS: usize = 20;
const MAX_FAULTS: usize = 1_024;

/// Duration that stands for no limit.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Configuration of a connection. An open connection keeps it, except that a reload verifies
/// the client certificate again.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// TLS; without it connections are plain text.
    pub tls: Option<ServerTls>,
    /// Limits and timeouts.
    pub bounds: ConnectionSettings,
}

impl ConnectionConfig {
    /// Verifies the certificates of a client that was accepted with an earlier configuration.
    fn verify(&self, certificates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let unverifiable = Err(rustls::Error::NoCertificatesPresented);
        self.tls
            .as_ref()
            .map_or(unverifiable, |tls| tls.verify(certificates))
    }
}

/// Serves the connections of `listener`, each with the newest configuration and with its own
/// instance of the service. After `end`, accepts no more, and completes when all connections
/// have ended.
pub async fn serve<S>(
    listener: TcpListener,
    config: watch::Receiver<Arc<ConnectionConfig>>,
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
    let limiter = ConnectionLimiter::default();
    let mut refusals = RefusalLog::default();
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
        let mut newest = config.clone();
        let config = Arc::clone(&newest.borrow_and_update());
        budget.resize(config.bounds.memory_bytes());
        let permit = limiter
            .try_acquire(address.ip(), &config.bounds)
            .and_then(|permit| {
                let memory =
                    budget.reserve(config.bounds.connection_bytes(), BudgetShare::Connections);
                Ok((permit, memory.map_err(|_| LimitReached::Memory)?))
            });
        match permit {
            Ok(permit) => {
                let service = service(&config);
                let end = end.clone();
                connections.spawn(async move {
                    serve_connection(stream, address, &config, newest, service, end).await;
                    drop(permit);
                });
            }
            Err(limit) => {
                refusals.log_refusal(address, limit);
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

/// Serves one connection from its first byte to its last.
async fn serve_connection<S>(
    stream: TcpStream,
    address: SocketAddr,
    config: &ConnectionConfig,
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
    let established = establish(stream, address, config, &mut peer);
    let connection = tokio::select! {
        connection = established => connection,
        () = end.cancelled() => None,
    };
    let Some(mut connection) = connection else {
        return;
    };
    serve_requests(&mut connection, peer, &config.bounds, newest, service, end).await;
    connection.close().await;
}

/// Serves the requests of a connection until both sides are done, or until it must be
/// aborted.
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
            let guard = activity.begin();
            let mut request = request.map(Body::new);
            let mut peer = peer.clone();
            if !is_accepted.load(Ordering::Relaxed) {
                peer.certificate_names = Arc::default();
            }
            request.extensions_mut().insert(peer);
            let answer = call_now(service.clone(), request);
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(GuardedBody::new(response, guard))
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
    // Time at which the connection is aborted, set once a graceful shutdown has begun.
    let mut abort_at = None;
    loop {
        let next = abort_at.unwrap_or_else(|| aged_at.min(activity.idle_since() + max_idle));
        tokio::select! {
            // After a reload, the certificate is verified before the next request is processed.
            biased;
            Ok(()) = newest.changed(), if !certificates.is_empty() => {
                let config = Arc::clone(&newest.borrow_and_update());
                let Err(cause) = config.verify(&certificates) else { continue };
                tracing::warn!(target: UNAUTHENTICATED, from = address, %cause, "[OTP AUDIT] Client certificate no longer accepted");
                is_accepted.store(false, Ordering::Relaxed);
                if abort_at.is_none() {
                    abort_at = Some(Instant::now() + bounds.max_age_grace);
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
            // The server itself limits the time of this shutdown.
            () = end.cancelled(), if abort_at.is_none() => {
                abort_at = Some(Instant::now() + NEVER);
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(next) => {
                if abort_at.is_some() {
                    tracing::debug!(from = address, "[OTP] Connection aborted after grace period");
                    return;
                }
                let now = Instant::now();
                let is_old = now >= aged_at;
                if is_old || now >= activity.idle_since() + max_idle {
                    let reason = if is_old { "max_age" } else { "idle" };
                    tracing::debug!(from = address, reason, "[OTP] Connection closing");
                    abort_at = Some(now + bounds.max_age_grace);
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Calls a service immediately, so that it decides on the headers of a request before the
/// connection reads the next request.
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

/// Returns the connection after its TLS handshake and its preface; none if the client sends
/// neither in time.
async fn establish(
    stream: TcpStream,
    address: SocketAddr,
    config: &ConnectionConfig,
    peer: &mut PeerIdentity,
) -> Option<ClientStream> {
    let until = Instant::now() + config.bounds.handshake_timeout;
    let tls = config.tls.is_some();
    let write_timeout = config.bounds.keepalive_timeout;
    let acceptor = config.tls.as_ref().map(|tls| tls.acceptor.clone());
    let established = ClientStream::establish(stream, acceptor, write_timeout, peer);
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
        // A probe that only checks whether the port is open sends nothing; it is not an event.
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

/// Adds a jitter of a tenth, so that connections opened together do not end together.
fn jittered(duration: Duration) -> Duration {
    let factor = os_rng().random_range(0.9..1.1);
    duration.mul_f64(factor)
}

/// Rate-limited log of refused connections, so that they cannot flood the log.
#[derive(Debug, Default)]
struct RefusalLog {
    unreported: u64,
    reported_at: Option<Instant>,
}

impl RefusalLog {
    fn log_refusal(&mut self, address: SocketAddr, limit: LimitReached) {
        self.unreported += 1;
        if self
            .reported_at
            .is_some_and(|at| at.elapsed() < REFUSAL_LOG_INTERVAL)
        {
            return;
        }
        let bound = match limit {
            LimitReached::All => "connections.max",
            LimitReached::Address => "connections.max_per_address",
            LimitReached::Site => "connections.max_per_site",
            LimitReached::Memory => "connections.memory_mib",
        };
        tracing::warn!(
            target: AUDIT,
            from = %address,
            bound,
            refused = self.unreported,
            "[OTP AUDIT] Connection limit reached"
        );
        self.unreported = 0;
        self.reported_at = Some(Instant::now());
    }
}
