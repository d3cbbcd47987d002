//! Listener of the public keys of receipts, for services that verify them.
//!
//! It does not authenticate, because the keys are public. Its connections have a memory budget of
//! their own, so that its clients cannot disturb the callers.

use std::{convert::Infallible, future::Ready, sync::Arc, task, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::http::{
        HeaderValue, Method, Request, Response, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    },
};
use tower::Service;

use crate::{
    grpc::AppState,
    keys::JWKS_MAX_AGE,
    listener::{self, ConnectionConfig, ConnectionSettings, HttpApiRules, MemoryBudget},
};

/// Path of the public keys.
const PATH: &str = "/.well-known/jwks.json";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Limits of connections. Verifiers keep the keys, so few of them connect at a time, and all
/// through the proxy in front.
fn limits() -> ConnectionSettings {
    ConnectionSettings {
        max: 64,
        max_per_address: 0,
        max_per_site: 0,
        max_streams: 8,
        memory_mib: 16,
        max_age: Duration::from_mins(5),
        max_idle: Duration::from_mins(1),
        ..ConnectionSettings::default()
    }
}

/// Serves the public keys of the key ring in force; never completes.
pub(super) async fn serve(listener: TcpListener, current: watch::Receiver<Arc<AppState>>) {
    let config = ConnectionConfig {
        tls: None,
        bounds: limits(),
        http_api: Some(Arc::new(HttpApiRules::default())),
    };
    let budget = MemoryBudget::new(config.bounds.memory_bytes());
    // The configuration of this listener does not change.
    let (_unchanged, config) = watch::channel(Arc::new(config));
    let service = |_: &ConnectionConfig| PublicKeys {
        current: current.clone(),
    };
    let end = CancellationToken::new();
    listener::serve(listener, config, budget, service, end).await;
}

/// Answers requests for the public keys.
#[derive(Clone, Debug)]
struct PublicKeys {
    current: watch::Receiver<Arc<AppState>>,
}

impl Service<Request<Body>> for PublicKeys {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        std::future::ready(Ok(self.answer(&request)))
    }
}

impl PublicKeys {
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        if request.uri().path() != PATH {
            return reply(
                StatusCode::NOT_FOUND,
                TEXT,
                format!("not found; use {PATH}\n"),
            );
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let problem = "method not allowed; use GET\n".to_owned();
            let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, problem);
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allowed);
            return refused;
        }
        let jwks = self.current.borrow().service.engine.keys.jwks();
        let mut keys = reply(StatusCode::OK, JSON, jwks);
        let cached = format!("public, max-age={}", JWKS_MAX_AGE.as_secs());
        let cached = HeaderValue::from_str(&cached).expect("digits and letters fit a header");
        keys.headers_mut().insert(CACHE_CONTROL, cached);
        keys
    }
}

fn reply(status: StatusCode, format: HeaderValue, body: String) -> Response<Body> {
    let mut reply = Response::new(Body::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, format);
    reply
}
