//! The lines that people find with `logs | grep OTP`: one for each step of a
//! request, the recipient masked, a failure with its cause. What an auditor looks for
//! is marked `[OTP AUDIT]`.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use tonic::Status;
use tracing::field::{DisplayValue, display};

use crate::{
    callers::Unknown,
    domain::{Caller, Channel, Purpose, Recipient, Verdict},
    service::{CancelReply, SendReply, ServiceError, StatusReply, VerifyReply},
};

/// The RPCs of the contract.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rpc {
    Send,
    Verify,
    Cancel,
    Status,
}

impl Rpc {
    /// What marks its lines.
    const fn mark(self) -> &'static str {
        match self {
            Self::Verify => "[OTP VERIFY]",
            Self::Send | Self::Cancel | Self::Status => "[OTP]",
        }
    }
}

impl fmt::Display for Rpc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Send => "SendOtp",
            Self::Verify => "VerifyOtp",
            Self::Cancel => "CancelOtp",
            Self::Status => "GetOtpStatus",
        })
    }
}

/// The lines of one request.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    /// Who makes it.
    pub caller: Arc<Caller>,
    rpc: Rpc,
    /// Known once the request has been read; shared by all clones.
    recipient: Arc<OnceLock<Recipient>>,
}

impl Journal {
    pub fn new(rpc: Rpc, caller: Arc<Caller>) -> Self {
        Self {
            caller,
            rpc,
            recipient: Arc::default(),
        }
    }

    /// A request of nobody whom otpd knows.
    pub fn turned_away(rpc: Rpc, from: Option<SocketAddr>, unknown: Unknown) {
        let from = from.map(display);
        tracing::warn!(%rpc, from, cause = %unknown, "[OTP AUDIT] Caller unknown");
    }

    /// The masked recipient, once it is known.
    fn recipient(&self) -> Option<DisplayValue<&Recipient>> {
        self.recipient.get().map(display)
    }

    pub fn received(&self, recipient: Option<&Recipient>, purpose: &Purpose) {
        if let Some(recipient) = recipient {
            // A request is read once.
            let _ = self.recipient.set(recipient.clone());
        }
        let (mark, rpc, recipient) = (self.rpc.mark(), self.rpc, self.recipient());
        let caller = &self.caller.name;
        tracing::info!(%rpc, %caller, recipient, %purpose, "{mark} Request received");
    }

    pub fn sent(&self, channel: Channel, reply: &SendReply) {
        let step = match (&reply.code, reply.resent) {
            (Some(_), _) => "OTP given to the caller",
            (None, false) => "OTP queued",
            (None, true) => "OTP queued again",
        };
        let (mark, recipient, challenge_id) =
            (self.rpc.mark(), self.recipient(), &reply.challenge_id);
        tracing::info!(recipient, %channel, %challenge_id, "{mark} {step}");
    }

    pub fn judged(&self, reply: &VerifyReply) {
        let (mark, recipient) = (self.rpc.mark(), self.recipient());
        match reply.verdict {
            Verdict::Verified { .. } => {
                tracing::info!(recipient, "{mark} OTP verified successfully");
            }
            Verdict::WrongCode {
                attempts_remaining, ..
            } => {
                tracing::info!(recipient, attempts_remaining, "{mark} wrong code");
            }
            Verdict::Expired { .. } => tracing::info!(recipient, "{mark} OTP expired"),
            Verdict::AttemptsExhausted { .. } => {
                tracing::info!(recipient, "{mark} attempts exhausted");
            }
            Verdict::NotFound => tracing::info!(recipient, "{mark} no live OTP"),
        }
    }

    pub fn cancelled(&self, reply: &CancelReply) {
        let (mark, recipient) = (self.rpc.mark(), self.recipient());
        let step = if reply.challenge_id.is_some() {
            "OTP cancelled"
        } else {
            "no live OTP to cancel"
        };
        tracing::info!(recipient, "{mark} {step}");
        if reply.failures_reset {
            let caller = &self.caller.name;
            tracing::warn!(%caller, recipient, "[OTP AUDIT] Failures reset");
        }
    }

    pub fn told(&self, reply: &StatusReply) {
        let recipient = reply.recipient.as_ref().map(display);
        let (mark, live) = (self.rpc.mark(), reply.status.live.is_some());
        tracing::info!(recipient, live, "{mark} Status told");
    }

    /// Notes that the caller has gone, unless it is told that there was an answer.
    pub fn unless_answered(&self) -> UnlessAnswered<'_> {
        UnlessAnswered(Some(self))
    }

    fn gone(&self) {
        let (mark, rpc, recipient) = (self.rpc.mark(), self.rpc, self.recipient());
        let caller = &self.caller.name;
        tracing::info!(%rpc, %caller, recipient, "{mark} Caller gone before the answer");
    }

    /// A request that gets no reply, and the status that it gets. A store that does
    /// not answer has its own line, one for the cause and not one for each request.
    pub fn refused(&self, error: ServiceError) -> Status {
        let (mark, rpc, recipient) = (self.rpc.mark(), self.rpc, self.recipient());
        let caller = &self.caller.name;
        let reason = display(error.code_and_reason().1);
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
                tracing::warn!(%rpc, %caller, recipient, reason, "[OTP AUDIT] Request refused");
            }
            cause => {
                tracing::info!(%rpc, %caller, recipient, reason, %cause, "{mark} Request refused");
            }
        }
        error.into()
    }
}

/// Says, when it is dropped, that the caller has gone.
pub(super) struct UnlessAnswered<'a>(Option<&'a Journal>);

impl UnlessAnswered<'_> {
    /// There is an answer.
    pub fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for UnlessAnswered<'_> {
    fn drop(&mut self) {
        if let Some(journal) = self.0 {
            journal.gone();
        }
    }
}
