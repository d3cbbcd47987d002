//! Bodies of HTTP/1.1 that are not read to their end. The next request of their connection would
//! follow unread bytes, so the connection ends. A proxy must know that from the response, because
//! it would send the next request of another client on it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::codegen::Bytes;

const ARRIVING: u8 = 0;
const ENDED: u8 = 1;
const ABANDONED: u8 = 2;

/// Maximum length of a body that is read even if its request is refused.
const SHORT_BODY: u64 = 64 * 1024;

/// State of the body of one request. Clones are one state.
#[derive(Clone, Debug)]
pub(super) struct BodyState {
    progress: Arc<AtomicU8>,
    /// True if the body will not be read to its end once its request is refused.
    is_long: bool,
}

impl BodyState {
    /// Returns whether the connection ends after the response: the body was dropped before its
    /// end, or it is still arriving and is too long to be read.
    pub fn ends_connection(&self) -> bool {
        match self.progress.load(Ordering::Relaxed) {
            ENDED => false,
            ABANDONED => true,
            _ => self.is_long,
        }
    }
}

/// Body that records its state.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Incoming,
    state: BodyState,
}

impl TrackedBody {
    pub fn new(body: Incoming) -> (Self, BodyState) {
        let length = body.size_hint().upper();
        let state = BodyState {
            progress: Arc::new(AtomicU8::new(ARRIVING)),
            is_long: length.is_none_or(|length| length > SHORT_BODY),
        };
        let tracked = Self {
            body,
            state: state.clone(),
        };
        tracked.record_end();
        (tracked, state)
    }

    fn record_end(&self) {
        if self.body.is_end_stream() {
            self.state.progress.store(ENDED, Ordering::Relaxed);
        }
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.state.progress.store(ENDED, Ordering::Relaxed);
        }
        self.record_end();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let (from, to) = (ARRIVING, ABANDONED);
        // Fails if the body has ended.
        let _ =
            self.state
                .progress
                .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}
