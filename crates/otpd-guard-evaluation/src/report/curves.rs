//! Charts, and the texts beside them.

use otpd_rules::guard::{GuardPolicy, Share};

use crate::{
    attacks::{BLOCKS, verifying},
    evaluation::{REPORT_SEEDS, WarmedUp, guarded, mean, refused, thresholds},
    guarded::GuardedService,
    plot::{ChartAxis, ChartPanel, chart},
    simulation::DayOutcome,
    thresholds::FixedThresholds,
    traffic::{AttackPlan, HonestTraffic},
    world::{EvaluatedGuard, LARGE, MIDDLE, NEW},
};

/// Daily budget of a country in the curve over blocks.
const BUDGET: u32 = 1_000;
/// Values of `conversion_ratio` along the curve of the guard, in percent.
const RATIOS: [u32; 9] = [5, 10, 20, 30, 40, 50, 70, 85, 100];
/// Factors of the fixed thresholds along their curve.
const FACTORS: [f64; 9] = [100.0, 30.0, 10.0, 3.0, 1.5, 1.0, 0.5, 0.2, 0.05];

/// Returns the text about attacks on many blocks.
pub fn many_blocks_text() -> &'static str {
    "Messages that an attack of 2,000 requests an hour causes within a day, by the number of
blocks over which it is spread. The budget is 1,000 messages a day for the country; from noon to noon the
attack meets two of them. In a country with much traffic, an attack on a thousand blocks or more
gets about twice the country's peak in every hour, because the rule refuses nothing below that. Only
a budget bounds it.

![Messages of an attack by its number of blocks](guard/blocks.svg)"
}

/// Returns the chart of messages by the number of blocks.
pub fn many_blocks(guard: &WarmedUp<GuardedService>, fixed: &WarmedUp<FixedThresholds>) -> String {
    let budget = guarded(GuardPolicy::default(), Some(BUDGET), REPORT_SEEDS);
    let panels = [
        (NEW, "country without a past"),
        (LARGE, "country with 300 first-time users an hour"),
    ];
    let panels = panels.map(|(country, title)| {
        let mut lines = vec![Vec::new(); 3];
        for (blocks, name) in BLOCKS {
            let attack = AttackPlan {
                hours: 24,
                ..AttackPlan::on(name, country, blocks, 2_000)
            };
            let outcomes = [
                guard.run(HonestTraffic::Normal, Some(&attack)),
                fixed.run(HonestTraffic::Normal, Some(&attack)),
                // The budget counts the messages to honest users, too; the large country has more.
                if country == NEW {
                    budget.run(HonestTraffic::Normal, Some(&attack))
                } else {
                    Vec::new()
                },
            ];
            for (line, outcomes) in lines.iter_mut().zip(outcomes) {
                if !outcomes.is_empty() {
                    let messages = mean(&outcomes, |outcome| outcome.attack_messages);
                    line.push((f64::from(blocks), messages));
                }
            }
        }
        ChartPanel {
            title: title.to_owned(),
            lines,
        }
    });
    let x = ChartAxis {
        title: "blocks of a thousand numbers",
        ticks: BLOCKS
            .iter()
            .map(|(blocks, name)| (f64::from(*blocks), *name))
            .collect(),
        is_logarithmic: true,
    };
    let y = ChartAxis {
        title: "messages a day",
        ticks: vec![
            (1.0, "1"),
            (10.0, "10"),
            (100.0, "100"),
            (1e3, "1k"),
            (1e4, "10k"),
            (1e5, "100k"),
        ],
        is_logarithmic: true,
    };
    let legend = ["guard", "fixed thresholds", "guard and a daily budget"];
    chart(
        "Messages by the number of attacked blocks",
        &x,
        &y,
        &legend,
        &panels,
    )
}

/// Returns the text about the trade-off.
pub fn trade_off_text() -> &'static str {
    "Share of the messages of an attack that are stopped, by the share of honest first-time users
that are refused, over all days of the table of honest users. A curve is the same guard with other
settings: `conversion_ratio` from 5 % to 100 %, and the thresholds from a hundred times to a
twentieth. Shares below 0.001 % are drawn at the left edge. These days have no attack; the users
that are refused during one are in the table of the cost.

![Stopped messages by refused users](guard/roc.svg)"
}

/// Returns the chart of the trade-off.
pub fn trade_off() -> String {
    let attacks = [
        (
            "ten blocks, 7,200 an hour",
            AttackPlan::on("ten blocks", MIDDLE, 10, 7_200),
        ),
        (
            "1,000 blocks, 1,000 an hour",
            AttackPlan::on("many blocks", MIDDLE, 1_000, 1_000),
        ),
        (
            "ten blocks, 30 % of the codes entered",
            AttackPlan {
                country: MIDDLE,
                ..verifying("verifying", 30)
            },
        ),
    ];
    let mut panels = attacks.map(|(title, _)| ChartPanel {
        title: title.to_owned(),
        lines: vec![Vec::new(), Vec::new()],
    });
    for ratio in RATIOS {
        let policy = GuardPolicy {
            conversion_ratio: Share::from_millionths(ratio * 10_000),
            ..GuardPolicy::default()
        };
        let guard = guarded(policy, None, REPORT_SEEDS);
        add_points(&mut panels, 0, &guard, &attacks);
    }
    for factor in FACTORS {
        let fixed = thresholds(factor, REPORT_SEEDS);
        add_points(&mut panels, 1, &fixed, &attacks);
    }
    let x = ChartAxis {
        title: "first-time users refused",
        ticks: vec![
            (0.001, "0.001 %"),
            (0.01, "0.01 %"),
            (0.1, "0.1 %"),
            (1.0, "1 %"),
            (10.0, "10 %"),
            (100.0, "100 %"),
        ],
        is_logarithmic: true,
    };
    let y = ChartAxis {
        title: "messages stopped",
        ticks: vec![
            (0.0, "0 %"),
            (25.0, "25 %"),
            (50.0, "50 %"),
            (75.0, "75 %"),
            (100.0, "100 %"),
        ],
        is_logarithmic: false,
    };
    let legend = ["guard", "fixed thresholds"];
    chart(
        "Stopped messages by refused users",
        &x,
        &y,
        &legend,
        &panels,
    )
}

fn add_points<D: EvaluatedGuard>(
    panels: &mut [ChartPanel],
    line: usize,
    defence: &WarmedUp<D>,
    attacks: &[(&str, AttackPlan)],
) {
    let honest: Vec<DayOutcome> = HonestTraffic::ALL
        .iter()
        .flat_map(|(kind, _)| defence.run(*kind, None))
        .collect();
    let honest = refused(&honest, None);
    for (panel, (_, attack)) in panels.iter_mut().zip(attacks) {
        let outcomes = defence.run(HonestTraffic::Normal, Some(attack));
        let sent = mean(&outcomes, |outcome| outcome.attack_messages);
        let requests = mean(&outcomes, |outcome| outcome.attack_requests);
        panel.lines[line].push((honest, 100.0 * (1.0 - sent / requests.max(1.0))));
    }
}
