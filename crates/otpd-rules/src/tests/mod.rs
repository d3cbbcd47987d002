//! Properties of all rules together, compared with the model (`otpd-model`) for every order
//! of requests and every movement of the clock.

mod conversion;
mod limits;
mod purge;
mod receipts;
mod sends;
mod statuses;
mod steps;
mod verdicts;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::{
    purge::send_at,
    steps::{
        Named, PLAIN, SEND, SplitMix, Step, Typed, policies, single_code_policy, steps,
        steps_forward, verification,
    },
    world::World,
};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rules_hold_in_any_order_and_under_any_clock(
        policy in policies(),
        seed: u64,
        steps in steps(),
    ) {
        prop_assert_eq!(policy.validate(), Ok(()));
        let mut world = World::new(policy, seed);
        for step in steps {
            world.run(step)?;
        }
    }

    #[test]
    fn lockout_limits_and_idempotency_model(
        policy in policies(),
        seed: u64,
        steps in steps_forward(),
    ) {
        let mut world = World::new(policy, seed);
        for step in steps {
            world.run(step)?;
        }
        world.check_windows()?;
    }
}

/// Returns the world after a send.
fn world_with_a_code() -> World {
    let mut world = World::new(single_code_policy(), 1);
    world.run(SEND).unwrap();
    world
}

fn verdict(world: &World, typed: Typed, after: Duration) -> Result<VerifyOutcome, Refusal> {
    let request = VerifyRequest {
        identity: RequestFingerprint {
            id: [0; 16],
            fields: [0; 16],
            writer: 0,
            named: false,
        },
        code: world.typed(typed),
        challenge: ChallengeSelector::Newest,
        receipt: false,
    };
    let at = world.now.saturating_add(after);
    verify(world.record.clone(), &[], &request, &world.policy, at).outcome
}

/// Time until the cool-down allows a send.
fn wait(refused: Result<SendOutcome, Refusal>) -> Duration {
    match refused {
        Err(Refusal::ResendTooSoon { wait, .. }) => wait,
        other => panic!("not refused by the cool-down: {other:?}"),
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// Returns a millisecond less than `duration`.
fn just_before(duration: Duration) -> Duration {
    duration.saturating_sub(MILLISECOND)
}

#[test]
fn code_expires_and_is_purgeable_to_the_millisecond() {
    let world = world_with_a_code();
    let challenge = world.newest();
    let ttl = world.policy.code_ttl;
    let forgotten = ttl + PurposePolicy::EXPIRED_RETENTION;
    let verified = verdict(&world, Typed::Right, just_before(ttl)).unwrap();
    assert!(
        matches!(verified, VerifyOutcome::Verified { .. }),
        "{verified:?}"
    );
    let expired = Ok(VerifyOutcome::Expired { challenge });
    for typed in [Typed::Right, Typed::Wrong, Typed::TooShort] {
        assert_eq!(verdict(&world, typed, ttl), expired);
        assert_eq!(verdict(&world, typed, just_before(forgotten)), expired);
        assert_eq!(
            verdict(&world, typed, forgotten),
            Ok(VerifyOutcome::NotFound)
        );
    }
    let record = world.record.unwrap();
    assert_eq!(
        record.purge_at(&world.policy),
        world.now.saturating_add(forgotten)
    );
}

#[test]
fn cool_down_ends_and_code_is_replaced_to_the_millisecond() {
    let world = world_with_a_code();
    let sent = |after: Duration| {
        let at = world.now.saturating_add(after);
        send_at(world.record.clone(), &world.policy, at, &mut SplitMix(2)).outcome
    };
    let PurposePolicy {
        code_ttl,
        resend_after,
        ..
    } = world.policy;
    assert_eq!(wait(sent(just_before(resend_after))), MILLISECOND);
    assert!(sent(resend_after).unwrap().resent);
    let nearly_dead = code_ttl.saturating_sub(resend_after);
    assert!(sent(nearly_dead).unwrap().resent);
    assert!(!sent(nearly_dead + MILLISECOND).unwrap().resent);
}

#[test]
fn clock_rollback_restarts_the_cool_down_once() {
    for first in [
        SEND,
        verification(Typed::Right),
        Step::Cancel {
            named: Named::Nothing,
            reset: false,
            origin: PLAIN,
        },
        Step::Status(Named::Nothing),
    ] {
        let mut world = world_with_a_code();
        world.run(Step::Clock(-3_600_000)).unwrap();
        let stepped_to = world.now;
        world.run(first.clone()).unwrap();
        world.run(Step::Clock(59_999)).unwrap();
        let refused = send_at(
            world.record.clone(),
            &world.policy,
            world.now,
            &mut SplitMix(2),
        );
        assert_eq!(wait(refused.outcome), MILLISECOND, "{first:?}");
        world.run(Step::Clock(1)).unwrap();
        world.run(SEND).unwrap();
        assert_eq!(
            world.record.unwrap().sent_at,
            stepped_to.saturating_add(Duration::from_mins(1))
        );
    }
}

#[test]
fn clock_rollback_does_not_extend_retention_of_expired_code() {
    let mut world = world_with_a_code();
    world.run(Step::Clock(-31_536_000_000)).unwrap();
    world.run(verification(Typed::Right)).unwrap();
    let removable_at = world.record.unwrap().purge_at(&world.policy);
    assert!(removable_at <= world.now.saturating_add(PurposePolicy::EXPIRED_RETENTION));
}

#[test]
fn no_code_is_sent_that_expires_during_lockout() {
    let mut world = World::new(
        PurposePolicy {
            max_attempts: 1,
            failure_delay: Duration::from_mins(10),
            ..PurposePolicy::default()
        },
        1,
    );
    world.run(SEND).unwrap();
    world.run(verification(Typed::Wrong)).unwrap();
    // The delay has five minutes left, and a new code would have as many.
    world.run(Step::Clock(5 * 60_000)).unwrap();
    let send = |world: &World, now| {
        let record = world.record.clone();
        send_at(record, &world.policy, now, &mut SplitMix(2)).outcome
    };
    let refused = send(&world, world.now);
    assert!(matches!(refused, Err(Refusal::Blocked(_))), "{refused:?}");
    let later = world.now.saturating_add(MILLISECOND);
    assert!(send(&world, later).is_ok());
}
