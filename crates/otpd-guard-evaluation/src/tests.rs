//! Short form of the evaluation: the goals on one seed, and that docs/guard.md is of this rule.

use otpd_rules::guard::GuardPolicy;

use crate::{
    attacks::{FEW_BLOCKS, THREE_CHANNELS},
    evaluation::{REPORT_SEEDS, WarmedUp, guarded, refused, returning_refused, thresholds},
    guarded::GuardedService,
    report::fingerprint,
    simulation::DayOutcome,
    traffic::{AttackPlan, HonestTraffic},
    world::{LARGE, SMALL},
};

fn guard() -> WarmedUp<GuardedService> {
    let seed = *REPORT_SEEDS.start();
    guarded(GuardPolicy::default(), None, seed..=seed)
}

#[test]
fn attacks_on_few_blocks_are_held_to_few_messages() {
    let guard = guard();
    // The attacks of an hour; those of a day differ in their length.
    for attack in FEW_BLOCKS.iter().filter(|attack| attack.hours == 1) {
        for outcome in guard.run(HonestTraffic::Normal, Some(attack)) {
            assert!(outcome.attack_messages > 0, "{}", attack.name);
            assert!(outcome.most_per_block <= 30, "{}: {outcome:?}", attack.name);
            assert!(
                outcome.most_per_hour() <= 300,
                "{}: {outcome:?}",
                attack.name
            );
        }
    }
}

#[test]
fn three_channels_cost_little_more_than_one() {
    let messages = |attack| {
        let outcomes = guard().run(HonestTraffic::Normal, Some(attack));
        outcomes.iter().map(|outcome| outcome.attack_messages).sum()
    };
    let (one, three): (u32, u32) = (messages(&FEW_BLOCKS[3]), messages(&THREE_CHANNELS));
    assert!(three < one + one / 2, "{three} instead of {one}");
}

#[test]
fn honest_users_are_not_refused() {
    let guard = guard();
    for (kind, limit) in [
        (HonestTraffic::Normal, 0.1),
        (HonestTraffic::Launch, 0.1),
        (HonestTraffic::Outage, 1.0),
    ] {
        let outcomes = guard.run(kind, None);
        let share = refused(&outcomes, None);
        assert!(share <= limit, "{kind:?}: {share} %");
        assert_eq!(returning_refused(&outcomes), 0, "{kind:?}");
    }
}

#[test]
fn closing_a_small_country_needs_hundreds_of_requests() {
    let attack = |rate| AttackPlan::on("closing", SMALL, 3_000, rate);
    let outcomes = guard().run(HonestTraffic::Normal, Some(&attack(100)));
    let share = refused(&outcomes, Some(SMALL));
    assert!(share == 0.0, "{share} %");
    let seed = *REPORT_SEEDS.start();
    let outcomes = thresholds(1.0, seed..=seed).run(HonestTraffic::Normal, Some(&attack(100)));
    assert!(refused(&outcomes, Some(SMALL)) > 50.0);
}

#[test]
fn daily_budget_bounds_an_attack_on_many_blocks() {
    let seed = *REPORT_SEEDS.start();
    let guard = guarded(GuardPolicy::default(), Some(100), seed..=seed);
    let attack = AttackPlan::on("many blocks", LARGE, 10_000, 7_200);
    let outcomes = guard.run(HonestTraffic::Normal, Some(&attack));
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.attack_messages <= 100)
    );
}

#[test]
fn same_seed_gives_the_same_outcome() {
    let run = || {
        let outcomes = guard().run(HonestTraffic::Normal, Some(&FEW_BLOCKS[4]));
        let figures = |outcome: &DayOutcome| (outcome.attack_messages, outcome.most_per_block);
        outcomes.iter().map(figures).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn page_was_written_from_this_rule() {
    let page = include_str!("../../../docs/guard.md");
    let found = fingerprint();
    assert!(page.contains(&found), "run ./check long guard: {found}");
}
