//! Log lines of a request, found with `logs | grep OTP`: one for each step, with the
//! recipient masked and the cause of a failure. Lines for auditors are marked `[OTP AUDIT]`.
//! Each response is counted together with its log line.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use tonic::{Code, Status};
use tracing::field::{DisplayValue, display};

use super::{connect, protocol::Protocol};
use crate::{
    auth::AuthError,
    metrics::{
        ReceiptOutcome, RpcMethod, RpcName, RpcOutcome, RpcOutcomeCounters, RpcResult, code_name,
    },
    service::{CancelReply, ReceiptResult, SendReply, ServiceError, StatusReply, VerifyReply},
    traces::TraceSpan,
};
use otpd_base::log_targets::{AUDIT, UNAUTHENTICATED};
use otpd_rules::{Caller, Channel, Purpose, Recipient, VerifyOutcome};

/// Returns the prefix of the log lines of an RPC.
pub(super) const fn log_prefix(rpc: RpcName) -> &'static str {
    match rpc {
        RpcName::Verify => "[OTP VERIFY]",
        RpcName::Send | RpcName::Cancel | RpcName::Status => "[OTP]",
    }
}

/// Log of one request.
#[derive(Clone, Debug)]
pub(super) struct RequestLog {
    /// Caller of the request.
    pub caller: Arc<Caller>,
    rpc: RpcName,
    /// Shared by all clones.
    known: Arc<RequestLogState>,
    outcomes: RpcOutcomeCounters,
}

/// State of a request, filled in as it proceeds.
#[derive(Debug, Default)]
struct RequestLogState {
    /// Recipient and purpose, set once the request has been parsed.
    subject: OnceLock<(Option<Recipient>, Purpose)>,
    /// Outcome, set once.
    outcome: OnceLock<RpcOutcome>,
}

impl RequestLog {
    pub fn new(rpc: RpcName, caller: Arc<Caller>, outcomes: RpcOutcomeCounters) -> Self {
        Self {
            caller,
            rpc,
            known: Arc::default(),
            outcomes,
        }
    }

    /// Logs and counts a failed authentication.
    pub fn unauthenticated(
        rpc: RpcName,
        from: Option<SocketAddr>,
        unknown: AuthError,
        outcomes: &RpcOutcomeCounters,
    ) {
        outcomes.unknown(unknown.name());
        let (rpc, from) = (rpc.name(), from.map(display));
        tracing::warn!(target: UNAUTHENTICATED, %rpc, from, cause = %unknown, "[OTP AUDIT] Authentication failed");
    }

    /// Returns the recipient, masked, if it is known.
    fn recipient(&self) -> Option<DisplayValue<&Recipient>> {
        let (recipient, _) = self.known.subject.get()?;
        recipient.as_ref().map(display)
    }

    /// Counts the outcome of a request, only the first time: a disconnect or a timeout may
    /// coincide with another outcome.
    fn count(&self, outcome: impl Into<RpcOutcome>) {
        let outcome = outcome.into();
        if self.known.outcome.set(outcome).is_err() {
            return;
        }
        let purpose = self.known.subject.get().map(|(_, purpose)| purpose);
        let caller = &self.caller.name;
        self.outcomes.count(self.rpc, caller, purpose, outcome);
    }

    /// Adds the outcome to the span of the request.
    pub fn annotate_span(&self, span: &mut TraceSpan, protocol: Protocol, code: Code) {
        span.set_attribute("rpc.system.name", protocol.system_name());
        span.set_attribute("rpc.method", RpcMethod::of(self.rpc).name());
        let code_name = match protocol {
            Protocol::Connect(_) => connect::code_name(code),
            Protocol::Grpc(_) | Protocol::GrpcWeb(_) => code_name(i32::from(code)),
        };
        span.set_attribute("rpc.response.status_code", code_name);
        span.set_attribute("otpd.caller", self.caller.name.as_str().to_owned());
        if let Some((_, purpose)) = self.known.subject.get() {
            span.set_attribute("otpd.purpose", purpose.as_str().to_owned());
        }
        if let Some(outcome) = self.known.outcome.get() {
            span.set_attribute("otpd.outcome", outcome.name());
        }
        // Codes that count as server errors by OpenTelemetry's conventions for gRPC servers.
        if matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            span.fail(code_name);
        }
    }

    pub fn received(&self, recipient: Option<&Recipient>, purpose: &Purpose) {
        // Cannot be set already, because a request is parsed once.
        let _ = self
            .known
            .subject
            .set((recipient.cloned(), purpose.clone()));
        let (mark, rpc, recipient) = (log_prefix(self.rpc), self.rpc.name(), self.recipient());
        let caller = &self.caller.name;
        tracing::info!(%rpc, %caller, recipient, %purpose, "{mark} Request received");
    }

    pub fn sent(&self, channel: Channel, reply: &SendReply) {
        let (step, result) = match (&reply.code, reply.resent) {
            (Some(_), _) => ("OTP given to the caller", RpcResult::SelfDelivered),
            (None, false) => ("OTP queued", RpcResult::Sent),
            (None, true) => ("OTP queued again", RpcResult::Resent),
        };
        self.count(result);
        let (mark, recipient, challenge_id) =
            (log_prefix(self.rpc), self.recipient(), &reply.challenge_id);
        tracing::info!(recipient, %channel, %challenge_id, "{mark} {step}");
    }

    pub fn verify_completed(&self, reply: &VerifyReply) {
        let (mark, recipient) = (log_prefix(self.rpc), self.recipient());
        match reply.verdict {
            VerifyOutcome::Verified { .. } => {
                tracing::info!(recipient, "{mark} OTP verified successfully");
            }
            VerifyOutcome::WrongCode {
                attempts_remaining, ..
            } => {
                tracing::info!(recipient, attempts_remaining, "{mark} wrong code");
            }
            VerifyOutcome::Expired { .. } => tracing::info!(recipient, "{mark} OTP expired"),
            VerifyOutcome::AttemptsExhausted { .. } => {
                tracing::info!(recipient, "{mark} attempts exhausted");
            }
            VerifyOutcome::NotFound => tracing::info!(recipient, "{mark} no active code"),
        }
        self.count(match reply.verdict {
            VerifyOutcome::Verified { .. } => RpcResult::Verified,
            VerifyOutcome::WrongCode { .. } => RpcResult::WrongCode,
            VerifyOutcome::Expired { .. } => RpcResult::Expired,
            VerifyOutcome::AttemptsExhausted { .. } => RpcResult::AttemptsExhausted,
            VerifyOutcome::NotFound => RpcResult::NotFound,
        });
        if let Some(receipt) = &reply.receipt {
            self.receipt_completed(receipt);
        }
        if let Some(block) = reply.lockout {
            self.outcomes.lockout(block.locked, &self.caller.name);
        }
    }

    /// Logs and counts the result of a request for a receipt.
    fn receipt_completed(&self, receipt: &ReceiptResult) {
        let (mark, recipient) = (log_prefix(self.rpc), self.recipient());
        let caller = &self.caller.name;
        let outcome = match receipt {
            ReceiptResult::Issued(_) => {
                tracing::info!(recipient, "{mark} Receipt issued");
                ReceiptOutcome::Issued
            }
            ReceiptResult::Withheld => {
                tracing::info!(
                    recipient,
                    "{mark} Receipt withheld: no channel is known to have carried the code, or it has expired"
                );
                ReceiptOutcome::Withheld
            }
            ReceiptResult::Failed(cause) => {
                tracing::error!(%caller, recipient, %cause, "{mark} Receipt could not be signed");
                ReceiptOutcome::Failed
            }
        };
        self.outcomes.receipt(outcome, caller);
    }

    pub fn cancelled(&self, reply: &CancelReply) {
        let (mark, recipient) = (log_prefix(self.rpc), self.recipient());
        let (step, result) = if reply.challenge_id.is_some() {
            ("OTP cancelled", RpcResult::Cancelled)
        } else {
            ("no active code to cancel", RpcResult::NoActiveCode)
        };
        self.count(result);
        tracing::info!(recipient, "{mark} {step}");
        if reply.failures_reset {
            let caller = &self.caller.name;
            self.outcomes.reset(caller);
            tracing::warn!(target: AUDIT, %caller, recipient, "[OTP AUDIT] Failed-attempt counter reset");
        }
    }

    pub fn status_returned(&self, reply: &StatusReply) {
        let recipient = reply.recipient.as_ref().map(display);
        let (mark, live) = (log_prefix(self.rpc), reply.status.live.is_some());
        self.count(RpcResult::StatusReturned);
        tracing::info!(recipient, live, "{mark} Status returned");
    }

    /// Returns a guard that logs a disconnect of the client, unless the request is answered.
    pub fn unless_answered(&self) -> DisconnectGuard<'_> {
        DisconnectGuard(Some(self))
    }

    fn client_disconnected(&self) {
        let (mark, rpc, recipient) = (log_prefix(self.rpc), self.rpc.name(), self.recipient());
        let caller = &self.caller.name;
        self.count(RpcResult::ClientDisconnected);
        tracing::info!(%rpc, %caller, recipient, "{mark} Client disconnected before response");
    }

    /// Logs and counts a refused request, and returns its status. If the store is unavailable,
    /// the line is at debug level, because the outage itself has one line for all requests.
    pub fn refused(&self, error: ServiceError) -> Status {
        let (mark, rpc, recipient) = (log_prefix(self.rpc), self.rpc.name(), self.recipient());
        let caller = &self.caller.name;
        let reason = error.reason();
        self.count(reason);
        if let ServiceError::SendLimit(exceeded) | ServiceError::VerifyLimit(exceeded) = &error {
            self.outcomes.limited(exceeded.limit, caller);
        }
        let reason = display(reason.name());
        match &error {
            ServiceError::StoreUnavailable => {
                tracing::debug!(%rpc, %caller, recipient, reason, "{mark} Request refused");
            }
            ServiceError::Internal(cause) => {
                tracing::error!(%rpc, %caller, recipient, reason, cause, "{mark} Request failed");
            }
            ServiceError::PurposeNotAllowed(_)
            | ServiceError::DestinationBlocked
            | ServiceError::ResetNotAllowed => {
                tracing::warn!(target: AUDIT, %rpc, %caller, recipient, reason, "[OTP AUDIT] Request refused");
            }
            cause => {
                tracing::info!(%rpc, %caller, recipient, reason, %cause, "{mark} Request refused");
            }
        }
        error.into()
    }
}

/// Logs a disconnect of the client when it is dropped.
pub(super) struct DisconnectGuard<'a>(Option<&'a RequestLog>);

impl DisconnectGuard<'_> {
    /// Disarms the guard, because the request has been answered.
    pub fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for DisconnectGuard<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.0 {
            log.client_disconnected();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{LabelValues as Names, Metrics};
    use otpd_rules::PolicySet;

    #[test]
    fn disconnect_during_response_is_counted_once() {
        let metrics = Metrics::new(&Names::default());
        let caller = Arc::new(Caller::development(PolicySet::default()));
        let log = RequestLog::new(RpcName::Cancel, caller, metrics.outcomes.clone());
        log.cancelled(&CancelReply {
            challenge_id: None,
            failures_reset: false,
        });
        drop(log.unless_answered());
        let text = metrics
            .prometheus()
            .expect("writing to a string cannot fail");
        let counted: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("otpd_requests_total{"))
            .collect();
        assert_eq!(counted.len(), 1, "{counted:?}");
        assert!(counted[0].contains("no_active_code"), "{counted:?}");
    }
}
