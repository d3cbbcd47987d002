//! The caller's way to end a code, and to forget wrong answers.

use super::{
    ChallengeNonce, ChallengeSelector, ChallengeState, Decision, FailureCounter, IdempotencyLookup,
    PurposePolicy, Record, RecordedOutcome, RequestFingerprint, Timestamp,
    record::with_clock_repair,
};

/// What is asked of [`cancel`].
#[derive(Debug)]
pub struct CancelRequest<'a> {
    /// Which request it is.
    pub identity: &'a RequestFingerprint,
    /// The challenge to end, if it is live.
    pub challenge: ChallengeSelector,
    /// Whether to forget wrong answers, too.
    pub reset_failures: bool,
}

/// What [`cancel`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelOutcome {
    /// The challenge that was live and is now ended.
    pub challenge: Option<ChallengeNonce>,
    /// Whether there were wrong answers, which are now forgotten.
    pub failures_reset: bool,
}

/// The request id was used for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKeyReused;

/// Ends the live code if it is the one that the request names. The cool-down goes
/// on, so that cancelling is no way around it.
///
/// # Errors
/// [`Reused`], and nothing is done.
pub fn cancel(
    record: Option<Record>,
    request: &CancelRequest<'_>,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<CancelOutcome, IdempotencyKeyReused>> {
    with_clock_repair(record, policy, now, |record| {
        let Some(mut record) = record else {
            return Decision::answer(Ok(CancelOutcome::default()));
        };
        match record.memory.lookup(request.identity, now) {
            Some(IdempotencyLookup::Answer {
                answer:
                    RecordedOutcome::Cancelled {
                        challenge,
                        failures_reset,
                    },
                ..
            }) => {
                return Decision::answer(Ok(CancelOutcome {
                    challenge,
                    failures_reset,
                }));
            }
            Some(_) => return Decision::answer(Err(IdempotencyKeyReused)),
            None => {}
        }
        let mut done = CancelOutcome::default();
        let challenge = &mut record.challenge;
        let named = request.challenge.matches(challenge.nonce);
        if named && challenge.live_secret(policy, now).is_some() {
            challenge.state = ChallengeState::Cancelled;
            done.challenge = Some(challenge.nonce);
        }
        if named && request.reset_failures && record.failures.count_at(policy, now) > 0 {
            record.failures = FailureCounter::NONE;
            done.failures_reset = true;
        }
        if done == CancelOutcome::default() {
            return Decision::answer(Ok(done));
        }
        let CancelOutcome {
            challenge,
            failures_reset,
        } = done;
        let answer = RecordedOutcome::Cancelled {
            challenge,
            failures_reset,
        };
        record.memory = record.memory.record(request.identity, answer, policy, now);
        record.written_at = now;
        Decision::write(Ok(done), record)
    })
}
