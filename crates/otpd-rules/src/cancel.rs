//! Cancellation of a code, and reset of failed attempts.

use super::{
    ChallengeNonce, ChallengeSelector, ChallengeState, Decision, FailureCounter, IdempotencyLookup,
    PurposePolicy, Record, RecordedOutcome, Refusal, RequestFingerprint, Timestamp,
    record::with_clock_repair,
};

/// Input of [`cancel`].
#[derive(Debug)]
pub struct CancelRequest {
    /// Fingerprint of the request.
    pub identity: RequestFingerprint,
    /// Challenge to cancel, if it is live.
    pub challenge: ChallengeSelector,
    /// True to reset the failed attempts, too.
    pub reset_failures: bool,
}

/// Outcome of [`cancel`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelOutcome {
    /// Challenge that was live and is now cancelled.
    pub challenge: Option<ChallengeNonce>,
    /// True if there were failed attempts, which are now reset.
    pub failures_reset: bool,
}

/// Cancels the live code if the request selects it. The cool-down goes on, so that a
/// cancellation does not bypass it.
///
/// # Errors
/// [`Refusal::IdempotencyKeyReused`]; nothing is written.
pub fn cancel(
    record: Option<Record>,
    request: &CancelRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<Result<CancelOutcome, Refusal>> {
    with_clock_repair(record, policy, now, |record| {
        let Some(mut record) = record else {
            return Decision::new(Ok(CancelOutcome::default()));
        };
        match record.memory.lookup(&request.identity, now) {
            Some(IdempotencyLookup::Replay {
                outcome:
                    RecordedOutcome::Cancelled {
                        challenge,
                        failures_reset,
                    },
                ..
            }) => {
                return Decision::new(Ok(CancelOutcome {
                    challenge,
                    failures_reset,
                }));
            }
            Some(_) => return Decision::new(Err(Refusal::IdempotencyKeyReused)),
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
            return Decision::new(Ok(done));
        }
        let CancelOutcome {
            challenge,
            failures_reset,
        } = done;
        let outcome = RecordedOutcome::Cancelled {
            challenge,
            failures_reset,
        };
        record.memory = record
            .memory
            .record(&request.identity, outcome, policy, now);
        record.written_at = now;
        Decision::new(Ok(done)).with_record(record)
    })
}
