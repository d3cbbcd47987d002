//! Timeout of the headers of requests over HTTP/1.1.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::in_flight::InFlightTracker;

/// Limits the time from the first byte of a request to the end of its headers. The
/// `header_read_timeout` of hyper 1.12 also runs while a connection is idle between requests,
/// for which `max_idle` is the limit.
#[derive(Debug)]
pub(super) struct HeadTimeout {
    activity: InFlightTracker,
    timeout: Duration,
    /// Timer, with the number of requests that had begun when it was started.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl HeadTimeout {
    pub fn new(activity: InFlightTracker, timeout: Duration) -> Self {
        Self {
            activity,
            timeout,
            timer: None,
        }
    }

    /// Starts the timer for bytes that have been read, unless they belong to a request whose
    /// headers are complete.
    pub fn started(&mut self) {
        let (begun, is_busy) = self.activity.begun();
        if is_busy {
            self.timer = None;
        } else if self
            .timer
            .as_ref()
            .is_none_or(|(before, _)| *before != begun)
        {
            self.timer = Some((begun, Box::pin(sleep(self.timeout))));
        }
    }

    /// Returns the result of a read of `length` bytes, or an error after the timeout.
    pub fn enforce(
        &mut self,
        context: &mut Context<'_>,
        read: Poll<io::Result<()>>,
        length: usize,
    ) -> Poll<io::Result<()>> {
        if length > 0 {
            self.started();
        }
        if read.is_ready() && length == 0 {
            return read;
        }
        let (begun, is_busy) = self.activity.begun();
        let Some((before, timer)) = &mut self.timer else {
            return read;
        };
        if is_busy || *before != begun {
            self.timer = None;
            return read;
        }
        if timer.as_mut().poll(context).is_pending() {
            return read;
        }
        let problem = "the headers of the request did not arrive in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)))
    }
}
