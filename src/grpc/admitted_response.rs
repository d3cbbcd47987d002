//! Response to an admitted request.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tonic::{body::Body, codegen::http::Response};

use super::{protocol::Protocol, rejection::RejectedRequest};
use crate::{listener::MemoryReservation, metrics::RpcOutcomeCounters};

/// Admitted request without a response.
#[derive(Debug)]
pub(super) struct PendingResponse {
    pub protocol: Protocol,
    pub rejection: RejectedRequest,
    /// True once the handler writes the log lines and counts the outcome.
    pub handled: Arc<AtomicBool>,
    pub memory: Arc<MemoryReservation>,
    pub outcomes: RpcOutcomeCounters,
}

impl PendingResponse {
    /// Returns the future of the response that `inner` makes.
    pub fn response<F>(self, inner: F) -> AdmittedFuture<F> {
        AdmittedFuture {
            inner,
            pending: self,
        }
    }
}

/// Records the response to an admitted request, unless its handler does. The response keeps
/// the request's memory reserved until it has been sent.
#[derive(Debug)]
pub struct AdmittedFuture<F> {
    inner: F,
    pending: PendingResponse,
}

impl<F, Error> Future for AdmittedFuture<F>
where
    F: Future<Output = Result<Response<Body>, Error>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut result = ready!(Pin::new(&mut self.inner).poll(context));
        if let Ok(response) = &mut result {
            let PendingResponse {
                protocol,
                rejection,
                handled,
                memory,
                outcomes,
            } = &self.pending;
            if !handled.load(Ordering::Relaxed)
                && let Some(status) = Protocol::status_of(response)
            {
                rejection.record_status(outcomes, &status);
            }
            protocol.correct(response);
            response.extensions_mut().insert(Arc::clone(memory));
        }
        Poll::Ready(result)
    }
}
