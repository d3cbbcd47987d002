//! The rules of a code, as pure functions of (record, request, policy, now,
//! random): no I/O, no clock, nothing of the rest of the crate.
//!
//! [`send()`], [`verify()`], [`cancel()`] and [`status()`] decide; each returns a
//! [`Decision`]: what to answer, and what to write. [`record::Record`] is what is
//! decided about.

mod cancel;
mod channel;
mod code;
mod decision;
mod policy;
mod purpose;
mod recipient;
mod record;
mod send;
mod status;
#[cfg(test)]
mod tests;
mod time;
mod verify;

pub use cancel::{Cancelled, cancel};
pub use channel::Channel;
pub use code::{Code, CodeError, TypedCode};
pub use decision::Decision;
pub use policy::{Policies, Policy, PolicyError};
pub use purpose::{Purpose, PurposeError};
pub use recipient::{Recipient, RecipientError, Region, RegionError};
pub use record::{
    CallerName, Challenge, ChallengeFilter, ChallengeId, ChallengeNonce, ChallengeState, Record,
    RecordKey, Secret,
};
pub use send::{SendRequest, Sent, TooSoon, send};
pub use status::{LiveCode, Status, status};
pub use time::Timestamp;
pub use verify::{Verdict, VerifyRequest, verify};
