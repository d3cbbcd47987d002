//! Responses to requests that do not reach their handler: one log line and one count each.

use std::{net::SocketAddr, sync::Arc};

use tonic::{Code, Status};
use tracing::field::display;

use super::request_log::log_prefix;
use crate::{
    metrics::{RpcName, RpcOutcome, RpcOutcomeCounters, RpcResult},
    reason::Reason,
    traces::{self, TraceContext},
};
use otpd_base::log_targets::UNAUTHENTICATED;
use otpd_rules::Caller;

/// Request that was rejected by its headers.
#[derive(Debug)]
pub(super) struct RejectedRequest {
    /// Method, if it is part of the contract.
    pub rpc: Option<RpcName>,
    /// Caller, if it was authenticated.
    pub caller: Option<Arc<Caller>>,
    pub from: Option<SocketAddr>,
    pub place: Option<TraceContext>,
}

impl RejectedRequest {
    /// Logs the response and counts it. `cause` never contains text from the request.
    pub fn record(
        &self,
        outcomes: &RpcOutcomeCounters,
        outcome: impl Into<RpcOutcome>,
        cause: &str,
    ) {
        let outcome = outcome.into();
        let caller = self.caller.as_ref().map(|caller| &caller.name);
        outcomes.count_rejection(self.rpc, caller, outcome);
        let rpc = self.rpc.map_or("other", RpcName::name);
        let reason = outcome.name();
        traces::enter(self.place, || {
            if let (Some(caller), Some(known)) = (caller, self.rpc) {
                let mark = log_prefix(known);
                tracing::info!(%rpc, %caller, reason, cause, "{mark} Request refused");
            } else {
                let from = self.from.map(display);
                tracing::warn!(target: UNAUTHENTICATED, %rpc, from, reason, cause, "[OTP AUDIT] Request refused");
            }
        });
    }

    /// Does the same for the status of a response without a message; `OK` is not logged.
    pub fn record_status(&self, outcomes: &RpcOutcomeCounters, status: &Status) {
        let outcome: RpcOutcome = match status.code() {
            Code::Ok => return,
            Code::InvalidArgument => Reason::RequestInvalid.into(),
            Code::DeadlineExceeded => Reason::DeadlineExceeded.into(),
            Code::Unavailable => Reason::Overloaded.into(),
            Code::Unimplemented => RpcResult::Unimplemented.into(),
            Code::NotFound => RpcResult::NotFound.into(),
            _ => RpcResult::Malformed.into(),
        };
        self.record(outcomes, outcome, status.message());
    }
}
