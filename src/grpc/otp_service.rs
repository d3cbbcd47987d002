//! `otp.v1.OtpService`: each call translated, journalled, and run to its end.

use std::{future::Future, sync::Arc, time::SystemTime};

use tokio::{
    task::JoinError,
    time::{Instant, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::{Code, Request, Response, Status};

use super::{
    admission::AdmittedCaller,
    convert,
    deadline::deadline,
    request_log::RequestLog,
    v1::{self, otp_service_server::OtpService as Contract},
};
use crate::{
    auth::{AuthError, CallerRegistry},
    metrics::{RpcMethod, RpcName, RpcOutcomeCounters},
    service::{DeliveryState, DeliverySummary, OtpService, ServiceError},
    traces::{self, TraceSpan},
};
use otpd_rules::{Channel, Region, Timestamp, VerifyOutcome};

/// What requests are answered with. It may change while otpd runs; each request keeps to
/// its end what it began with.
#[derive(Debug)]
pub struct AppState {
    /// The use cases.
    pub service: OtpService,
    /// Who may call.
    pub callers: Arc<CallerRegistry>,
    /// Where national numbers are read.
    pub default_region: Option<Region>,
}

/// The contract on top of the service.
#[derive(Clone, Debug)]
pub struct OtpGrpc {
    running: TaskTracker,
    ending: CancellationToken,
    answers: RpcOutcomeCounters,
}

/// A request of a caller whom otpd knows.
#[derive(Clone)]
struct RequestContext {
    /// What it is answered with.
    current: Arc<AppState>,
    /// Where it is told.
    journal: RequestLog,
    /// Until when an answer is of use.
    deadline: Instant,
}

impl OtpGrpc {
    /// Creates the contract for requests that were admitted. What runs is counted by
    /// `running`, and what is answered by `answers`. Once `ending` is cancelled, requests
    /// that still wait are answered with `SHUTTING_DOWN`.
    pub fn new(
        running: TaskTracker,
        ending: CancellationToken,
        answers: RpcOutcomeCounters,
    ) -> Self {
        Self {
            running,
            ending,
            answers,
        }
    }

    /// Starts the journal and the span of an admitted request.
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
        let opened = RequestContext {
            current: Arc::clone(&admitted.current),
            journal: RequestLog::new(rpc, caller, self.answers.clone()),
            deadline: deadline(request.metadata()),
        };
        let span = TraceSpan::server_span(admitted.place, RpcMethod::of(rpc).name());
        Ok((span, opened))
    }

    /// Runs a call as a task of its own, so that a panic ends this one request, not the
    /// connection it shares. The call ends with its caller's patience, or when the caller
    /// hangs up: what has been decided by then is done to its end, and nothing else.
    async fn run<T: Send + 'static>(
        &self,
        mut span: TraceSpan,
        RequestContext {
            journal, deadline, ..
        }: RequestContext,
        call: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let gone = journal.unless_answered();
        let call = traces::with_context(span.context(), call);
        let call = AbortOnDropHandle::new(self.running.spawn(call));
        let outcome = tokio::select! {
            // What has been answered is told.
            biased;
            // Sooner than the caller's own time-out, which tells it nothing.
            outcome = timeout_at(deadline, call) => match outcome {
                Ok(outcome) => outcome.unwrap_or_else(|error| Err(join_error(&error))),
                Err(_) => Err(ServiceError::DeadlineExceeded),
            },
            () = self.ending.cancelled() => Err(ServiceError::ShuttingDown),
        };
        gone.answered();
        let refused = |error| traces::enter(span.context(), || journal.refused(error));
        let outcome = outcome.map(Response::new).map_err(refused);
        if span.is_recorded() {
            let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
            journal.annotate_span(&mut span, code);
        }
        outcome
    }
}

/// A call whose task did not end by itself. Tokio would tell what a panic said, which
/// may be the recipient or the code that it is about.
fn join_error(error: &JoinError) -> ServiceError {
    let cause = if error.is_panic() {
        "the call panicked"
    } else {
        "the call was aborted"
    };
    ServiceError::Internal(cause.to_owned())
}

#[tonic::async_trait]
impl Contract for OtpGrpc {
    async fn send_otp(
        &self,
        request: Request<v1::SendOtpRequest>,
    ) -> Result<Response<v1::SendOtpResponse>, Status> {
        let (span, opened) = self.begin_request(RpcName::Send, &request)?;
        self.run(span, opened.clone(), async move {
            let RequestContext {
                current,
                journal,
                deadline,
            } = opened;
            let wish = convert::send(request.get_ref(), current.default_region)?;
            journal.received(Some(&wish.recipient), &wish.purpose);
            let reply = current
                .service
                .send(&journal.caller, &wish, deadline)
                .await?;
            journal.sent(wish.channel, &reply);
            Ok(v1::SendOtpResponse {
                challenge_id: reply.challenge_id.to_string(),
                recipient: wish.recipient.as_str().to_owned(),
                channel: channel(wish.channel).into(),
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
        let (span, opened) = self.begin_request(RpcName::Verify, &request)?;
        self.run(span, opened.clone(), async move {
            let RequestContext {
                current,
                journal,
                deadline,
            } = opened;
            let typed = convert::verify(request.get_ref(), current.default_region)?;
            journal.received(Some(&typed.recipient), &typed.purpose);
            let reply = current
                .service
                .verify(&journal.caller, &typed, deadline)
                .await?;
            journal.verify_completed(&reply);
            let mut response = v1::VerifyOtpResponse {
                challenge_id: reply
                    .challenge_id
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
                recipient: typed.recipient.as_str().to_owned(),
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
            Ok(response)
        })
        .await
    }

    async fn cancel_otp(
        &self,
        request: Request<v1::CancelOtpRequest>,
    ) -> Result<Response<v1::CancelOtpResponse>, Status> {
        let (span, opened) = self.begin_request(RpcName::Cancel, &request)?;
        self.run(span, opened.clone(), async move {
            let RequestContext {
                current,
                journal,
                deadline,
            } = opened;
            let wish = convert::cancel(request.get_ref(), current.default_region)?;
            journal.received(wish.subject.recipient.as_ref(), &wish.subject.purpose);
            let reply = current
                .service
                .cancel(&journal.caller, &wish, deadline)
                .await?;
            journal.cancelled(&reply);
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
        let (span, opened) = self.begin_request(RpcName::Status, &request)?;
        self.run(span, opened.clone(), async move {
            let RequestContext {
                current,
                journal,
                deadline,
            } = opened;
            let subject = convert::status(request.get_ref(), current.default_region)?;
            journal.received(subject.recipient.as_ref(), &subject.purpose);
            let reply = current
                .service
                .status(&journal.caller, &subject, deadline)
                .await?;
            journal.status_returned(&reply);
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
        DeliveryState::Queued => v1::DeliveryState::Queued,
        DeliveryState::Sending => v1::DeliveryState::Sending,
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

/// Last millisecond of the year 9999: later instants are no valid Timestamp of protobuf.
const LAST_INSTANT: Timestamp = Timestamp::from_milliseconds(253_402_300_799_999);

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    SystemTime::from(at.min(LAST_INSTANT)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_message_is_not_returned() {
        let panicked = tokio::spawn(async { panic!("no such recipient: +79991234567") });
        let error = join_error(&panicked.await.unwrap_err());
        assert_eq!(error.to_string(), "the call panicked");
    }
}
