//! Requests of one connection, over HTTP/2 or HTTP/1.1, until it ends or exceeds its maximum
//! age or idle time.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use futures_util::future::Either;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::RngExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::http::{self, HeaderValue, header::CONNECTION},
};
use tower::{Service, ServiceExt as _, util::Oneshot};

use super::{
    ClientStream, ConnectionConfig, ConnectionSettings, HttpVersion, PeerIdentity, ReadAllowance,
    body_state::TrackedBody,
    head_timeout::HeadTimeout,
    in_flight::{GuardedBody, InFlightTracker},
};
use crate::system_random::os_rng;
use otpd_base::log_targets::UNAUTHENTICATED;

/// Maximum total size of the headers of a request; larger ones are answered with status 431.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Flow-control window of a stream: about one whole message.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Maximum number of bytes of a response that are buffered on one stream.
const SEND_BUFFER: usize = 16 * 1024;
/// Maximum number of bytes that HTTP/1.1 buffers in each direction: the headers of a request.
const HTTP1_BUFFER: usize = 16 * 1024;
/// Maximum numbers of streams that a client resets before they are processed
/// (CVE-2023-44487, "rapid reset"), and of streams that are reset because of its protocol
/// errors (CVE-2025-8671, "made you reset"). With more of them the connection ends.
const MAX_RESETS: usize = 20;
const MAX_FAULTS: usize = 1_024;

/// Duration that stands for no limit.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Serves the requests of a connection until both sides are done, or until it must be
/// aborted.
pub(super) async fn serve_requests<S>(
    connection: &mut ClientStream,
    version: HttpVersion,
    peer: PeerIdentity,
    bounds: &ConnectionSettings,
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
    let activity = InFlightTracker::default();
    let lifetime = Lifetime {
        address: peer.address,
        certificates: connection.client_certificates(),
        is_accepted: Arc::new(AtomicBool::new(true)),
        is_closing: Arc::default(),
        activity: activity.clone(),
        allowance: connection.allowance.clone(),
        newest,
        end,
    };
    let answer = {
        let (activity, is_accepted) = (activity.clone(), Arc::clone(&lifetime.is_accepted));
        let is_closing = Arc::clone(&lifetime.is_closing);
        service_fn(move |request: http::Request<Incoming>| {
            let guard = activity.begin();
            let mut state = None;
            let mut request = request.map(|body| match version {
                HttpVersion::Http2 => Body::new(body),
                HttpVersion::Http1 => {
                    let (body, its) = TrackedBody::new(body);
                    state = Some(its);
                    Body::new(body)
                }
            });
            let mut peer = peer.clone();
            if !is_accepted.load(Ordering::Relaxed) {
                peer.certificate_names = Arc::default();
            }
            request.extensions_mut().insert(peer);
            let answer = call_now(service.clone(), request);
            let is_closing = Arc::clone(&is_closing);
            async move {
                let mut response = answer.await?;
                let is_unread = state.is_some_and(|state| state.ends_connection());
                if is_closing.load(Ordering::Relaxed) || is_unread {
                    let headers = response.headers_mut();
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(GuardedBody::new(response, guard))
            }
        })
    };
    match version {
        HttpVersion::Http2 => {
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
            let connection = builder.serve_connection(TokioIo::new(connection), answer);
            let shut_down = http2::Connection::graceful_shutdown;
            lifetime
                .drive(pin!(connection), shut_down, shut_down, bounds)
                .await;
        }
        HttpVersion::Http1 => {
            connection.head_timeout = Some(HeadTimeout::new(activity, bounds.handshake_timeout));
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .max_buf_size(HTTP1_BUFFER);
            let connection = builder.serve_connection(TokioIo::new(connection), answer);
            let shut_down = http1::Connection::graceful_shutdown;
            // A proxy that sends a request while the connection is being closed would fail it,
            // so the next response announces the end.
            let is_closing = Arc::clone(&lifetime.is_closing);
            let retire = |_: Pin<&mut _>| is_closing.store(true, Ordering::Relaxed);
            lifetime
                .drive(pin!(connection), shut_down, retire, bounds)
                .await;
        }
    }
}

/// State that ends a connection, or keeps it open.
struct Lifetime {
    address: Option<SocketAddr>,
    certificates: Vec<CertificateDer<'static>>,
    /// False once the client certificate is no longer accepted.
    is_accepted: Arc<AtomicBool>,
    /// True once the next response of HTTP/1.1 is the last one.
    is_closing: Arc<AtomicBool>,
    activity: InFlightTracker,
    allowance: ReadAllowance,
    /// Configuration after a reload.
    newest: watch::Receiver<Arc<ConnectionConfig>>,
    end: CancellationToken,
}

impl Lifetime {
    /// Drives a connection until it ends. `shut_down` lets it complete its requests, and accept
    /// no more. `retire` does the same at the maximum age.
    async fn drive<C: Future<Output = hyper::Result<()>>>(
        mut self,
        mut connection: Pin<&mut C>,
        shut_down: impl Fn(Pin<&mut C>),
        retire: impl Fn(Pin<&mut C>),
        bounds: &ConnectionSettings,
    ) {
        let address = self.address.map(tracing::field::display);
        let aged_at = Instant::now() + jittered(or_never(bounds.max_age));
        let max_idle = or_never(bounds.max_idle);
        // Time at which the connection is aborted, set once a graceful shutdown has begun.
        let mut abort_at = None;
        loop {
            let idle_since = self.activity.idle_since();
            let next = abort_at.unwrap_or_else(|| aged_at.min(idle_since + max_idle));
            tokio::select! {
                // After a reload, the certificate is verified before the next request is
                // processed.
                biased;
                Ok(()) = self.newest.changed(), if !self.certificates.is_empty() => {
                    let config = Arc::clone(&self.newest.borrow_and_update());
                    let Err(cause) = config.verify(&self.certificates) else { continue };
                    tracing::warn!(target: UNAUTHENTICATED, from = address, %cause, "[OTP AUDIT] Client certificate no longer accepted");
                    self.is_accepted.store(false, Ordering::Relaxed);
                    if abort_at.is_none() {
                        abort_at = Some(Instant::now() + bounds.max_age_grace);
                        shut_down(connection.as_mut());
                    }
                }
                ended = poll_fn(|context| {
                    self.allowance.renew();
                    connection.as_mut().poll(context)
                }) => {
                    if let Err(error) = ended {
                        tracing::debug!(from = address, %error, "[OTP] Connection failed");
                    }
                    return;
                }
                // The server itself limits the time of this shutdown.
                () = self.end.cancelled(), if abort_at.is_none() => {
                    abort_at = Some(Instant::now() + NEVER);
                    shut_down(connection.as_mut());
                }
                () = sleep_until(next) => {
                    if abort_at.is_some() {
                        tracing::debug!(from = address, "[OTP] Connection aborted after grace period");
                        return;
                    }
                    let now = Instant::now();
                    let is_old = now >= aged_at;
                    if is_old || now >= self.activity.idle_since() + max_idle {
                        let reason = if is_old { "max_age" } else { "idle" };
                        tracing::debug!(from = address, reason, "[OTP] Connection closing");
                        abort_at = Some(now + bounds.max_age_grace);
                        if is_old {
                            retire(connection.as_mut());
                        } else {
                            shut_down(connection.as_mut());
                        }
                    }
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

fn or_never(duration: Duration) -> Duration {
    if duration.is_zero() { NEVER } else { duration }
}

/// Adds a jitter of a tenth, so that connections opened together do not end together.
fn jittered(duration: Duration) -> Duration {
    let factor = os_rng().random_range(0.9..1.1);
    duration.mul_f64(factor)
}
