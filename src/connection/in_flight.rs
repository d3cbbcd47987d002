//! Requests that run on a connection, up to the end of their answers.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::{
    body::Body,
    codegen::{Bytes, http},
};

use super::MemoryReservation;

/// Whether requests run on a connection, and since when none does. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct InFlightTracker(Arc<Mutex<(usize, Instant)>>);

/// One request that runs.
#[derive(Debug)]
pub(super) struct InFlightGuard(InFlightTracker);

impl Default for InFlightTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((0, Instant::now()))))
    }
}

impl InFlightTracker {
    pub fn begin(&self) -> InFlightGuard {
        self.with(|(running, _)| *running += 1);
        InFlightGuard(self.clone())
    }

    /// Since when no request runs; now, if one does.
    pub fn idle_since(&self) -> Instant {
        self.with(
            |(running, since)| {
                if *running > 0 { Instant::now() } else { *since }
            },
        )
    }

    fn with<T>(&self, work: impl FnOnce(&mut (usize, Instant)) -> T) -> T {
        // Nothing panics between the two.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.with(|(running, since)| {
            *running -= 1;
            *since = Instant::now();
        });
    }
}

/// What is answered; while it is, its request runs.
pub(super) struct GuardedBody {
    body: Body,
    _busy: InFlightGuard,
    _memory: Option<Arc<MemoryReservation>>,
}

impl GuardedBody {
    /// Takes the body of `response`. What it holds lasts until the body has been sent.
    pub fn new(mut response: http::Response<Body>, busy: InFlightGuard) -> http::Response<Self> {
        let memory = response.extensions_mut().remove();
        response.map(|body| Self {
            body,
            _busy: busy,
            _memory: memory,
        })
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
