//! Decisions on the headers of a request, before its message arrives: content type,
//! method, caller and memory. Until then an unauthenticated client has cost one block of
//! headers.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::{sync::watch, time::timeout};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Bytes,
        http::{Request, Response, Uri},
    },
};
use tower::{Layer, Service};

use super::{
    MAX_MESSAGE_BYTES,
    admitted_response::{AdmittedFuture, PendingResponse},
    app_state::AppState,
    authentication::identify,
    protocol::Protocol,
    protocol_check::{ProtocolError, protocol_of},
    rejection::RejectedRequest,
    request_log::RequestLog,
};
use crate::{
    auth::AuthError,
    listener::{BudgetShare, HttpApiRules, MemoryBudget, MemoryReservation, PeerIdentity},
    metrics::{RpcName, RpcOutcome, RpcOutcomeCounters, RpcResult},
    reason::Reason,
    service::ServiceError,
    traces::{self, TraceContext},
};
use otpd_rules::Caller;

/// Methods of the health service.
const HEALTH: [&str; 2] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];
/// Methods of the reflection services.
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Bytes reserved for a call of the contract besides its message: task, buffers, reply.
const CALL_BYTES: usize = 32 * 1024;
/// The same for a call of the health service.
const HEALTH_BYTES: usize = 24 * 1024;
/// The same for a call of a reflection service, whose replies hold the whole contract.
const REFLECTION_BYTES: usize = 96 * 1024;

/// Longest message of the health and reflection services, whose messages are names.
const MAX_PUBLIC_MESSAGE_BYTES: usize = 16 * 1024;

/// Time after which memory is worth another try.
pub(super) const MEMORY_RETRY: Duration = Duration::from_secs(1);

/// Time in which the message of a rejected request is discarded: clients send it together
/// with its headers.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Admits requests by their headers.
#[derive(Clone, Debug)]
pub struct AdmissionLayer {
    /// Callers at the time of a request.
    pub current: watch::Receiver<Arc<AppState>>,
    /// Counters of outcomes.
    pub outcomes: RpcOutcomeCounters,
    /// Memory of all connections.
    pub budget: MemoryBudget,
    /// Reflection services are served.
    pub reflection: bool,
    /// Rules of the HTTP API; without them only gRPC is served.
    pub http_api: Option<Arc<HttpApiRules>>,
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> AdmissionService<S> {
        AdmissionService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of an [`AdmissionLayer`].
#[derive(Clone, Debug)]
pub struct AdmissionService<S> {
    inner: S,
    layer: AdmissionLayer,
}

/// Caller of an admitted request, for the handler.
#[derive(Clone, Debug)]
pub(super) struct AdmittedCaller {
    /// State in force at the arrival of the request.
    pub current: Arc<AppState>,
    pub caller: Arc<Caller>,
    pub place: Option<TraceContext>,
    pub protocol: Protocol,
    /// True once the handler writes the log lines and counts the outcome.
    handled: Arc<AtomicBool>,
}

impl AdmittedCaller {
    /// Leaves the log lines and the count of the outcome to the handler.
    pub fn take_over(&self) {
        self.handled.store(true, Ordering::Relaxed);
    }
}

/// Bounds of the body of an admitted request.
#[derive(Clone, Debug)]
pub(super) struct BodyBounds {
    pub memory: Arc<MemoryReservation>,
    /// Bytes of its messages.
    pub max_message: usize,
}

/// Service that a method belongs to.
#[derive(Clone, Copy, Debug)]
enum TargetService {
    Call(RpcName),
    Health,
    Reflection,
}

impl TargetService {
    const fn bytes(self) -> usize {
        match self {
            Self::Call(_) => CALL_BYTES,
            Self::Health => HEALTH_BYTES,
            Self::Reflection => REFLECTION_BYTES,
        }
    }
}

impl AdmissionLayer {
    /// Returns the service at a path. Connect is served for calls of the contract only.
    fn target(&self, path: &str, protocol: Protocol) -> Option<(TargetService, &'static str)> {
        if let Some((rpc, path)) = RpcName::at(path) {
            return Some((TargetService::Call(rpc), path));
        }
        if matches!(protocol, Protocol::Connect(_)) {
            return None;
        }
        let of = |paths: [&'static str; 2]| paths.into_iter().find(|known| *known == path);
        of(HEALTH)
            .map(|path| (TargetService::Health, path))
            .or_else(|| {
                Some((
                    TargetService::Reflection,
                    of(REFLECTION).filter(|_| self.reflection)?,
                ))
            })
    }

    /// Decides on the headers of `request`, and reduces them to what its service reads:
    /// other headers are no longer kept in memory.
    fn admit(&self, request: &mut Request<Body>) -> Result<PendingResponse, Box<Response<Body>>> {
        let headers = request.headers();
        let peer = request.extensions().get::<PeerIdentity>();
        let traceparent = headers.get(traces::HEADER);
        let mut rejection = RejectedRequest {
            rpc: RpcName::at(request.uri().path()).map(|(rpc, _)| rpc),
            caller: None,
            from: peer.and_then(|peer| peer.address),
            place: traceparent.and_then(|place| TraceContext::parse(place.to_str().ok()?)),
        };
        let http_api = self.http_api.as_deref();
        let protocol = protocol_of(request, http_api).map_err(|error| {
            let ProtocolError {
                outcome,
                cause,
                response,
            } = error;
            rejection.record(&self.outcomes, outcome, cause);
            response
        })?;
        let refuse = |rejection: &RejectedRequest, outcome: RpcOutcome, status: Status| {
            rejection.record(&self.outcomes, outcome, status.message());
            Box::new(protocol.respond(status))
        };

        let current = Arc::clone(&self.current.borrow());
        let authenticated = current.callers.is_authenticated();
        if let Err(cause) = protocol.check_browser(request, http_api, authenticated) {
            let status = Status::permission_denied(cause);
            return Err(refuse(&rejection, RpcResult::Forbidden.into(), status));
        }
        let Some((target, path)) = self.target(request.uri().path(), protocol) else {
            let status = Status::unimplemented("unknown method; the contract is otp.v1.OtpService");
            rejection.record(&self.outcomes, RpcResult::Unimplemented, status.message());
            return Err(Box::new(protocol.respond_unknown(status)));
        };

        let proof = identify(&current.callers, headers, peer);
        let caller = match (target, proof) {
            (_, Ok(caller)) => Some(caller),
            (TargetService::Call(rpc), Err(unknown)) => {
                let status = self.reject_unauthenticated(rpc, &rejection, unknown);
                return Err(Box::new(protocol.respond(status)));
            }
            (TargetService::Health | TargetService::Reflection, Err(_)) => None,
        };
        rejection.caller.clone_from(&caller);
        if let Err(status) = protocol.check_encoding(headers) {
            rejection.record(&self.outcomes, RpcResult::Unimplemented, status.message());
            return Err(Box::new(protocol.respond_uncompressed(status)));
        }
        let headers = protocol
            .kept_headers(headers)
            .map_err(|error| refuse(&rejection, Reason::RequestInvalid.into(), error.into()))?;
        let local = rejection
            .from
            .is_some_and(|from| from.ip().to_canonical().is_loopback());
        let share = match caller {
            Some(_) => BudgetShare::Calls,
            None if local => BudgetShare::Local,
            None => BudgetShare::Public,
        };
        let Ok(memory) = self.budget.reserve(target.bytes(), share) else {
            let error = ServiceError::Overloaded { wait: MEMORY_RETRY };
            let cause = "connections.memory_mib is used up";
            rejection.record(&self.outcomes, Reason::Overloaded, cause);
            return Err(Box::new(protocol.respond(error.into())));
        };

        let memory = Arc::new(memory);
        let handled = Arc::new(AtomicBool::new(false));
        let place = rejection.place;
        *request.headers_mut() = headers;
        *request.uri_mut() = Uri::from_static(path);
        let max_message = match target {
            TargetService::Call(_) => MAX_MESSAGE_BYTES,
            TargetService::Health | TargetService::Reflection => MAX_PUBLIC_MESSAGE_BYTES,
        };
        let extensions = request.extensions_mut();
        extensions.insert(protocol);
        extensions.insert(BodyBounds {
            memory: Arc::clone(&memory),
            max_message,
        });
        if let (TargetService::Call(_), Some(caller)) = (target, caller) {
            extensions.insert(AdmittedCaller {
                current,
                caller,
                place,
                protocol,
                handled: Arc::clone(&handled),
            });
        }
        Ok(PendingResponse {
            protocol,
            rejection,
            handled,
            memory,
            outcomes: self.outcomes.clone(),
        })
    }

    fn reject_unauthenticated(
        &self,
        rpc: RpcName,
        rejection: &RejectedRequest,
        unknown: AuthError,
    ) -> Status {
        traces::enter(rejection.place, || {
            RequestLog::unauthenticated(rpc, rejection.from, unknown, &self.outcomes);
        });
        ServiceError::from(unknown).into()
    }
}

impl<S> Service<Request<Body>> for AdmissionService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, AdmittedFuture<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.layer.admit(&mut request) {
            Ok(pending) => Either::Right(pending.response(self.inner.call(request))),
            Err(response) => {
                discard(request.into_body());
                Either::Left(ready(Ok(*response)))
            }
        }
    }
}

/// Discards the message of a rejected request. Frames that arrive for a stream that was
/// reset already count as faults of the client in HTTP/2, which end the connection.
fn discard(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(timeout(DISCARD_TIME, async move {
        let mut left = MAX_MESSAGE_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }));
}
