//! Reasons for which a request is refused. Callers, metrics and the log use the same names;
//! docs/errors.md describes the actions of a caller.

use crate::labels::label_enum;

label_enum! {
    /// Reason of a refusal, as the contract names it. Each has one gRPC status.
    pub enum Reason {
        /// The recipient is invalid.
        RecipientInvalid = "RECIPIENT_INVALID",
        /// The purpose is invalid.
        PurposeInvalid = "PURPOSE_INVALID",
        /// The submitted code is malformed.
        CodeMalformed = "CODE_MALFORMED",
        /// Another field is invalid, or the message cannot be read or is too long.
        RequestInvalid = "REQUEST_INVALID",
        /// The caller is not authenticated.
        CallerUnknown = "CALLER_UNKNOWN",
        /// The caller may not use the purpose.
        PurposeNotAllowed = "PURPOSE_NOT_ALLOWED",
        /// The caller may not send to the destination.
        DestinationBlocked = "DESTINATION_BLOCKED",
        /// The caller may not reset failed attempts.
        ResetNotAllowed = "RESET_NOT_ALLOWED",
        /// No provider is configured for the channel and destination.
        NoRoute = "NO_ROUTE",
        /// The cool-down since the last send is not over.
        ResendTooSoon = "RESEND_TOO_SOON",
        /// A rate limit of sends has no room.
        SendLimit = "SEND_LIMIT",
        /// A rate limit of failed attempts has no room.
        VerifyLimit = "VERIFY_LIMIT",
        /// Too many failed attempts: the next one has to wait.
        VerifyDelayed = "VERIFY_DELAYED",
        /// Lockout after the maximum number of failed attempts.
        VerifyLocked = "VERIFY_LOCKED",
        /// The store does not answer in time.
        StoreUnavailable = "STORE_UNAVAILABLE",
        /// More requests wait than can be answered in time, or the memory budget of all
        /// connections is used up.
        Overloaded = "OVERLOADED",
        /// The server shut down before the request finished.
        ShuttingDown = "SHUTTING_DOWN",
        /// The deadline has passed, or the message did not arrive in time.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// Internal error.
        Internal = "INTERNAL",
    }
}
