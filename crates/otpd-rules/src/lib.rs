//! Rules of a code, as pure functions of (record, request, policy, now, random). They do
//! no I/O, read no clock and use nothing of the rest of the crate.
//!
//! [`decide`] decides about a [`Command`]; [`send()`], [`verify()`], [`cancel()`] and
//! [`status()`] about one kind of it each. They return a [`Decision`]: the outcome, and the
//! record, message and rate limit charge to be written.

mod attempt_log;
mod caller;
mod cancel;
mod channel;
mod channel_set;
mod code;
mod command;
mod country;
mod decision;
mod destination;
mod failure_counter;
pub mod guard;
mod idempotency;
mod ignorable;
mod message;
mod network;
mod policy;
mod purpose;
mod rate_limit;
mod rate_limit_update;
mod receipt;
mod recipient;
mod record;
mod send;
mod send_limits;
mod status;
mod test_recipient;
#[cfg(test)]
mod tests;
mod time;
mod verify;

pub use attempt_log::{
    AttemptLog, DeliveryErrorKind, LoggedAttempt, MAX_LOGGED_ATTEMPTS, PossibleCopies,
};
pub use caller::{Caller, CallerName};
pub use cancel::{CancelOutcome, CancelRequest, cancel};
pub use channel::Channel;
pub use channel_set::ChannelSet;
pub use code::{CodeError, OtpCode, SubmittedCode};
pub use command::{Command, Context, State, decide};
pub use country::CountryCode;
pub use decision::{Decision, Outcome, Refusal};
pub use destination::{DestinationError, DestinationPolicy, RecipientPattern};
pub use failure_counter::{FailureCounter, Lockout};
pub use idempotency::{IdempotencyLog, IdempotencyLookup, RecordedOutcome, RequestFingerprint};
pub use ignorable::is_ignorable;
pub use message::{
    DeliveryState, MessageId, MessagePayload, MessageState, NextState, OutboxMessage,
};
pub use network::{site_network, subscriber_network};
pub use policy::{PolicyError, PolicySet, PurposePolicy};
pub use purpose::{Purpose, PurposeError};
pub use rate_limit::{Quota, RateLimitKind, RateLimitState, RateLimited};
pub use rate_limit_update::{BatchedLimit, LimitCharge, LimitDelta, LimitUpdate};
pub use receipt::ReceiptGrant;
pub use recipient::{Recipient, RecipientError, Region, RegionError};
pub use record::{
    Challenge, ChallengeId, ChallengeNonce, ChallengeSecret, ChallengeSelector, ChallengeState,
    LimitKey, Record, RecordKey,
};
pub use send::{MessageRequest, SendOutcome, SendRequest, Undeliverable, send};
pub use send_limits::SendLimits;
pub use status::{CodeStatus, LastSend, LiveCode, status};
pub use test_recipient::TestRecipient;
pub use time::Timestamp;
pub use verify::{VerifyEffects, VerifyOutcome, VerifyRequest, verify};
