//! Comparison of settings on the seeds of training.

use otpd_rules::guard::{GuardPolicy, Share};

use super::format::{count, number, percentage, table};
use crate::{
    attacks::{FEW_BLOCKS, verifying},
    evaluation::{TRAINING_SEEDS, guarded, mean, most, refused},
    simulation::DayOutcome,
    traffic::{AttackPlan, HonestTraffic},
    world::MIDDLE,
};

/// Returns the settings that were compared on the seeds of training.
pub fn tuning() -> String {
    let mut rows = Vec::new();
    for ratio in [30, 40, 50, 60, 70] {
        for confidence in [970_000, 990_000, 997_000] {
            for floor in [100, 200, 400] {
                // The floor and the confidence are varied around the middle of the grid.
                if floor != 200 && (ratio != 50 || confidence != 990_000) {
                    continue;
                }
                let policy = GuardPolicy {
                    conversion_ratio: Share::from_millionths(ratio * 10_000),
                    suspect_confidence: Share::from_millionths(confidence),
                    country_floor: floor,
                    ..GuardPolicy::default()
                };
                rows.push(tuning_row(policy));
            }
        }
    }
    let rows = table(
        &[
            "`conversion_ratio`",
            "`suspect_confidence`",
            "`country_floor`",
            "most to a block",
            "most to a country in an hour",
            "honest: refused",
            "enters 10 %: sent",
            "1,000 blocks: sent",
        ],
        rows,
    );
    format!(
        "The settings were chosen on the seeds 1 to 5; all other figures of this page are from the
seeds 101 to 110. The attacks on few blocks are those of 7,200 requests, and the honest days those
of the table above. Stricter settings stop more and refuse nobody here. The defaults keep a
distance from them, because the conversion of real users varies more than that of simulated ones.

{rows}"
    )
}

fn tuning_row(policy: GuardPolicy) -> Vec<String> {
    let guard = guarded(policy.clone(), None, TRAINING_SEEDS);
    let few: Vec<DayOutcome> = FEW_BLOCKS
        .iter()
        .filter(|attack| attack.hours == 1 && attack.per_hour == 7_200)
        .flat_map(|attack| guard.run(HonestTraffic::Normal, Some(attack)))
        .collect();
    let honest: Vec<DayOutcome> = HonestTraffic::ALL
        .iter()
        .flat_map(|(kind, _)| guard.run(*kind, None))
        .collect();
    let sent = |attack: AttackPlan| {
        let outcomes = guard.run(HonestTraffic::Normal, Some(&attack));
        number(mean(&outcomes, |outcome| outcome.attack_messages))
    };
    vec![
        policy.conversion_ratio.to_string(),
        policy.suspect_confidence.to_string(),
        count(policy.country_floor),
        count(most(&few, |outcome| outcome.most_per_block)),
        count(most(&few, DayOutcome::most_per_hour)),
        percentage(refused(&honest, None)),
        sent(verifying("verifying", 10)),
        sent(AttackPlan::on("many blocks", MIDDLE, 1_000, 7_200)),
    ]
}
