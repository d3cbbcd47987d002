//! Random requests to the rules.

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

#[derive(Clone, Copy, Debug)]
pub(super) enum Typed {
    Right,
    Wrong,
    TooShort,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Nothing,
    Newest,
    First,
    Foreign,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Send,
    Verify(Typed, Named),
    Cancel(Named),
    Status(Named),
    /// Moves the clock by so many milliseconds.
    Clock(i64),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let typed = prop_oneof![
        2 => Just(Typed::Right),
        6 => Just(Typed::Wrong),
        1 => Just(Typed::TooShort),
    ];
    let named = prop_oneof![
        6 => Just(Named::Nothing),
        3 => Just(Named::Newest),
        1 => Just(Named::First),
        1 => Just(Named::Foreign),
    ];
    // Movements around the durations of the policy, and arbitrary ones.
    let ahead = prop_oneof![
        8 => 0..5_000_i64,
        4 => 0..120_000_i64,
        1 => prop::sample::select(vec![10_000, 60_000, 300_000, 600_000, 3_600_000_i64]),
        1 => 0..5_000_000_i64,
    ];
    let step = prop_oneof![
        6 => Just(Step::Send),
        10 => (typed, named.clone()).prop_map(|(typed, named)| Step::Verify(typed, named)),
        1 => named.clone().prop_map(Step::Cancel),
        1 => named.prop_map(Step::Status),
        6 => ahead.prop_map(Step::Clock),
        1 => (0..400_000_i64).prop_map(|back| Step::Clock(-back)),
    ];
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

pub(super) fn policies() -> impl Strategy<Value = PurposePolicy> {
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
