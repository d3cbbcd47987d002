//! Tables of attacks.

use super::format::{count, number, percentage, release, table};
use crate::{
    attacks::{CLOSING_RATES, THREE_CHANNELS, verifying},
    evaluation::{WarmedUp, mean, most, refused, returning_refused},
    guarded::GuardedService,
    simulation::DayOutcome,
    thresholds::FixedThresholds,
    traffic::{AttackPlan, HonestTraffic},
    world::{COUNTRIES, LARGE, MIDDLE, NEW, SMALL},
};

/// Returns the text about attacks on few blocks.
pub fn few_blocks_text() -> &'static str {
    "Released is the time from the end of the attack until the country and all its blocks are
neither slow nor refused. If it is 23 hours, only the country is slow for so long, which refuses
nothing below 200 messages an hour. The attack with honest users is on the country with 40
first-time users in its busiest hour, the others are on the one without a past. A route over three
channels sends over the next one after 30 seconds without an answer, unless a cell is slow."
}

/// Returns the table of attacks on few blocks.
pub fn few_blocks(
    guard: &WarmedUp<GuardedService>,
    fixed: &WarmedUp<FixedThresholds>,
    few: &[(AttackPlan, Vec<DayOutcome>)],
) -> String {
    let mut rows = Vec::new();
    let three = (
        THREE_CHANNELS,
        guard.run(HonestTraffic::Normal, Some(&THREE_CHANNELS)),
    );
    for (attack, with_guard) in few.iter().chain([&three]) {
        let with_fixed = fixed.run(HonestTraffic::Normal, Some(attack));
        let users = |outcomes: &[DayOutcome]| {
            if attack.country == NEW {
                "–".to_owned()
            } else {
                percentage(refused(outcomes, Some(attack.country)))
            }
        };
        rows.push(vec![
            attack.name.to_owned(),
            number(mean(with_guard, |outcome| outcome.attack_requests)),
            number(mean(with_guard, |outcome| outcome.attack_messages)),
            count(most(with_guard, |outcome| outcome.most_per_block)),
            users(with_guard),
            release(with_guard),
            number(mean(&with_fixed, |outcome| outcome.attack_messages)),
            users(&with_fixed),
        ]);
    }
    table(
        &[
            "attack",
            "requests",
            "messages sent",
            "most to a block",
            "first-time users refused",
            "released after",
            "thresholds: sent",
            "thresholds: users refused",
        ],
        rows,
    )
}

/// Returns the table of attackers that enter codes.
pub fn verifying_attackers(
    guard: &WarmedUp<GuardedService>,
    fixed: &WarmedUp<FixedThresholds>,
) -> String {
    let attacks = [
        verifying("enters no code", 0),
        verifying("enters 10 % of the codes", 10),
        verifying("enters 30 % of the codes", 30),
        verifying("enters 60 % of the codes", 60),
    ];
    let rows = attacks.iter().map(|attack| {
        let with_guard = guard.run(HonestTraffic::Normal, Some(attack));
        let with_fixed = fixed.run(HonestTraffic::Normal, Some(attack));
        vec![
            attack.name.to_owned(),
            number(mean(&with_guard, |outcome| outcome.attack_requests)),
            number(mean(&with_guard, |outcome| outcome.attack_messages)),
            number(mean(&with_fixed, |outcome| outcome.attack_messages)),
        ]
    });
    table(
        &[
            "attack on ten blocks",
            "requests",
            "guard: sent",
            "thresholds: sent",
        ],
        rows.collect(),
    )
}

/// Returns the tables of attacks that close a country.
pub fn closing(guard: &WarmedUp<GuardedService>, fixed: &WarmedUp<FixedThresholds>) -> String {
    let mut rows = Vec::new();
    let mut cheapest = Vec::new();
    for country in [SMALL, MIDDLE, LARGE] {
        let (mut least_guard, mut least_fixed) = (None, None);
        for rate in CLOSING_RATES {
            let attack = AttackPlan::on("closing", country, 3_000, rate);
            let with_guard = guard.run(HonestTraffic::Normal, Some(&attack));
            let with_fixed = fixed.run(HonestTraffic::Normal, Some(&attack));
            let shares = [
                refused(&with_guard, Some(country)),
                refused(&with_fixed, Some(country)),
            ];
            let least = [&mut least_guard, &mut least_fixed];
            for (least, share) in least.into_iter().zip(shares) {
                if share >= 50.0 {
                    least.get_or_insert(rate);
                }
            }
            rows.push(vec![
                COUNTRIES[country].name.to_owned(),
                count(rate),
                percentage(shares[0]),
                percentage(shares[1]),
                count(returning_refused(&with_guard)),
            ]);
        }
        let least = |least: Option<u32>| least.map_or("more than 3,000".to_owned(), count);
        cheapest.push(vec![
            COUNTRIES[country].name.to_owned(),
            count(COUNTRIES[country].per_hour),
            least(least_guard),
            least(least_fixed),
        ]);
    }
    let cheapest = table(
        &[
            "country",
            "first-time users in its busiest hour",
            "guard: requests an hour",
            "thresholds: requests an hour",
        ],
        cheapest,
    );
    let all = table(
        &[
            "country",
            "requests an hour",
            "guard: users refused",
            "thresholds: users refused",
            "guard: returning users refused",
        ],
        rows,
    );
    format!(
        "Least rate of the ones tried, spread over 3,000 blocks, with which an attacker gets at
least half of the first-time users of a country refused for an hour:

{cheapest}

All rates:

{all}"
    )
}
