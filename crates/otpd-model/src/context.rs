//! Context of a decision.

use crate::{Call, Codes, Nondeterminism, Policy, TimeRange};

/// Context of the decision about a call.
#[derive(Debug)]
pub struct Context<'a> {
    /// Policy of the record's purpose.
    pub policy: &'a Policy,
    /// The call.
    pub call: &'a Call,
    /// Time of the decision.
    pub now: TimeRange,
    /// Time at which shared limits were charged. Under races it may lie before `now`: a
    /// request that lost its race does not pay again.
    pub charged: TimeRange,
    /// Delivered codes.
    pub codes: &'a Codes,
    /// Choices of what is unknown.
    pub choices: &'a mut Nondeterminism,
    /// True if the clock of the store may step back.
    pub may_step_back: bool,
}
