//! Guard against SMS pumping: messages to numbers that an attacker profits from.
//!
//! The signal is sends without a verification. They are counted in *cells*: the numbers of a
//! caller in one country, and those in one block, which is a number without its last three
//! digits. [`assess_block`] and [`assess_country`] return the verdict on a cell with its
//! reasons, as pure functions of (cell, baseline of its parent, policy, now); [`admit()`] applies
//! the verdicts to one send. All arithmetic is in integers, so that the same counts give the
//! same verdict on every processor.

mod admit;
mod assess;
mod baseline;
mod cell;
mod policy;
mod provider_health;
mod sequence;
mod share;
#[cfg(test)]
mod tests;
mod window;

pub use admit::{Admission, Cause, SendAssessment, SendClass, admit};
pub use assess::{Assessment, Reason, Verdict, Window, assess_block, assess_country, release};
pub use baseline::Baseline;
pub use cell::Cell;
pub use policy::GuardPolicy;
pub use provider_health::{ProviderEvent, ProviderHealth};
pub use sequence::SequenceTracker;
pub use share::{Share, probability_below};
pub use window::Counts;
