//! Error of the contract for a message that is too long.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
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
    S::Future: Send + 'static,
    Body: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await?;
            let status = Status::from_header_map(response.headers());
            if status.is_some_and(|status| status.code() == Code::OutOfRange) {
                let problem = format!("too long; a message has at most {MAX_MESSAGE_BYTES} bytes");
                return Ok(Status::from(ServiceError::request("request", problem)).into_http());
            }
            Ok(response)
        })
    }
}
