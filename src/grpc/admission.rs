//! Decisions on the headers of a request, before its message arrives: content type,
//! method, caller and memory. Until then an unauthenticated client has cost one block of
//! headers.

use std::{
    future::{Ready, ready},
    pin::Pin,
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
        http::{
            HeaderMap, Method as HttpMethod, Request, Response, StatusCode, Uri,
            header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue},
        },
    },
};
use tower::{Layer, Service};

use super::{
    MAX_MESSAGE_BYTES, app_state::AppState, authentication::identify, content_type,
    rejection::RejectedRequest, request_log::RequestLog,
};
use crate::{
    auth::AuthError,
    listener::{BudgetShare, MemoryBudget, MemoryReservation, PeerIdentity},
    metrics::{RpcName, RpcOutcome, RpcOutcomeCounters},
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

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
/// Longest `grpc-timeout`: eight digits and a unit.
const MAX_TIMEOUT_BYTES: usize = 9;

/// Admits requests by their headers.
#[derive(Clone, Debug)]
pub struct AdmissionLayer {
    /// Callers at the time of a request.
    pub current: watch::Receiver<Arc<AppState>>,
    /// Counters of answers.
    pub answers: RpcOutcomeCounters,
    /// Memory of all connections.
    pub budget: MemoryBudget,
    /// Reflection services are served.
    pub reflection: bool,
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
    /// True once the handler writes the log lines and counts the answer.
    handled: Arc<AtomicBool>,
}

impl AdmittedCaller {
    /// Leaves the log lines and the count of the answer to the handler.
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
    fn target(&self, path: &str) -> Option<(TargetService, &'static str)> {
        if let Some((rpc, path)) = RpcName::at(path) {
            return Some((TargetService::Call(rpc), path));
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
    fn admit(&self, request: &mut Request<Body>) -> Result<Answering, Box<Response<Body>>> {
        let headers = request.headers();
        let peer = request.extensions().get::<PeerIdentity>();
        let traceparent = headers.get(traces::HEADER);
        let mut rejection = RejectedRequest {
            rpc: RpcName::at(request.uri().path()).map(|(rpc, _)| rpc),
            caller: None,
            from: peer.and_then(|peer| peer.address),
            place: traceparent.and_then(|place| TraceContext::parse(place.to_str().ok()?)),
        };
        let refuse =
            |rejection: &RejectedRequest, answer, cause: &str, response: Response<Body>| {
                rejection.record(&self.answers, answer, cause);
                Box::new(response)
            };

        let media_type = check_protocol(request)
            .map_err(|(outcome, cause, response)| refuse(&rejection, outcome, cause, *response))?;
        let Some((target, path)) = self.target(request.uri().path()) else {
            let cause = "unknown method; the contract is otp.v1.OtpService";
            let response = Status::unimplemented(cause).into_http();
            return Err(refuse(
                &rejection,
                RpcOutcome::UNIMPLEMENTED,
                cause,
                response,
            ));
        };

        let current = Arc::clone(&self.current.borrow());
        let proof = identify(&current.callers, headers, peer);
        let caller = match (target, proof) {
            (_, Ok(caller)) => Some(caller),
            (TargetService::Call(rpc), Err(unknown)) => {
                return Err(Box::new(
                    self.reject_unauthenticated(rpc, &rejection, unknown),
                ));
            }
            (TargetService::Health | TargetService::Reflection, Err(_)) => None,
        };
        rejection.caller.clone_from(&caller);
        if let Some(encoding) = headers.get(GRPC_ENCODING)
            && encoding != IDENTITY
        {
            let cause = "compressed messages are not accepted; send them without compression";
            let mut response: Response<Body> = Status::unimplemented(cause).into_http();
            response
                .headers_mut()
                .insert(GRPC_ACCEPT_ENCODING, IDENTITY);
            return Err(refuse(
                &rejection,
                RpcOutcome::UNIMPLEMENTED,
                cause,
                response,
            ));
        }
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
            let response = Status::from(error).into_http();
            return Err(refuse(&rejection, RpcOutcome::OVERLOADED, cause, response));
        };

        let memory = Arc::new(memory);
        let handled = Arc::new(AtomicBool::new(false));
        let place = rejection.place;
        *request.headers_mut() = kept(headers, media_type);
        *request.uri_mut() = Uri::from_static(path);
        let max_message = match target {
            TargetService::Call(_) => MAX_MESSAGE_BYTES,
            TargetService::Health | TargetService::Reflection => MAX_PUBLIC_MESSAGE_BYTES,
        };
        let extensions = request.extensions_mut();
        extensions.insert(BodyBounds {
            memory: Arc::clone(&memory),
            max_message,
        });
        if let (TargetService::Call(_), Some(caller)) = (target, caller) {
            extensions.insert(AdmittedCaller {
                current,
                caller,
                place,
                handled: Arc::clone(&handled),
            });
        }
        Ok(Answering {
            rejection,
            handled,
            memory,
            answers: self.answers.clone(),
        })
    }

    fn reject_unauthenticated(
        &self,
        rpc: RpcName,
        rejection: &RejectedRequest,
        unknown: AuthError,
    ) -> Response<Body> {
        traces::enter(rejection.place, || {
            RequestLog::unauthenticated(rpc, rejection.from, unknown, &self.answers);
        });
        Status::from(ServiceError::from(unknown)).into_http()
    }
}

/// Returns the media type of a gRPC request.
///
/// # Errors
/// The outcome, its cause and the HTTP response, if the request is not one of gRPC.
fn check_protocol(
    request: &Request<Body>,
) -> Result<&'static str, (RpcOutcome, &'static str, Box<Response<Body>>)> {
    let Some(media_type) = content_type::accepted(request.headers()) else {
        let accept = (ACCEPT, content_type::ACCEPT);
        return Err((
            RpcOutcome::UNSUPPORTED_MEDIA_TYPE,
            "the content type is not accepted",
            Box::new(http_error(StatusCode::UNSUPPORTED_MEDIA_TYPE, accept)),
        ));
    };
    if request.method() != HttpMethod::POST {
        let allow = (ALLOW, HeaderValue::from_static("POST"));
        return Err((
            RpcOutcome::MALFORMED,
            "the HTTP method is not POST",
            Box::new(http_error(StatusCode::METHOD_NOT_ALLOWED, allow)),
        ));
    }
    Ok(media_type)
}

/// Copies the headers that services read. A copy, because a value keeps the whole frame
/// that it came in.
fn kept(headers: &HeaderMap, media_type: &'static str) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(2);
    kept.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    let timeout = headers.get(GRPC_TIMEOUT);
    let timeout = timeout.filter(|timeout| timeout.len() <= MAX_TIMEOUT_BYTES);
    if let Some(timeout) = timeout.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
    {
        kept.insert(GRPC_TIMEOUT, timeout);
    }
    kept
}

fn http_error(status: StatusCode, (name, value): (HeaderName, HeaderValue)) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(name, value);
    response
}

impl<S> Service<Request<Body>> for AdmissionService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, Answered<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.layer.admit(&mut request) {
            Ok(answering) => Either::Right(Answered {
                inner: self.inner.call(request),
                answering,
            }),
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

/// An admitted request that has not been answered yet.
#[derive(Debug)]
struct Answering {
    rejection: RejectedRequest,
    handled: Arc<AtomicBool>,
    memory: Arc<MemoryReservation>,
    answers: RpcOutcomeCounters,
}

/// Records the answer of an admitted request, unless its handler does. The answer keeps
/// the request's memory reserved until it has been sent.
#[derive(Debug)]
pub struct Answered<F> {
    inner: F,
    answering: Answering,
}

impl<F, Error> Future for Answered<F>
where
    F: Future<Output = Result<Response<Body>, Error>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut result = std::task::ready!(Pin::new(&mut self.inner).poll(context));
        if let Ok(response) = &mut result {
            let Answering {
                rejection,
                handled,
                memory,
                answers,
            } = &self.answering;
            if !handled.load(Ordering::Relaxed)
                && let Some(status) = Status::from_header_map(response.headers())
            {
                rejection.record_status(answers, &status);
            }
            response.extensions_mut().insert(Arc::clone(memory));
        }
        Poll::Ready(result)
    }
}
