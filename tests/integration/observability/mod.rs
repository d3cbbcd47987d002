//! Alerts, runbook and dashboard, compared with each other and with a running otpd.

mod live;
mod promtool;
mod queries;
mod runbook;
mod series;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::repository;

/// A PromQL expression with its location.
struct Asked {
    place: String,
    text: String,
    /// The labels that its legend names.
    legend: Vec<String>,
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of Prometheus's configuration in that folder.
fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let files = repository::files_below(&format!("deploy/observe/prometheus/{folder}"), "yml");
    assert!(!files.is_empty());
    files
}

/// The values of a key in the rules, such as the names of all alerts.
fn values_of(key: &str) -> Vec<String> {
    let files = yaml_files("rules").into_iter();
    let lines = files.flat_map(|file| read(&file).lines().map(str::to_owned).collect::<Vec<_>>());
    let mark = format!("{key}: ");
    lines
        .filter_map(|line| {
            let entry = line.trim_start().trim_start_matches("- ");
            entry.strip_prefix(&mark).map(str::to_owned)
        })
        .collect()
}

/// The expressions of the rules: each after `expr:`, on its line or below it.
fn of_rules() -> Vec<Asked> {
    let mut all = Vec::new();
    for file in yaml_files("rules") {
        let text = read(&file);
        let mut lines = text.lines().peekable();
        let mut rule = String::new();
        while let Some(line) = lines.next() {
            let entry = line.trim_start();
            if let Some(name) = entry.strip_prefix("- ") {
                name.clone_into(&mut rule);
            }
            let Some(first) = entry.strip_prefix("expr: ") else {
                continue;
            };
            let indent = line.len() - entry.len();
            let mut expression = first.trim_start_matches('|').to_owned();
            while let Some(more) =
                lines.next_if(|line| line.len() - line.trim_start().len() > indent)
            {
                expression.push(' ');
                expression.push_str(more.trim());
            }
            all.push(Asked {
                place: rule.clone(),
                text: expression,
                legend: Vec::new(),
            });
        }
    }
    all
}

/// The expressions of the dashboard, its choices among labels included.
fn of_dashboard() -> Vec<Asked> {
    let text = repository::read("deploy/observe/grafana/dashboards/otpd.json");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            let legend = words(&target["legendFormat"]);
            let names = legend.split("{{").skip(1);
            all.push(Asked {
                place: words(&panel["title"]),
                text: words(&target["expr"]),
                legend: names
                    .filter_map(|rest| rest.split_once("}}"))
                    .map(|(name, _)| name.trim().to_owned())
                    .collect(),
            });
        }
    }
    for choice in list(&dashboard["templating"]["list"]) {
        if let Some(query) = choice["query"]["query"].as_str() {
            let inside = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) = inside
                .and_then(|inside| inside.rsplit_once(", "))
                .expect("a choice is among the values of a label");
            all.push(Asked {
                place: format!("the choice {}", words(&choice["name"])),
                text: format!("count by ({label}) ({metric})"),
                legend: Vec::new(),
            });
        }
    }
    all
}

/// Returns the expressions of the runbook: code that names a metric.
fn of_runbook() -> Vec<Asked> {
    let text = repository::read("docs/runbook.md");
    let code = text.split('`').skip(1).step_by(2);
    let asked: Vec<Asked> = code
        .filter(|code| {
            ["otpd_", "rpc_server_", "process_", "route:"]
                .iter()
                .any(|start| code.contains(start))
        })
        .map(|code| Asked {
            place: "the runbook".to_owned(),
            text: code.to_owned(),
            legend: Vec::new(),
        })
        .collect();
    assert!(asked.len() > 20, "the runbook asks for something");
    asked
}
