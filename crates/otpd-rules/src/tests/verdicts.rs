//! Outcomes of verifications, case by case.

use super::*;

#[test]
fn verify_outcome_names_its_challenge() {
    let challenge = ChallengeNonce([7; 16]);
    let at = Timestamp::from_milliseconds(0);
    for verdict in [
        VerifyOutcome::Verified {
            challenge,
            at,
            receipt: None,
        },
        VerifyOutcome::WrongCode {
            challenge,
            attempts_remaining: 1,
        },
        VerifyOutcome::Expired { challenge },
        VerifyOutcome::AttemptsExhausted { challenge },
    ] {
        assert_eq!(verdict.challenge(), Some(challenge));
    }
    assert_eq!(VerifyOutcome::NotFound.challenge(), None);
}

#[test]
fn stricter_policy_applies_to_live_codes() {
    let mut world = world_with_a_code();
    let challenge = world.newest();
    if let Some(record) = &mut world.record {
        record.challenge.attempts = 3;
    }
    let exhausted = Ok(VerifyOutcome::AttemptsExhausted { challenge });
    for max_attempts in [2, 3] {
        world.policy.max_attempts = max_attempts;
        assert_eq!(verdict(&world, Typed::Right, Duration::ZERO), exhausted);
    }
    world.policy.max_attempts = 4;
    let verified = verdict(&world, Typed::Right, Duration::ZERO);
    assert!(matches!(verified, Ok(VerifyOutcome::Verified { .. })));
}
