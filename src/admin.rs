//! Operations listener: metrics and the log level, over plain HTTP.
//!
//! It does not authenticate, so nothing that it shows is secret: no recipient, no code, no
//! token. Changes are accepted only from this machine.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    listener,
    metrics::Metrics,
    telemetry::{self, LogLevel},
};
use otpd_base::log_targets::AUDIT;

/// Maximum number of open connections; more wait. Each scraper needs one.
const MAX_CONNECTIONS: usize = 32;
/// Maximum duration of a connection, so that clients that never read make room.
const MAX_CONNECTION_AGE: Duration = Duration::from_mins(5);
/// Maximum time for the header of a request, and between requests on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Delay after a failed `accept`, which fails while the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum length of a request body; longer than any level.
const MAX_BODY_BYTES: usize = 64;

/// Media type that a scraper accepts if it supports the newer format.
const OPEN_METRICS: &str = "application/openmetrics-text";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS_TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

type AdminReply = Response<Full<Bytes>>;

/// Serves operators; never completes.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let permit = permit.expect("no code closes the semaphore");
        let Ok((mut stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let connection = serve_connection(&mut stream, from.ip(), metrics);
            // The operator sees a failure at the other end.
            let _ = tokio::time::timeout(MAX_CONNECTION_AGE, connection).await;
            listener::close(stream).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: &mut TcpStream, from: IpAddr, metrics: Arc<Metrics>) {
    let service = service_fn(|request| {
        let metrics = Arc::clone(&metrics);
        async move { Ok::<_, Infallible>(answer(request, from, &metrics).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // The operator sees a failure at the other end.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, from: IpAddr, metrics: &Metrics) -> AdminReply {
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => scrape(&request, metrics),
        ("/metrics", _) => not_allowed("GET, HEAD"),
        ("/log-level", &Method::GET) => log_level_reply(),
        ("/log-level", &Method::PUT) if may_change(from) => {
            set_level(request.into_body(), from).await
        }
        ("/log-level", &Method::PUT) => reply(
            StatusCode::FORBIDDEN,
            TEXT,
            "the log level can be set only from this machine; use the loopback address\n",
        ),
        ("/log-level", _) => not_allowed("GET, PUT"),
        _ => reply(
            StatusCode::NOT_FOUND,
            TEXT,
            "not found; use /metrics or /log-level\n",
        ),
    }
}

/// Returns whether the client may change settings: only on this machine, because the listener
/// does not authenticate.
fn may_change(from: IpAddr) -> bool {
    from.to_canonical().is_loopback()
}

fn log_level_reply() -> AdminReply {
    let level = telemetry::level().map_or("none", LogLevel::name);
    reply(StatusCode::OK, TEXT, format!("{level}\n"))
}

async fn set_level(body: Incoming, from: IpAddr) -> AdminReply {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes);
    let name = body.as_deref().unwrap_or_default();
    let level = std::str::from_utf8(name).ok().map(str::trim);
    let Some(level) = level.and_then(LogLevel::from_name) else {
        let levels = LogLevel::ALL.map(LogLevel::name).join(", ");
        let problem = format!("unknown log level; use one of: {levels}\n");
        return reply(StatusCode::BAD_REQUEST, TEXT, problem);
    };
    telemetry::set_level(level);
    let name = level.name();
    tracing::warn!(target: AUDIT, level = name, %from, "[OTP AUDIT] Log level set");
    log_level_reply()
}

/// Returns all metrics, in the format that the scraper accepts.
fn scrape(request: &Request<Incoming>, metrics: &Metrics) -> AdminReply {
    let accepted = request.headers().get_all(ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    let (text, format) = if accepted.any(|value| value.contains(OPEN_METRICS)) {
        (metrics.open_metrics(), OPEN_METRICS_TEXT)
    } else {
        (metrics.prometheus(), PROMETHEUS_TEXT)
    };
    match text {
        Ok(text) => reply(StatusCode::OK, format, text),
        Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
    }
}

fn not_allowed(allowed: &'static str) -> AdminReply {
    let mut refused = reply(
        StatusCode::METHOD_NOT_ALLOWED,
        TEXT,
        format!("method not allowed; use {allowed}\n"),
    );
    let allowed = HeaderValue::from_static(allowed);
    refused.headers_mut().insert(ALLOW, allowed);
    refused
}

fn reply(status: StatusCode, format: HeaderValue, body: impl Into<Bytes>) -> AdminReply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, format);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_changing_requests_are_loopback_only() {
        for (from, may) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("203.0.113.7", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(may_change(from.parse().unwrap()), may, "{from}");
        }
    }
}
