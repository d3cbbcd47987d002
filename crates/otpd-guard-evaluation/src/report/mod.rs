//! Tables and charts of docs/guard.md.

mod attack_tables;
mod curves;
mod format;
mod summary;
mod tuning;

use otpd_rules::guard::GuardPolicy;

use crate::{
    attacks::{FEW_BLOCKS, verifying},
    evaluation::{REPORT_SEEDS, guarded, refused, thresholds},
    simulation::DayOutcome,
    traffic::{AttackPlan, HonestTraffic},
    world::MIDDLE,
};
use attack_tables::{closing, few_blocks, few_blocks_text, verifying_attackers};
use curves::{many_blocks, many_blocks_text, trade_off, trade_off_text};
use summary::{goals, honest_users};
use tuning::tuning;

/// Generated part of the page, and the charts that it shows.
#[derive(Clone, Debug)]
pub struct EvaluationReport {
    /// Markdown.
    pub tables: String,
    /// Names and contents of the charts.
    pub charts: Vec<(&'static str, String)>,
}

/// Runs the whole evaluation.
pub fn report() -> EvaluationReport {
    let guard = guarded(GuardPolicy::default(), None, REPORT_SEEDS);
    let fixed = thresholds(1.0, REPORT_SEEDS);
    let few: Vec<(AttackPlan, Vec<DayOutcome>)> = FEW_BLOCKS
        .map(|attack| (attack, guard.run(HonestTraffic::Normal, Some(&attack))))
        .to_vec();
    let parts = [
        ("Goals", goals(&guard, &few)),
        (
            "Attacks on few blocks",
            format!(
                "{}\n\n{}",
                few_blocks_text(),
                few_blocks(&guard, &fixed, &few)
            ),
        ),
        ("Attacks on many blocks", many_blocks_text().to_owned()),
        (
            "Attackers who enter codes",
            verifying_attackers(&guard, &fixed),
        ),
        ("Honest users", honest_users(&guard, &fixed)),
        ("Cost of closing a country", closing(&guard, &fixed)),
        ("Trade-off", trade_off_text().to_owned()),
        ("Choice of the settings", tuning()),
    ];
    let sections = parts.map(|(title, part)| format!("### {title}\n\n{part}"));
    EvaluationReport {
        tables: format!("{}\n\n{}", sections.join("\n\n"), fingerprint()),
        charts: vec![
            ("blocks.svg", many_blocks(&guard, &fixed)),
            ("roc.svg", trade_off()),
        ],
    }
}

/// Returns a comment with some figures of the first seed, by which a test finds a page that was
/// written from another rule.
pub fn fingerprint() -> String {
    let seed = *REPORT_SEEDS.start();
    let guard = guarded(GuardPolicy::default(), None, seed..=seed);
    let attacks = [
        FEW_BLOCKS[0],
        FEW_BLOCKS[3],
        verifying("verifying", 10),
        AttackPlan::on("many blocks", MIDDLE, 1_000, 1_000),
    ];
    let messages = attacks.map(|attack| {
        let outcomes = guard.run(HonestTraffic::Normal, Some(&attack));
        let messages: u32 = outcomes.iter().map(|outcome| outcome.attack_messages).sum();
        messages.to_string()
    });
    let outage = refused(&guard.run(HonestTraffic::Outage, None), None);
    format!("<!-- seed {seed}: {}; {outage:.3} -->", messages.join(", "))
}
