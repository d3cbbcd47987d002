//! The listener for operators: what is measured, over plain HTTP.
//!
//! It proves nobody's identity, so nothing that it shows is secret: no recipient, no
//! code, no token.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
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

use crate::metrics::Metrics;

/// How many connections there are at once; more wait. Scrapers need one each.
const MOST_CONNECTIONS: usize = 32;
/// How long a connection lasts at most, so that those who never read make room.
const LONGEST_CONNECTION: Duration = Duration::from_mins(5);
/// How long a request's header may take, or the next request on the same connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait after a connection could not be accepted, as where the process has
/// no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// What a scraper says that takes the newer format.
const OPEN_METRICS: &str = "application/openmetrics-text";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS_TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

type Reply = Response<Full<Bytes>>;

/// Answers operators, for ever.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let connection = serve_connection(stream, metrics);
            // How it ended is for the operator to see at the other end.
            let _ = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(|request| {
        let metrics = Arc::clone(&metrics);
        async move { Ok::<_, Infallible>(answer(&request, &metrics)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // As above.
    let _ = connection.await;
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Reply {
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => scrape(request, metrics),
        ("/metrics", _) => not_allowed("GET, HEAD"),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "there is /metrics\n"),
    }
}

/// Everything that is measured, in the format that the scraper takes.
fn scrape(request: &Request<Incoming>, metrics: &Metrics) -> Reply {
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

fn not_allowed(allowed: &'static str) -> Reply {
    let mut refused = reply(
        StatusCode::METHOD_NOT_ALLOWED,
        TEXT,
        format!("{allowed} alone\n"),
    );
    let allowed = HeaderValue::from_static(allowed);
    refused.headers_mut().insert(ALLOW, allowed);
    refused
}

fn reply(status: StatusCode, format: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, format);
    reply
}
