//! Random calls and movements of the clock.

use std::{convert::Infallible, time::Duration};

use proptest::prelude::*;
use rand::TryRng;

use crate::PurposePolicy;

/// SplitMix64; two of one seed draw the same codes and challenges.
pub(super) struct SplitMix(pub u64);

impl TryRng for SplitMix {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unimplemented!("the rules draw words and bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Ok(mixed ^ (mixed >> 31))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

/// Submitted code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Typed {
    Right,
    Wrong,
    TooShort,
}

/// Challenge id of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Nothing,
    Newest,
    First,
    Foreign,
}

/// Fields of a request that every RPC has, or none of the tested ones needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Number of the `request_id`, if the request has one.
    pub id: Option<u8>,
    /// Number of the client network, if the request has a `client_ip`.
    pub network: Option<u8>,
}

/// A request without `request_id` and `client_ip`.
pub(super) const PLAIN: Origin = Origin {
    id: None,
    network: None,
};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Send {
        content: u8,
        origin: Origin,
    },
    Verify {
        typed: Typed,
        named: Named,
        /// Number of the fields of the receipt, if the request asks for one.
        receipt: Option<u8>,
        origin: Origin,
    },
    Cancel {
        named: Named,
        reset: bool,
        origin: Origin,
    },
    Status(Named),
    /// Repeats a request with a `request_id`, or uses its id for other fields.
    Again {
        which: prop::sample::Index,
        changed: bool,
    },
    /// Moves the clock by this number of milliseconds.
    Clock(i64),
    /// Waits until a time at which a reply changes, or a millisecond before or after it.
    WaitUntil {
        which: prop::sample::Index,
        offset: i64,
    },
    /// Waits for the time that the last refusal returned, or for a millisecond less.
    WaitAsAdvised {
        early: bool,
    },
}

/// A send without further fields.
pub(super) const SEND: Step = Step::Send {
    content: 0,
    origin: PLAIN,
};

/// Returns a verification without further fields.
pub(super) fn verification(typed: Typed) -> Step {
    Step::Verify {
        typed,
        named: Named::Nothing,
        receipt: None,
        origin: PLAIN,
    }
}

fn calls() -> impl Strategy<Value = Step> {
    let typed = prop_oneof![
        2 => Just(Typed::Right),
        8 => Just(Typed::Wrong),
        1 => Just(Typed::TooShort),
    ];
    let named = prop_oneof![
        6 => Just(Named::Nothing),
        3 => Just(Named::Newest),
        1 => Just(Named::First),
        1 => Just(Named::Foreign),
    ];
    let network = prop_oneof![3 => Just(None), 3 => Just(Some(0)), 1 => Just(Some(1))];
    let origin = (prop::option::of(0_u8..4), network)
        .prop_map(|(id, network)| Origin { id, network })
        .boxed();
    prop_oneof![
        5 => (0_u8..2, origin.clone())
            .prop_map(|(content, origin)| Step::Send { content, origin }),
        10 => (typed, named.clone(), prop::option::of(0_u8..2), origin.clone()).prop_map(
            |(typed, named, receipt, origin)| Step::Verify { typed, named, receipt, origin }
        ),
        1 => (named.clone(), any::<bool>(), origin)
            .prop_map(|(named, reset, origin)| Step::Cancel { named, reset, origin }),
        1 => named.prop_map(Step::Status),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.3))
            .prop_map(|(which, changed)| Step::Again { which, changed }),
    ]
}

/// Movements around the durations of a policy, and others.
fn forward() -> impl Strategy<Value = Step> {
    let ahead = prop_oneof![
        8 => 0..5_000_i64,
        6 => 0..300_000_i64,
        1 => prop::sample::select(vec![10_000, 60_000, 300_000, 600_000, 3_600_000_i64]),
        2 => 0..7_200_000_i64,
        1 => 0..200_000_000_i64,
    ];
    prop_oneof![
        3 => ahead.prop_map(Step::Clock),
        2 => (any::<prop::sample::Index>(), -1..=1_i64)
            .prop_map(|(which, offset)| Step::WaitUntil { which, offset }),
        1 => any::<bool>().prop_map(|early| Step::WaitAsAdvised { early }),
    ]
}

/// Steps on a clock that only moves forward.
pub(super) fn steps_forward() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop_oneof![2 => calls(), 1 => forward()], 1..100)
}

/// Steps on a clock that also moves back.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let back = (0..400_000_i64).prop_map(|back| Step::Clock(-back));
    let step = prop_oneof![18 => calls(), 7 => forward(), 1 => back];
    prop::collection::vec(step, 1..60)
}

/// Returns a policy under which only the rules of a single code count.
pub(super) fn single_code_policy() -> PurposePolicy {
    PurposePolicy {
        failure_delay: Duration::ZERO,
        failure_memory: PurposePolicy::EXPIRED_RETENTION,
        sends_per_hour: 0,
        sends_per_day: 0,
        ..PurposePolicy::default()
    }
}

/// Policies under which only the rules of a single code count.
fn single_code_policies() -> impl Strategy<Value = PurposePolicy> {
    let resend_after = prop_oneof![
        Just(60_000),
        Just(0),
        0..30_000_u64,
        Just(600_000),
        Just(3_600_000)
    ];
    let code_ttl = prop_oneof![Just(300_000), 10_000..=600_000_u64];
    (4..=10_u8, code_ttl, 1..=6_u32, resend_after).prop_map(
        |(code_length, code_ttl, max_attempts, resend_after)| PurposePolicy {
            code_length,
            allow_short_codes: true,
            code_ttl: Duration::from_millis(code_ttl),
            max_attempts,
            resend_after: Duration::from_millis(resend_after),
            ..single_code_policy()
        },
    )
}

prop_compose! {
    /// Policies with lockouts and limits.
    fn policies_with_limits()(
        max_attempts in 1_u32..6,
        failure_limit in 1_u32..20,
        [code_ttl, resend_after, failure_delay] in (10_u64..=600, 0_u64..=120, 0_u64..=600)
            .prop_map(|(ttl, resend, delay)| [ttl, resend, delay].map(Duration::from_secs)),
        failure_memory in 1_u64..72,
        request_memory in 1_u64..=60,
        [sends_per_hour, sends_per_day] in prop::array::uniform2(0_u32..10),
        [ip_sends_per_hour, ip_failures_per_hour, ip_site_sends_per_hour, ip_site_failures_per_hour]
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
            ip_site_sends_per_hour,
            ip_site_failures_per_hour,
            ..PurposePolicy::default()
        }
    }
}

pub(super) fn policies() -> impl Strategy<Value = PurposePolicy> {
    prop_oneof![single_code_policies(), policies_with_limits()]
}
