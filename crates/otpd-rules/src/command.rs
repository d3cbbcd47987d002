//! The entrance to the rules: a command and the state in, a decision out.

use rand::Rng;

use super::{
    CancelRequest, ChallengeSelector, Decision, Outcome, PurposePolicy, RateLimitState, Record,
    SendRequest, Timestamp, VerifyEffects, VerifyRequest, cancel, send, status, verify,
};

/// A request in the form that the rules decide about, as often as it takes.
#[derive(Debug)]
pub enum Command {
    /// Send a code.
    Send(Box<SendRequest>),
    /// Verify a submitted code.
    Verify(VerifyRequest),
    /// Cancel the live code.
    Cancel(CancelRequest),
    /// Show the state of the code.
    Status(ChallengeSelector),
}

/// State that a command is decided on.
#[derive(Debug)]
pub struct State<'a> {
    /// The record, opened; `None` if the caller has none.
    pub record: Option<Record>,
    /// Rate limits that the record shares with others.
    pub limits: &'a [RateLimitState],
}

/// Circumstances of a decision.
#[expect(
    missing_debug_implementations,
    reason = "a random source has nothing to show"
)]
pub struct Context<'a> {
    /// Policy of the record's purpose.
    pub policy: &'a PurposePolicy,
    /// The store's time.
    pub now: Timestamp,
    /// Source of codes and nonces.
    pub random: &'a mut dyn Rng,
}

/// Decides about a command.
pub fn decide(command: &Command, state: State<'_>, context: &mut Context<'_>) -> Decision {
    let State { record, limits } = state;
    let Context {
        policy,
        now,
        random,
    } = context;
    let (policy, now) = (*policy, *now);
    match command {
        Command::Send(request) => send(record, limits, request, policy, now, random)
            .map(|outcome| outcome.map(Outcome::Sent)),
        Command::Verify(request) => {
            let decision = verify(record, limits, request, policy, now);
            let effects = VerifyEffects::of(&decision, policy, now);
            decision.map(|outcome| Ok(Outcome::Verdict(outcome?, effects)))
        }
        Command::Cancel(request) => {
            cancel(record, request, policy, now).map(|outcome| outcome.map(Outcome::Cancelled))
        }
        Command::Status(challenge) => {
            status(record, *challenge, policy, now).map(|outcome| Ok(Outcome::Status(outcome)))
        }
    }
}
