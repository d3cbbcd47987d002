//! Bounds of an incoming message: time, length and memory. Without them a slow message would
//! hold its resources for ever.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, http::Request},
};
use tower::{Layer, Service};

use super::{
    admission::{BodyBounds, MEMORY_RETRY},
    deadline::grpc_timeout,
};
use crate::service::ServiceError;

/// Maximum number of copies of each byte of a message in memory: received, in the buffer that
/// assembles the message, and decoded.
const COPIES: usize = 3;
/// Length of the prefix of a message: a compression flag and the length of the message.
const PREFIX_BYTES: usize = 5;

/// Limits the time in which the message of a request must arrive: this one, or the timeout of
/// the caller if it is shorter.
#[derive(Clone, Copy, Debug)]
pub struct BodyTimeoutLayer(pub Duration);

impl<S> Layer<S> for BodyTimeoutLayer {
    type Service = BodyTimeout<S>;

    fn layer(&self, inner: S) -> BodyTimeout<S> {
        BodyTimeout {
            inner,
            timeout: self.0,
        }
    }
}

/// Service of a [`BodyTimeoutLayer`].
#[derive(Clone, Debug)]
pub struct BodyTimeout<S> {
    inner: S,
    timeout: Duration,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for BodyTimeout<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let requested = grpc_timeout(request.headers()).unwrap_or(self.timeout);
        let timeout = self.timeout.min(requested);
        let until = Instant::now() + timeout;
        let bounds = request.extensions().get::<BodyBounds>().cloned();
        self.inner.call(request.map(|body| {
            Body::new(TimeoutBody {
                body,
                timeout,
                until,
                late: None,
                bounds,
                arrived: 0,
            })
        }))
    }
}

/// Body of a request whose message is still arriving.
struct TimeoutBody {
    body: Body,
    timeout: Duration,
    until: Instant,
    /// Timer, created only if the message has not arrived with its headers; most have.
    late: Option<Pin<Box<Sleep>>>,
    bounds: Option<BodyBounds>,
    /// Number of bytes so far.
    arrived: usize,
}

impl TimeoutBody {
    /// Accepts a frame if it is within the bounds.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Result<Frame<Bytes>, Status>> {
        // Requests of gRPC have no trailers.
        let data = frame.data_ref()?;
        let Some(bounds) = &self.bounds else {
            return Some(Ok(frame));
        };
        self.arrived += data.len();
        let max = bounds.max_message;
        if self.arrived > max + PREFIX_BYTES {
            let problem = format!("too long; a message has at most {max} bytes");
            return Some(Err(ServiceError::request("request", problem).into()));
        }
        if bounds.memory.grow(COPIES * data.len()).is_err() {
            return Some(Err(ServiceError::Overloaded { wait: MEMORY_RETRY }.into()));
        }
        Some(Ok(frame))
    }
}

impl http_body::Body for TimeoutBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let until = self.until;
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            // A message that arrives in small pieces never starts the timer.
            if Instant::now() < until || frame.is_none() {
                return Poll::Ready(match frame {
                    Some(Ok(frame)) => self.take(frame),
                    other => other,
                });
            }
        } else {
            let late = self
                .late
                .get_or_insert_with(|| Box::pin(sleep_until(until)));
            std::task::ready!(late.as_mut().poll(context));
        }
        let problem = format!("the message did not arrive within {:?}", self.timeout);
        Poll::Ready(Some(Err(Status::deadline_exceeded(problem))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
