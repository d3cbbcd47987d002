//! The caller's way to end a code.

use super::{
    ChallengeFilter, ChallengeNonce, ChallengeState, Decision, Policy, Record, Timestamp,
    record::decide,
};

/// What [`cancel`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The challenge that was live and is now ended.
    pub challenge: Option<ChallengeNonce>,
}

/// Ends the live code if it is the one that `challenge` admits. The cool-down goes
/// on, so that cancelling is no way around it.
pub fn cancel(
    record: Option<Record>,
    challenge: ChallengeFilter,
    policy: &Policy,
    now: Timestamp,
) -> Decision<Cancelled> {
    decide(record, now, |record| {
        let live = record.filter(|record| {
            challenge.admits(record.challenge.nonce)
                && record.challenge.live_secret(policy, now).is_some()
        });
        match live {
            None => Decision::answer(Cancelled { challenge: None }),
            Some(mut record) => {
                record.challenge.state = ChallengeState::Cancelled;
                record.written_at = now;
                Decision::write(
                    Cancelled {
                        challenge: Some(record.challenge.nonce),
                    },
                    record,
                )
            }
        }
    })
}
