//! Rules 5, 6 and 7 together: lockouts, limits, and repeated requests, in any order. The
//! clock only goes forward here.

mod rules;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::{
    rules::{Reply, Request},
    world::World,
};
use super::*;

/// Next event.
#[derive(Clone, Debug)]
enum Step {
    Send {
        id: Option<u8>,
        voice: bool,
    },
    Verify {
        id: Option<u8>,
        right: bool,
    },
    Cancel {
        id: Option<u8>,
        reset: bool,
    },
    /// An earlier request is repeated, or its id is used for other fields.
    Again {
        which: prop::sample::Index,
        changed: bool,
    },
    Wait(u64),
    /// Waits as long as the last refusal said, or a millisecond less.
    WaitAsAdvised {
        early: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || prop::option::of(0_u8..4);
    let step = prop_oneof![
        4 => (id(), any::<bool>()).prop_map(|(id, voice)| Step::Send { id, voice }),
        8 => (id(), prop::bool::weighted(0.1)).prop_map(|(id, right)| Step::Verify { id, right }),
        1 => (id(), any::<bool>()).prop_map(|(id, reset)| Step::Cancel { id, reset }),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.3))
            .prop_map(|(which, changed)| Step::Again { which, changed }),
        3 => any::<bool>().prop_map(|early| Step::WaitAsAdvised { early }),
        2 => (0_u64..5_000).prop_map(Step::Wait),
        4 => (0_u64..300_000).prop_map(Step::Wait),
        2 => (0_u64..7_200_000).prop_map(Step::Wait),
        1 => (0_u64..200_000_000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

prop_compose! {
    fn policies()(
        max_attempts in 1_u32..6,
        failure_limit in 1_u32..20,
        [code_ttl, resend_after, failure_delay] in (10_u64..=600, 0_u64..=120, 0_u64..=600)
            .prop_map(|(ttl, resend, delay)| [ttl, resend, delay].map(Duration::from_secs)),
        failure_memory in 1_u64..72,
        request_memory in 1_u64..=60,
        [sends_per_hour, sends_per_day, ip_sends_per_hour, ip_failures_per_hour]
            in prop::array::uniform4(0_u32..10),
    ) -> PurposePolicy {
        PurposePolicy {
            max_attempts,
            failure_limit,
            code_ttl,
            resend_after,
            failure_delay,
            failure_memory: Duration::from_hours(failure_memory),
            request_memory: Duration::from_mins(request_memory),
            sends_per_hour,
            sends_per_day,
            ip_sends_per_hour,
            ip_failures_per_hour,
            ..PurposePolicy::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lockout_limits_and_idempotency_model(policy in policies(), steps in steps()) {
        prop_assert_eq!(policy.validate(), Ok(()));
        let mut world = World::new(policy);
        for step in steps {
            world.take(step)?;
        }
        world.check_limits()?;
    }
}

#[test]
fn no_code_is_sent_that_expires_during_lockout() {
    let mut world = World::new(PurposePolicy {
        max_attempts: 1,
        failure_delay: Duration::from_mins(10),
        ..PurposePolicy::default()
    });
    world
        .take(Step::Send {
            id: None,
            voice: false,
        })
        .unwrap();
    let wrong = Step::Verify {
        id: None,
        right: false,
    };
    world.take(wrong).unwrap();
    let send = Request::Send { voice: false };
    // The delay has five minutes left, and so would the code.
    world.take(Step::Wait(5 * 60_000)).unwrap();
    let refused = world.rules.ask(None, &send, world.now).reply;
    assert!(
        matches!(refused, Reply::NotSent(Refusal::Blocked(_))),
        "{refused:?}"
    );
    world.take(Step::Wait(1)).unwrap();
    assert!(world.rules.ask(None, &send, world.now).first);
}
