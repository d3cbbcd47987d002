//! Implementation of `otp.v1.OtpService`: converts, logs and runs each call.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::SystemTime};

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status};

use super::{
    admission::AdmittedCaller,
    app_state::AppState,
    convert,
    deadline::deadline,
    protocol::Protocol,
    request_log::RequestLog,
    v1::{self, otp_service_server::OtpService as Contract},
};
use crate::{
    auth::AuthError,
    metrics::{RpcMethod, RpcName, RpcOutcomeCounters},
    service::{DeliverySummary, ReceiptResult, ServiceError},
    traces::{self, TraceSpan},
};
use otpd_rules::{Channel, DeliveryState, Timestamp, VerifyOutcome};

/// gRPC service of the contract.
#[derive(Clone, Debug)]
pub struct OtpGrpc {
    running: TaskTracker,
    ending: CancellationToken,
    outcomes: RpcOutcomeCounters,
}

/// Context of a request of an authenticated caller.
#[derive(Clone)]
struct RequestContext {
    /// State that the request began with.
    current: Arc<AppState>,
    /// Its log lines.
    log: RequestLog,
    protocol: Protocol,
    /// Time after which a response is useless.
    deadline: Instant,
}

impl OtpGrpc {
    /// Creates the service for admitted requests. `running` tracks the calls in progress, and
    /// `outcomes` counts the outcomes. Once `ending` is cancelled, the calls that still wait
    /// fail with `SHUTTING_DOWN`.
    pub fn new(
        running: TaskTracker,
        ending: CancellationToken,
        outcomes: RpcOutcomeCounters,
    ) -> Self {
        Self {
            running,
            ending,
            outcomes,
        }
    }

    /// Starts the log and the span of an admitted request.
    fn begin_request<T>(
        &self,
        rpc: RpcName,
        request: &Request<T>,
    ) -> Result<(TraceSpan, RequestContext), Status> {
        let Some(admitted) = request.extensions().get::<AdmittedCaller>() else {
            return Err(ServiceError::from(AuthError::NoProof).into());
        };
        admitted.take_over();
        let caller = Arc::clone(&admitted.caller);
        let context = RequestContext {
            current: Arc::clone(&admitted.current),
            log: RequestLog::new(rpc, caller, self.outcomes.clone()),
            protocol: admitted.protocol,
            deadline: deadline(request.metadata()),
        };
        let span = TraceSpan::server_span(admitted.place, RpcMethod::of(rpc).name());
        Ok((span, context))
    }

    /// Runs a call so that a panic ends this request only, not the connection that it shares. The
    /// call ends at its deadline, or when the client disconnects. A decision that has been made by
    /// then is still written; nothing else is.
    ///
    /// Not an `async fn`: its future would contain the whole call several times. The call is no
    /// task of its own: tasks are aligned to 128 bytes, and such memory is the most expensive.
    fn run<T: Send + 'static>(
        &self,
        mut span: TraceSpan,
        RequestContext {
            log,
            protocol,
            deadline,
            ..
        }: RequestContext,
        call: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> impl Future<Output = Result<Response<T>, Status>> + Send {
        let call = traces::with_context(span.context(), without_panic(call));
        let call = Box::pin(self.running.track_future(call));
        async move {
            let disconnect_guard = log.unless_answered();
            let outcome = tokio::select! {
                // A result that is ready is returned even if the deadline has passed.
                biased;
                // Earlier than the caller's own timeout, which would give it no reason.
                outcome = timeout_at(deadline, call) => {
                    outcome.unwrap_or(Err(ServiceError::DeadlineExceeded))
                }
                () = self.ending.cancelled() => Err(ServiceError::ShuttingDown),
            };
            disconnect_guard.answered();
            let refused = |error| traces::enter(span.context(), || log.refused(error));
            let outcome = outcome.map(Response::new).map_err(refused);
            if span.is_recorded() {
                let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
                log.annotate_span(&mut span, protocol, code);
            }
            outcome
        }
    }
}

/// Converts a panic of a call to an error. Leaves out its text, which may contain the recipient or
/// the code.
fn without_panic<T>(
    call: impl Future<Output = Result<T, ServiceError>>,
) -> impl Future<Output = Result<T, ServiceError>> {
    let panicked = || ServiceError::Internal("the call panicked".to_owned());
    // All that outlives the call is shared with other calls, which panics must not break either.
    let call = AssertUnwindSafe(call).catch_unwind();
    call.map(move |outcome| outcome.unwrap_or_else(|_| Err(panicked())))
}

#[tonic::async_trait]
impl Contract for OtpGrpc {
    async fn send_otp(
        &self,
        request: Request<v1::SendOtpRequest>,
    ) -> Result<Response<v1::SendOtpResponse>, Status> {
        let (span, context) = self.begin_request(RpcName::Send, &request)?;
        self.run(span, context.clone(), async move {
            let RequestContext {
                current,
                log,
                deadline,
                ..
            } = context;
            let command = convert::send(request.get_ref(), current.default_region)?;
            log.received(Some(&command.recipient), &command.purpose);
            let reply = current
                .service
                .send(&log.caller, &command, deadline)
                .await?;
            log.sent(command.channel, &reply);
            Ok(v1::SendOtpResponse {
                challenge_id: reply.challenge_id.to_string(),
                recipient: command.recipient.as_str().to_owned(),
                channel: channel(command.channel).into(),
                expires_at: Some(timestamp(reply.expires_at)),
                resend_at: Some(timestamp(reply.resend_at)),
                resent: reply.resent,
                code_length: reply.code_length,
                code: reply
                    .code
                    .map(|code| code.expose().to_owned())
                    .unwrap_or_default(),
            })
        })
        .await
    }

    async fn verify_otp(
        &self,
        request: Request<v1::VerifyOtpRequest>,
    ) -> Result<Response<v1::VerifyOtpResponse>, Status> {
        let (span, context) = self.begin_request(RpcName::Verify, &request)?;
        self.run(span, context.clone(), async move {
            let RequestContext {
                current,
                log,
                deadline,
                ..
            } = context;
            let command = convert::verify(request.get_ref(), current.default_region)?;
            log.received(Some(&command.recipient), &command.purpose);
            let reply = current
                .service
                .verify(&log.caller, &command, deadline)
                .await?;
            log.verify_completed(&reply);
            let mut response = v1::VerifyOtpResponse {
                challenge_id: reply
                    .challenge_id
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
                recipient: command.recipient.as_str().to_owned(),
                ..Default::default()
            };
            let outcome = match reply.verdict {
                VerifyOutcome::Verified { at, .. } => {
                    response.verified = true;
                    response.verified_at = Some(timestamp(at));
                    v1::VerifyOutcome::Verified
                }
                VerifyOutcome::WrongCode {
                    attempts_remaining, ..
                } => {
                    response.attempts_remaining = attempts_remaining;
                    v1::VerifyOutcome::WrongCode
                }
                VerifyOutcome::Expired { .. } => v1::VerifyOutcome::Expired,
                VerifyOutcome::AttemptsExhausted { .. } => v1::VerifyOutcome::AttemptsExhausted,
                VerifyOutcome::NotFound => v1::VerifyOutcome::NotFound,
            };
            response.set_outcome(outcome);
            if let Some(ReceiptResult::Issued(receipt)) = reply.receipt {
                response.receipt = receipt.into_text();
            }
            Ok(response)
        })
        .await
    }

    async fn cancel_otp(
        &self,
        request: Request<v1::CancelOtpRequest>,
    ) -> Result<Response<v1::CancelOtpResponse>, Status> {
        let (span, context) = self.begin_request(RpcName::Cancel, &request)?;
        self.run(span, context.clone(), async move {
            let RequestContext {
                current,
                log,
                deadline,
                ..
            } = context;
            let command = convert::cancel(request.get_ref(), current.default_region)?;
            log.received(command.subject.recipient.as_ref(), &command.subject.purpose);
            let reply = current
                .service
                .cancel(&log.caller, &command, deadline)
                .await?;
            log.cancelled(&reply);
            Ok(v1::CancelOtpResponse {
                cancelled: reply.challenge_id.is_some(),
                failures_reset: reply.failures_reset,
            })
        })
        .await
    }

    async fn get_otp_status(
        &self,
        request: Request<v1::GetOtpStatusRequest>,
    ) -> Result<Response<v1::GetOtpStatusResponse>, Status> {
        let (span, context) = self.begin_request(RpcName::Status, &request)?;
        self.run(span, context.clone(), async move {
            let RequestContext {
                current,
                log,
                deadline,
                ..
            } = context;
            let selector = convert::status(request.get_ref(), current.default_region)?;
            log.received(selector.recipient.as_ref(), &selector.purpose);
            let reply = current
                .service
                .status(&log.caller, &selector, deadline)
                .await?;
            log.status_returned(&reply);
            let live = reply.status.live.as_ref();
            Ok(v1::GetOtpStatusResponse {
                live: live.is_some(),
                challenge_id: reply
                    .challenge_id
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
                recipient: reply
                    .recipient
                    .map(|to| to.as_str().to_owned())
                    .unwrap_or_default(),
                expires_at: live.map(|code| timestamp(code.expires_at)),
                resend_at: reply.status.resend_at.map(timestamp),
                attempts_remaining: live.map(|code| code.attempts_remaining).unwrap_or_default(),
                blocked_until: reply.status.block.map(|block| timestamp(block.until)),
                deliveries: reply.deliveries.into_iter().map(delivery).collect(),
            })
        })
        .await
    }
}

fn delivery(delivery: DeliverySummary) -> v1::Delivery {
    let state = match delivery.state {
        DeliveryState::Queued(()) => v1::DeliveryState::Queued,
        DeliveryState::Sending(()) => v1::DeliveryState::Sending,
        DeliveryState::Sent => v1::DeliveryState::Sent,
        DeliveryState::Failed => v1::DeliveryState::Failed,
        DeliveryState::Dropped => v1::DeliveryState::Dropped,
    };
    v1::Delivery {
        provider: delivery.provider,
        channel: channel(delivery.channel).into(),
        state: state.into(),
        created_at: Some(timestamp(delivery.created_at)),
        updated_at: Some(timestamp(delivery.updated_at)),
        attempts: delivery.attempts,
        error: delivery
            .error
            .map(|class| class.name().to_owned())
            .unwrap_or_default(),
    }
}

fn channel(channel: Channel) -> v1::Channel {
    match channel {
        Channel::Sms => v1::Channel::Sms,
        Channel::Email => v1::Channel::Email,
        Channel::Voice => v1::Channel::Voice,
        Channel::WhatsApp => v1::Channel::Whatsapp,
        Channel::Telegram => v1::Channel::Telegram,
    }
}

/// Last millisecond of the year 9999; a later instant is not a valid Timestamp of protobuf.
const LAST_INSTANT: Timestamp = Timestamp::from_milliseconds(253_402_300_799_999);

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    SystemTime::from(at.min(LAST_INSTANT)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_message_is_not_returned() {
        let call = without_panic::<()>(async { panic!("no such recipient: +79991234567") });
        let error = call.await.unwrap_err();
        assert_eq!(error.to_string(), "the call panicked");
    }
}
