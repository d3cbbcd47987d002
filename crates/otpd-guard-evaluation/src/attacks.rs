//! Attacks of the evaluation.

use crate::{
    traffic::{AttackPlan, NumberOrder},
    world::{MIDDLE, NEW},
};

/// Attacks without a verification on at most ten blocks of a country without a past.
pub const FEW_BLOCKS: [AttackPlan; 9] = [
    AttackPlan {
        order: NumberOrder::Sequential,
        ..AttackPlan::on("sequential, one block", NEW, 1, 7_200)
    },
    AttackPlan {
        order: NumberOrder::Sequential,
        ..AttackPlan::on("sequential, ten blocks", NEW, 10, 36_000)
    },
    AttackPlan::on("random, one block", NEW, 1, 7_200),
    AttackPlan::on("random, ten blocks", NEW, 10, 7_200),
    AttackPlan::on("burst, ten blocks", NEW, 10, 180_000),
    AttackPlan {
        rotates_addresses: false,
        ..AttackPlan::on("one client address, ten blocks", NEW, 10, 7_200)
    },
    AttackPlan {
        hours: 24,
        ..AttackPlan::on("low and slow, ten blocks", NEW, 10, 60)
    },
    AttackPlan {
        hours: 24,
        ..AttackPlan::on("all day, ten blocks", NEW, 10, 3_600)
    },
    AttackPlan {
        hours: 24,
        ..AttackPlan::on("all day, ten blocks, with honest users", MIDDLE, 10, 3_600)
    },
];

/// Attack in which the codes of a percentage of the messages are entered.
pub const fn verifying(name: &'static str, percentage: u32) -> AttackPlan {
    AttackPlan {
        verifies: percentage,
        ..AttackPlan::on(name, NEW, 10, 7_200)
    }
}

/// Attack on ten blocks by a route over three channels.
pub const THREE_CHANNELS: AttackPlan = AttackPlan {
    channels: 3,
    ..AttackPlan::on("three channels", NEW, 10, 7_200)
};

/// Numbers of blocks of the curve.
pub const BLOCKS: [(u32, &str); 7] = [
    (1, "1"),
    (10, "10"),
    (30, "30"),
    (100, "100"),
    (300, "300"),
    (1_000, "1k"),
    (10_000, "10k"),
];

/// Requests an hour of an attack that wants a country closed.
pub const CLOSING_RATES: [u32; 8] = [3, 10, 30, 100, 300, 600, 1_000, 3_000];
