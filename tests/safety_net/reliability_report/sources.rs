//! What tries to break promises beside the tests of the gate, and what its last run
//! counted.

use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::support::{Figures, pages::number, repository};

/// Where runs keep what they counted.
const KEPT: &str = "tests/safety_net/reliability_report/results";

/// What tries to break a promise over and over, at random or for long.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Model,
    Histories,
    Kills,
    Backlog,
    Flood,
    Soak,
    Load,
    Fuzzing,
}

/// The figures of a run by its name, if one was kept.
pub fn kept<Kept: for<'a> Deserialize<'a>>(name: &str) -> Option<Kept> {
    read(&format!("{KEPT}/{name}.json"))
}

fn read<Kept: for<'a> Deserialize<'a>>(file: &str) -> Option<Kept> {
    let text = fs::read_to_string(repository::path(file)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}")))
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "the model",
            Self::Histories => "the histories",
            Self::Kills => "[kills](#replicas-killed-under-load)",
            Self::Backlog => "[a backlog](#a-backlog)",
            Self::Flood => "[a flood](#a-flood)",
            Self::Soak => "[hours of load](soak/README.md)",
            Self::Load => "[the comparison](performance.md)",
            Self::Fuzzing => "[any bytes at all](fuzzing.md)",
        }
    }

    /// What the last long run says of the promises that it tries to break. A run that saw
    /// one broken keeps no figures.
    pub fn last_run(self) -> String {
        let said = match self {
            Self::Model => of(["stateful_postgres", "stateful_sqlite"], |both| {
                format!("{} sequences, no difference", sum(both, "sequences"))
            }),
            Self::Histories => of(["history", "database"], |both| {
                format!("{} calls, no violation", sum(both, "calls"))
            }),
            Self::Kills => of(["kills"], |run| {
                format!(
                    "{} kills, {} sends acknowledged, none lost",
                    sum(run, "replicas killed"),
                    sum(run, "sends acknowledged")
                )
            }),
            Self::Backlog => of(["backlog"], |run| {
                format!(
                    "{} messages queued, each sent once",
                    sum(run, "messages queued while no provider took any")
                )
            }),
            Self::Flood => of(["flood"], |run| {
                format!(
                    "{} requests answered, {} refused, every other caller served",
                    sum(run, "requests answered"),
                    sum(run, "requests refused")
                )
            }),
            Self::Soak => read("docs/soak/soak.json").map(|run| soak(&run)),
            Self::Load => read("benches/compare/results/latest.json").map(|run| {
                let (pairs, violations) = loaded(&run);
                format!("{} pairs, {} violations", number(pairs), number(violations))
            }),
            Self::Fuzzing => read("fuzz/figures_of_last_run.json").map(|run| fuzzing(&run)),
        };
        said.unwrap_or_else(|| "no long run kept".to_owned())
    }
}

/// What all of these runs say together, if all were kept.
fn of<const RUNS: usize>(
    names: [&str; RUNS],
    say: impl Fn(&[Figures]) -> String,
) -> Option<String> {
    let runs: Option<Vec<Figures>> = names.into_iter().map(kept).collect();
    runs.map(|runs| say(&runs))
}

fn sum(runs: &[Figures], what: &str) -> String {
    let counts = runs.iter().filter_map(|run| run.counts.get(what));
    number(counts.sum::<u64>())
}

fn fuzzing(run: &Value) -> String {
    let targets = run.as_object().expect("each target has its figures");
    let all = |what: &str| {
        let of_target = |target: &Value| target[what].as_u64().expect("each target counts it");
        number(targets.values().map(of_target).sum::<u64>())
    };
    format!(
        "{} inputs, {} faults left",
        all("executions"),
        all("crashes")
    )
}

fn soak(run: &Value) -> String {
    let pairs = run["pairs"].as_u64().expect("the soak counts pairs");
    let failed = run["pairs_failed"].as_u64().expect("and failures");
    let verdicts = run["verdicts"].as_object().expect("and judges growth");
    let grew: Vec<&str> = verdicts
        .values()
        .filter(|verdict| verdict["level"] != true)
        .map(|verdict| verdict["name"].as_str().expect("what grows has a name"))
        .collect();
    let grew = if grew.is_empty() {
        "nothing grew".to_owned()
    } else {
        format!("grew: {}", grew.join(", "))
    };
    format!("{} pairs, {} failed, {grew}", number(pairs), number(failed))
}

/// The pairs that were put on otpd, wherever they stand, and what was against the rules.
fn loaded(results: &Value) -> (u64, u64) {
    if let Some(violations) = results["violations"].as_u64() {
        let pairs = results["pairs"].as_u64().expect("a load counts pairs");
        return (pairs, violations);
    }
    let inner: Vec<&Value> = match results {
        Value::Object(entries) => entries.values().collect(),
        Value::Array(elements) => elements.iter().collect(),
        _ => Vec::new(),
    };
    let counts = inner.into_iter().map(loaded);
    counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
}
