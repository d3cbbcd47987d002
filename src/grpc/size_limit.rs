//! Error of the contract for a message that is too long.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tonic::{Code, Status, codegen::http};
use tower::{Layer, Service};

use super::MAX_MESSAGE_BYTES;
use crate::service::ServiceError;

/// Converts tonic's `OUT_OF_RANGE` for a message over the limit to `REQUEST_INVALID` of the
/// contract. No other part of otpd returns `OUT_OF_RANGE`.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimitErrorLayer;

impl<S> Layer<S> for SizeLimitErrorLayer {
    type Service = SizeLimitErrorService<S>;

    fn layer(&self, inner: S) -> SizeLimitErrorService<S> {
        SizeLimitErrorService(inner)
    }
}

/// Service of a [`SizeLimitErrorLayer`].
#[derive(Clone, Debug)]
pub struct SizeLimitErrorService<S>(S);

impl<S, Request, Body> Service<Request> for SizeLimitErrorService<S>
where
    S: Service<Request, Response = http::Response<Body>>,
    S::Future: Unpin,
    Body: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SizeLimitErrorFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        SizeLimitErrorFuture(self.0.call(request))
    }
}

/// Response of a [`SizeLimitErrorService`].
#[derive(Debug)]
pub struct SizeLimitErrorFuture<F>(F);

impl<F, Body, Error> Future for SizeLimitErrorFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, Error>> + Unpin,
    Body: Default,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let response = ready!(Pin::new(&mut self.0).poll(context))?;
        let code = response.headers().get(Status::GRPC_STATUS);
        if code.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::OutOfRange) {
            let problem = format!("too long; a message has at most {MAX_MESSAGE_BYTES} bytes");
            let status = Status::from(ServiceError::request("request", problem));
            return Poll::Ready(Ok(status.into_http()));
        }
        Poll::Ready(Ok(response))
    }
}
