//! Calls.

/// Identity of a record: indexes into the callers and policies of
/// [`Settings`](crate::Settings), and a recipient in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Index of the caller.
    pub caller: usize,
    /// Index of the purpose.
    pub purpose: usize,
    /// Recipient in canonical form.
    pub recipient: String,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Record that the call is about.
    pub record: RecordId,
    /// The `request_id`, if any.
    pub request_id: Option<String>,
    /// Command of the call.
    pub command: Command,
}

/// Command of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `SendOtp`.
    Send {
        /// Number that stands for all fields that affect the reply only by their identity,
        /// such as the locale.
        content: u8,
        /// Number that stands for the channel of the message.
        channel: u8,
        /// Client network: four groups of an IPv6 address.
        network: Option<String>,
    },
    /// `VerifyOtp`.
    Verify {
        /// Submitted code.
        code: String,
        /// Challenge id of the request, if any.
        challenge: Option<String>,
        /// Client network: four groups of an IPv6 address.
        network: Option<String>,
        /// Number that stands for the fields of the receipt, if the request asks for one.
        receipt: Option<u8>,
    },
    /// `CancelOtp`.
    Cancel {
        /// Challenge id of the request, if any.
        challenge: Option<String>,
        /// True to reset the failed attempts, too.
        reset_failures: bool,
        /// True if the challenge id alone selects the code.
        by_challenge: bool,
    },
    /// `GetOtpStatus`.
    Status {
        /// Challenge id of the request, if any.
        challenge: Option<String>,
        /// True if the challenge id alone selects the code.
        by_challenge: bool,
    },
}

/// Outcome of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The code was correct.
    Verified,
    /// The code was wrong.
    WrongCode,
    /// The code had expired.
    Expired,
    /// The code had its last attempt before.
    AttemptsExhausted,
    /// There was no code.
    NotFound,
}
