//! The rules of a code, as pure functions of (record, request, policy, now,
//! random): no I/O, no clock, nothing of the rest of the crate.
//!
//! [`send()`], [`verify()`], [`cancel()`] and [`status()`] decide; each returns a
//! [`Decision`]: what to answer, and what to write. [`record::Record`] is what is
//! decided about.

mod caller;
mod cancel;
mod channel;
mod code;
mod country;
mod decision;
mod destination;
mod failures;
mod history;
mod ignorable;
mod limit;
mod limit_update;
mod memory;
mod message;
mod network;
mod policy;
mod purpose;
mod recipient;
mod record;
mod send;
mod status;
mod test_recipient;
#[cfg(test)]
mod tests;
mod time;
mod verify;

pub use caller::{Caller, CallerName};
pub use cancel::{CancelRequest, Cancelled, Reused, cancel};
pub use channel::Channel;
pub use code::{Code, CodeError, TypedCode};
pub use country::Country;
pub use decision::Decision;
pub use destination::{Destination, DestinationError, Destinations};
pub use failures::{Block, Failures};
pub use history::{Attempt, ErrorClass, History, MAX_LOGGED_ATTEMPTS, PossibleCopies};
pub use ignorable::is_ignorable;
pub use limit::{Exceeded, LimitName, Rate, SharedLimit};
pub use limit_update::{BatchedLimit, LimitCharge, LimitDelta, LimitUpdate};
pub use memory::{Answer, Memory, Recalled, RequestIdentity};
pub use message::{Content, Message, MessageId, MessageState, Then};
pub use network::{site_network, subscriber_network};
pub use policy::{Policies, Policy, PolicyError};
pub use purpose::{Purpose, PurposeError};
pub use recipient::{Recipient, RecipientError, Region, RegionError};
pub use record::{
    Challenge, ChallengeFilter, ChallengeId, ChallengeNonce, ChallengeState, LimitKey, Record,
    RecordKey, Secret, SendLimits,
};
pub use send::{Barred, MessageRequest, SendRefusal, SendRequest, Sent, send};
pub use status::{LastSend, LiveCode, Status, status};
pub use test_recipient::TestRecipient;
pub use time::Timestamp;
pub use verify::{Verdict, VerifyRefusal, VerifyRequest, verify};

#[cfg(test)]
mod limits_in_any_order;
