//! Accepts connections, and serves each within its limits.
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

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, codegen::http};
use tower::Service;

use super::{
    BudgetShare, ClientStream, ConnectionConfig, FailedHandshake, HttpVersion, MemoryBudget,
    PeerIdentity, close,
    connection_limit::{ConnectionLimiter, LimitReached},
    requests::serve_requests,
};
use otpd_base::log_targets::{AUDIT, UNAUTHENTICATED};

/// Delay after a failed `accept`, which fails while the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of refused connections that are closed without a reset at the same
/// time; more of them are reset.
const MAX_REFUSED_LINGERING: usize = 64;
/// Minimum interval between log lines about refused connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

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
    let Some((mut connection, version)) = connection else {
        return;
    };
    let bounds = &config.bounds;
    serve_requests(&mut connection, version, peer, bounds, newest, service, end).await;
    connection.close().await;
}

/// Returns the connection after its TLS handshake and its first bytes; none if the client
/// sends neither in time.
async fn establish(
    stream: TcpStream,
    address: SocketAddr,
    config: &ConnectionConfig,
    peer: &mut PeerIdentity,
) -> Option<(ClientStream, HttpVersion)> {
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
    let http1 = config.http_api.is_some();
    match timeout_at(until, connection.read_preface(http1)).await {
        Ok(Ok(version)) => return Some((connection, version)),
        // A probe that only checks whether the port is open sends nothing; it is not an event.
        Ok(Err(_)) => {}
        Err(_) => {
            tracing::debug!(from = %address, "[OTP] Connection closed: no HTTP/2 preface before timeout");
        }
    }
    connection.close().await;
    None
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
