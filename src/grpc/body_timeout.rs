//! Bounds of a message on its way: time, length and memory. Without them it would hold its
//! place for ever.

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
    deadline::timeout,
};
use crate::service::ServiceError;

/// Bytes that one byte of a message takes at most: as it came, in the buffer in which the
/// message is put together, and decoded.
const COPIES: usize = 3;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Gives the message of each request a time to arrive in: this one, or that of the
/// caller if it is shorter.
#[derive(Clone, Copy, Debug)]
pub struct BodyTimeoutLayer(pub Duration);

impl<S> Layer<S> for BodyTimeoutLayer {
    type Service = BodyTimeout<S>;

    fn layer(&self, inner: S) -> BodyTimeout<S> {
        BodyTimeout {
            inner,
            patience: self.0,
        }
    }
}

/// The service that [`BodyTimeoutLayer`] makes.
#[derive(Clone, Debug)]
pub struct BodyTimeout<S> {
    inner: S,
    patience: Duration,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for BodyTimeout<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let own = timeout(request.headers()).unwrap_or(self.patience);
        let patience = self.patience.min(own);
        let until = Instant::now() + patience;
        let bounds = request.extensions().get::<BodyBounds>().cloned();
        self.inner.call(request.map(|body| {
            Body::new(TimeoutBody {
                body,
                patience,
                until,
                late: None,
                bounds,
                arrived: 0,
            })
        }))
    }
}

/// A message on its way.
struct TimeoutBody {
    body: Body,
    patience: Duration,
    until: Instant,
    /// Only who has to wait needs a timer, and most messages come with their headers.
    late: Option<Pin<Box<Sleep>>>,
    bounds: Option<BodyBounds>,
    /// Number of bytes so far.
    arrived: usize,
}

impl TimeoutBody {
    /// Takes a frame, if the bounds have room for it.
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
            // One that comes drop by drop is never waited for.
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
        let problem = format!("the message did not arrive within {:?}", self.patience);
        Poll::Ready(Some(Err(Status::deadline_exceeded(problem))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
