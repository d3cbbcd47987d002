//! Goals, and the table of honest users.

use super::format::{count, number, percentage, table};
use crate::{
    evaluation::{WarmedUp, mean, most, refused, returning_refused},
    guarded::GuardedService,
    simulation::DayOutcome,
    thresholds::FixedThresholds,
    traffic::{AttackPlan, HonestTraffic},
};

/// Returns the goals with the figures that were reached.
pub fn goals(guard: &WarmedUp<GuardedService>, few: &[(AttackPlan, Vec<DayOutcome>)]) -> String {
    let few: Vec<DayOutcome> = few
        .iter()
        .flat_map(|(_, outcomes)| outcomes.clone())
        .collect();
    let honest = |kind| guard.run(kind, None);
    let verdict = |met: bool| if met { "reached" } else { "**not reached**" }.to_owned();
    let per_block = most(&few, |outcome| outcome.most_per_block);
    let per_hour = most(&few, DayOutcome::most_per_hour);
    let normal = refused(&honest(HonestTraffic::Normal), None);
    let launch = refused(&honest(HonestTraffic::Launch), None);
    let outage = refused(&honest(HonestTraffic::Outage), None);
    let everyone = HonestTraffic::ALL.iter().map(|(kind, _)| honest(*kind));
    let returning: u32 = everyone
        .chain([few])
        .map(|outcomes| returning_refused(&outcomes))
        .sum();
    let rows = [
        (
            "messages to a block of a thousand, largest of the attacks on few blocks",
            count(per_block),
            "≤ 30",
            per_block <= 30,
        ),
        (
            "messages to a country in an hour, largest of the same",
            count(per_hour),
            "≤ 300",
            per_hour <= 300,
        ),
        (
            "first-time users refused, daily rhythm",
            percentage(normal),
            "≤ 0.1 %",
            normal <= 0.1,
        ),
        (
            "first-time users refused, launch",
            percentage(launch),
            "≤ 0.1 %",
            launch <= 0.1,
        ),
        (
            "first-time users refused, day with a gateway's outage",
            percentage(outage),
            "≤ 1 %",
            outage <= 1.0,
        ),
        (
            "returning users refused, all days and attacks",
            count(returning),
            "0",
            returning == 0,
        ),
    ];
    let rows = rows.map(|(name, reached, goal, met)| {
        vec![name.to_owned(), reached, goal.to_owned(), verdict(met)]
    });
    table(&["figure", "reached", "goal", ""], rows.to_vec())
}

/// Returns the table of honest users.
pub fn honest_users(guard: &WarmedUp<GuardedService>, fixed: &WarmedUp<FixedThresholds>) -> String {
    let rows = HonestTraffic::ALL.iter().map(|(kind, name)| {
        let with_guard = guard.run(*kind, None);
        let with_fixed = fixed.run(*kind, None);
        let users = mean(&with_guard, |outcome| {
            outcome.users.iter().map(|users| users.first_time).sum()
        });
        vec![
            (*name).to_owned(),
            number(users),
            percentage(refused(&with_guard, None)),
            percentage(refused(&with_fixed, None)),
            count(returning_refused(&with_guard)),
        ]
    });
    table(
        &[
            "day",
            "first-time users",
            "guard: refused",
            "thresholds: refused",
            "guard: returning users refused",
        ],
        rows.collect(),
    )
}
