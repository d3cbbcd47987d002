//! Names of RPCs and of their outcomes, as the metrics, the spans and the log have them.

use crate::{labels::label_enum, reason::Reason};

label_enum! {
    /// RPC of the contract.
    pub enum RpcName {
        /// `SendOtp`.
        Send = "SendOtp",
        /// `VerifyOtp`.
        Verify = "VerifyOtp",
        /// `CancelOtp`.
        Cancel = "CancelOtp",
        /// `GetOtpStatus`.
        Status = "GetOtpStatus",
    }
}

impl RpcName {
    /// Returns the RPC at a path, such as `/otp.v1.OtpService/SendOtp`, and the path.
    pub fn at(path: &str) -> Option<(Self, &'static str)> {
        const PATHS: [(RpcName, &str); 4] = [
            (RpcName::Send, "/otp.v1.OtpService/SendOtp"),
            (RpcName::Verify, "/otp.v1.OtpService/VerifyOtp"),
            (RpcName::Cancel, "/otp.v1.OtpService/CancelOtp"),
            (RpcName::Status, "/otp.v1.OtpService/GetOtpStatus"),
        ];
        PATHS.into_iter().find(|(_, known)| *known == path)
    }
}

label_enum! {
    /// Result of a request that was not refused for a [`Reason`].
    pub enum RpcResult {
        /// A new code and its message were written.
        Sent = "sent",
        /// The same code was sent again.
        Resent = "resent",
        /// The code was returned to a caller that delivers it itself.
        SelfDelivered = "self_delivered",
        /// The submitted code was correct.
        Verified = "verified",
        /// The submitted code was wrong.
        WrongCode = "wrong_code",
        /// The code had expired.
        Expired = "expired",
        /// The code had used up its attempts.
        AttemptsExhausted = "attempts_exhausted",
        /// The record had no code, or the service of the request does not know what it asks for.
        NotFound = "not_found",
        /// A code was cancelled.
        Cancelled = "cancelled",
        /// The record had no active code to cancel.
        NoActiveCode = "no_active_code",
        /// A status was returned.
        StatusReturned = "ok",
        /// The client disconnected before the response.
        ClientDisconnected = "client_disconnected",
        /// The content type is not accepted.
        UnsupportedMediaType = "unsupported_media_type",
        /// The method does not exist, or the message is compressed.
        Unimplemented = "unimplemented",
        /// The request breaks its protocol, such as one of gRPC without a message.
        Malformed = "malformed",
        /// The request is one that a web page could send: its origin or its host is not allowed.
        Forbidden = "forbidden",
    }
}

label_enum! {
    /// Outcome of a request for a receipt, with a correct code.
    pub enum ReceiptOutcome {
        /// It was issued.
        Issued = "issued",
        /// There is none for this code, or it has expired.
        Withheld = "withheld",
        /// It could not be signed.
        Failed = "failed",
    }
}

/// Outcome of a request: its result, or the reason of its refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcOutcome {
    /// The request was not refused for a reason of the contract.
    Result(RpcResult),
    /// The request was refused.
    Refused(Reason),
}

impl RpcOutcome {
    /// Returns the names of all outcomes, in the order of their numbers.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        RpcResult::names().chain(Reason::names())
    }

    /// Returns the position of its name in [`names`](Self::names).
    pub(super) const fn number(self) -> usize {
        match self {
            Self::Result(result) => result as usize,
            Self::Refused(reason) => RpcResult::ALL.len() + reason as usize,
        }
    }

    /// Returns its label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Result(result) => result.name(),
            Self::Refused(reason) => reason.name(),
        }
    }
}

impl From<RpcResult> for RpcOutcome {
    fn from(result: RpcResult) -> Self {
        Self::Result(result)
    }
}

impl From<Reason> for RpcOutcome {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_an_outcome_is_the_position_of_its_name() {
        let results = RpcResult::ALL.iter().copied().map(RpcOutcome::from);
        let all = results.chain(Reason::ALL.iter().copied().map(RpcOutcome::from));
        let names: Vec<&str> = RpcOutcome::names().collect();
        for outcome in all {
            assert_eq!(names[outcome.number()], outcome.name());
        }
    }
}
