//! Long runs that test the promises beyond the gate, and the counts of the last one.

use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::support::{Figures, pages::number, repository};

/// Directory of the counts of the last runs.
const KEPT: &str = "tests/safety_net/reliability_report/results";

/// Kind of run that tests a promise repeatedly, at random or for hours.
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

/// Returns the stored counts of the last run of that name.
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
            Self::Flood => "[overload](#overload)",
            Self::Soak => "[hours of load](soak/README.md)",
            Self::Load => "[the comparison](performance.md)",
            Self::Fuzzing => "[fuzzing](fuzzing.md)",
        }
    }

    /// Summarizes the last long run. A run that finds a broken promise stores no counts.
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
                    "{} kills, {} acknowledged sends, none lost",
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
        said.unwrap_or_else(|| "no long run stored".to_owned())
    }
}

/// Summarizes these runs together, if all are stored.
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
    let targets = run.as_object().expect("one entry per target");
    let all = |what: &str| {
        let of_target = |target: &Value| target[what].as_u64().expect("each target has this count");
        number(targets.values().map(of_target).sum::<u64>())
    };
    format!(
        "{} inputs, {} open crashes",
        all("executions"),
        all("crashes")
    )
}

fn soak(run: &Value) -> String {
    let pairs = run["pairs"]
        .as_u64()
        .expect("the soak has a count of pairs");
    let failed = run["pairs_failed"]
        .as_u64()
        .expect("the soak has a count of failures");
    let verdicts = run["verdicts"]
        .as_object()
        .expect("the soak has verdicts on growth");
    let grew: Vec<&str> = verdicts
        .values()
        .filter(|verdict| verdict["level"] != true)
        .map(|verdict| verdict["name"].as_str().expect("each verdict has a name"))
        .collect();
    let grew = if grew.is_empty() {
        "no growth".to_owned()
    } else {
        format!("grew: {}", grew.join(", "))
    };
    format!("{} pairs, {} failed, {grew}", number(pairs), number(failed))
}

/// Sums the pairs and the violations of all loads in the results.
fn loaded(results: &Value) -> (u64, u64) {
    if let Some(violations) = results["violations"].as_u64() {
        let pairs = results["pairs"]
            .as_u64()
            .expect("each load has a count of pairs");
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
