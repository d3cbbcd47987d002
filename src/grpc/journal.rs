//! The lines that people find with `logs | grep OTP`: one for each step of a
//! request, the recipient masked, a failure with its cause.

use std::fmt;

use crate::{
    domain::{Channel, Purpose, Recipient, Verdict},
    service::{SendReply, ServiceError, VerifyReply},
};

/// Which lines a request's are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Journal {
    Send,
    Verify,
    Cancel,
    Status,
}

impl fmt::Display for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Verify => "[OTP VERIFY]",
            Self::Send | Self::Cancel | Self::Status => "[OTP]",
        })
    }
}

impl Journal {
    const fn rpc(self) -> &'static str {
        match self {
            Self::Send => "SendOtp",
            Self::Verify => "VerifyOtp",
            Self::Cancel => "CancelOtp",
            Self::Status => "GetOtpStatus",
        }
    }

    pub fn received(self, recipient: Option<&Recipient>, purpose: &Purpose) {
        let rpc = tracing::field::display(self.rpc());
        if let Some(recipient) = recipient {
            tracing::info!(rpc, %recipient, %purpose, "{self} Request received");
        } else {
            tracing::info!(rpc, %purpose, "{self} Request received");
        }
    }

    pub fn sent(self, recipient: &Recipient, channel: Channel, reply: &SendReply) {
        let step = if reply.resent {
            "OTP sent again"
        } else {
            "OTP sent"
        };
        tracing::info!(%recipient, %channel, challenge_id = %reply.challenge_id, "{self} {step}");
    }

    pub fn judged(self, recipient: &Recipient, reply: &VerifyReply) {
        match reply.verdict {
            Verdict::Verified { .. } => {
                tracing::info!(%recipient, "{self} OTP verified successfully");
            }
            Verdict::WrongCode {
                attempts_remaining, ..
            } => {
                tracing::info!(%recipient, attempts_remaining, "{self} wrong code");
            }
            Verdict::Expired { .. } => tracing::info!(%recipient, "{self} OTP expired"),
            Verdict::AttemptsExhausted { .. } => {
                tracing::info!(%recipient, "{self} attempts exhausted");
            }
            Verdict::NotFound => tracing::info!(%recipient, "{self} no live OTP"),
        }
    }

    pub fn cancelled(self, recipient: Option<&Recipient>, cancelled: bool) {
        let recipient = recipient.map(tracing::field::display);
        let step = if cancelled {
            "OTP cancelled"
        } else {
            "no live OTP to cancel"
        };
        tracing::info!(recipient, "{self} {step}");
    }

    pub fn told(self, recipient: Option<&Recipient>, live: bool) {
        let recipient = recipient.map(tracing::field::display);
        tracing::info!(recipient, live, "{self} Status told");
    }

    /// A request that got no reply. A store that does not answer has its own line,
    /// one for the cause and not one for each request.
    pub fn refused(self, recipient: Option<&Recipient>, error: &ServiceError) {
        let (rpc, (_, reason)) = (self.rpc(), error.code_and_reason());
        let (rpc, reason) = (
            tracing::field::display(rpc),
            tracing::field::display(reason),
        );
        let recipient = recipient.map(tracing::field::display);
        match error {
            ServiceError::StoreUnavailable => {
                tracing::debug!(rpc, recipient, reason, "{self} Request refused");
            }
            ServiceError::Internal(cause) => {
                tracing::error!(rpc, recipient, reason, cause, "{self} Request failed");
            }
            error => {
                tracing::info!(rpc, recipient, reason, cause = %error, "{self} Request refused");
            }
        }
    }
}
