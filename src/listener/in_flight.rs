//! Requests in flight on a connection, until their responses have been sent.

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

/// Requests of a connection, and the start of its idle time. Clones share one count.
#[derive(Clone, Debug)]
pub(super) struct InFlightTracker(Arc<Mutex<Activity>>);

#[derive(Debug)]
struct Activity {
    /// Number of requests in flight.
    running: usize,
    /// Number of requests so far.
    begun: u64,
    /// End of the last request.
    since: Instant,
}

/// Request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard(InFlightTracker);

impl Default for InFlightTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Activity {
            running: 0,
            begun: 0,
            since: Instant::now(),
        })))
    }
}

impl InFlightTracker {
    pub fn begin(&self) -> InFlightGuard {
        self.with(|activity| {
            activity.running += 1;
            activity.begun += 1;
        });
        InFlightGuard(self.clone())
    }

    /// Returns the start of the idle time; now, if a request is in flight.
    pub fn idle_since(&self) -> Instant {
        self.with(|activity| {
            if activity.running > 0 {
                Instant::now()
            } else {
                activity.since
            }
        })
    }

    /// Returns the number of requests so far, and whether one is in flight.
    pub fn begun(&self) -> (u64, bool) {
        self.with(|activity| (activity.begun, activity.running > 0))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Activity) -> T) -> T {
        // A poisoned lock is consistent, because no code panics between the two updates.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.with(|activity| {
            activity.running -= 1;
            activity.since = Instant::now();
        });
    }
}

/// Body of a response; its request is in flight until the body has been sent.
pub(super) struct GuardedBody {
    body: Body,
    _guard: InFlightGuard,
    _memory: Option<Arc<MemoryReservation>>,
}

impl GuardedBody {
    /// Wraps the body of `response`. The guard and the memory reservation last until the body has
    /// been sent.
    pub fn new(mut response: http::Response<Body>, guard: InFlightGuard) -> http::Response<Self> {
        let memory = response.extensions_mut().remove();
        response.map(|body| Self {
            body,
            _guard: guard,
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
