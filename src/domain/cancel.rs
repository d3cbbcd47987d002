//! The caller's way to end a code, and to forget wrong answers.

use super::{
    Answer, ChallengeFilter, ChallengeNonce, ChallengeState, Decision, Failures, Policy, Recalled,
    Record, RequestIdentity, Timestamp, record::decide,
};

/// What is asked of [`cancel`].
#[derive(Debug)]
pub struct CancelRequest<'a> {
    /// Which request it is.
    pub identity: &'a RequestIdentity,
    /// The challenge to end, if it is live.
    pub challenge: ChallengeFilter,
    /// Whether to forget wrong answers, too.
    pub reset_failures: bool,
}

/// What [`cancel`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// The challenge that was live and is now ended.
    pub challenge: Option<ChallengeNonce>,
    /// Whether there were wrong answers, which are now forgotten.
    pub failures_reset: bool,
}

/// The request id was used for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused;

/// Ends the live code if it is the one that the request names. The cool-down goes
/// on, so that cancelling is no way around it.
///
/// # Errors
/// [`Reused`], and nothing is done.
pub fn cancel(
    record: Option<Record>,
    request: &CancelRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Decision<Result<Cancelled, Reused>> {
    decide(record, policy, now, |record| {
        let Some(mut record) = record else {
            return Decision::answer(Ok(Cancelled::default()));
        };
        match record.memory.recall(request.identity, now) {
            Some(Recalled::Answer {
                answer:
                    Answer::Cancelled {
                        challenge,
                        failures_reset,
                    },
                ..
            }) => {
                return Decision::answer(Ok(Cancelled {
                    challenge,
                    failures_reset,
                }));
            }
            Some(_) => return Decision::answer(Err(Reused)),
            None => {}
        }
        let mut done = Cancelled::default();
        let challenge = &mut record.challenge;
        let named = request.challenge.admits(challenge.nonce);
        if named && challenge.live_secret(policy, now).is_some() {
            challenge.state = ChallengeState::Cancelled;
            done.challenge = Some(challenge.nonce);
        }
        if named && request.reset_failures && record.failures.remembered(policy, now) > 0 {
            record.failures = Failures::NONE;
            done.failures_reset = true;
        }
        if done == Cancelled::default() {
            return Decision::answer(Ok(done));
        }
        let Cancelled {
            challenge,
            failures_reset,
        } = done;
        let answer = Answer::Cancelled {
            challenge,
            failures_reset,
        };
        record.memory = record.memory.and(request.identity, answer, policy, now);
        record.written_at = now;
        Decision::write(Ok(done), record)
    })
}
