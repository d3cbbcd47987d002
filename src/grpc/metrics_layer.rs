//! Latency and status of each call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;
use tonic::{Code, Status, codegen::http};
use tower::{Layer, Service};

use crate::metrics::{RpcLatency, RpcMethod};

/// Measures every call of the wrapped services.
#[derive(Clone, Debug)]
pub struct RpcMetricsLayer(pub RpcLatency);

impl<S> Layer<S> for RpcMetricsLayer {
    type Service = RpcMetricsService<S>;

    fn layer(&self, inner: S) -> RpcMetricsService<S> {
        RpcMetricsService {
            inner,
            calls: self.0.clone(),
        }
    }
}

/// Service of an [`RpcMetricsLayer`].
#[derive(Clone, Debug)]
pub struct RpcMetricsService<S> {
    inner: S,
    calls: RpcLatency,
}

impl<S, Request, Body> Service<http::Request<Request>> for RpcMetricsService<S>
where
    S: Service<http::Request<Request>, Response = http::Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RpcMetricsFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Request>) -> Self::Future {
        let call = InFlightCall {
            calls: self.calls.clone(),
            method: RpcMethod::at(request.uri().path()),
            since: Instant::now(),
            code: Code::Cancelled,
        };
        RpcMetricsFuture {
            inner: self.inner.call(request),
            call,
        }
    }
}

/// Call in progress.
#[derive(Debug)]
pub struct RpcMetricsFuture<F> {
    inner: F,
    call: InFlightCall,
}

/// Records the call when it is dropped, because the call of a client that disconnects is
/// dropped before its end.
#[derive(Debug)]
struct InFlightCall {
    calls: RpcLatency,
    method: RpcMethod,
    since: Instant,
    code: Code,
}

impl<F, Body, Error> Future for RpcMetricsFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, Error>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let result = ready!(Pin::new(&mut self.inner).poll(context));
        // A response with a message has its status, OK, in the trailers. An error of Connect
        // has its status with the response.
        self.call.code = match &result {
            Ok(response) => match response.headers().get(Status::GRPC_STATUS) {
                Some(status) => Code::from_bytes(status.as_bytes()),
                None => response
                    .extensions()
                    .get::<Status>()
                    .map_or(Code::Ok, Status::code),
            },
            Err(_) => Code::Unknown,
        };
        Poll::Ready(result)
    }
}

impl Drop for InFlightCall {
    fn drop(&mut self) {
        let code = self.code.into();
        self.calls.ended(self.method, code, self.since.elapsed());
    }
}
