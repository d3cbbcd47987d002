//! Alerts and runbook entries match.

use std::collections::BTreeSet;

use super::values_of;
use crate::support::repository;

#[test]
fn alerts_and_runbook_entries_match() {
    let alerts: BTreeSet<String> = values_of("alert").into_iter().collect();
    assert_eq!(
        alerts.len(),
        values_of("alert").len(),
        "no name is there twice"
    );
    let runbook = repository::read("docs/runbook.md");
    let entries: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### ").map(str::to_owned))
        .collect();
    assert_eq!(alerts, entries);

    let urls: BTreeSet<String> = values_of("runbook_url").into_iter().collect();
    let expected = alerts.iter().map(|alert| {
        let anchor = alert.to_lowercase();
        format!("docs/runbook.md#{anchor}")
    });
    assert_eq!(urls, expected.collect());
}

#[test]
fn each_alert_has_severity_and_description() {
    let count = values_of("alert").len();
    let severities = values_of("severity");
    assert_eq!(severities.len(), count);
    assert!(
        severities
            .iter()
            .all(|one| ["page", "ticket"].contains(&one.as_str()))
    );
    assert_eq!(values_of("summary").len(), count);
    assert_eq!(values_of("description").len(), count);
    let runbook = repository::read("docs/runbook.md");
    for (alert, severity) in values_of("alert").iter().zip(severities) {
        let entry = format!("### {alert}\n\n`{severity}`. ");
        assert!(runbook.contains(&entry), "{alert} is a {severity}");
    }
}

/// A search for a line that otpd no longer writes would find nothing and suggest that nothing
/// happened.
#[test]
fn runbook_log_patterns_match_the_code() {
    let runbook = repository::read("docs/runbook.md");
    let sources = ["src", "crates"].map(|folder| repository::read_below(folder, "rs"));
    let sources = sources.concat();
    let mut count = 0;
    for command in runbook.split("grep ").skip(1) {
        // Options, then the pattern in quotes.
        let Some((options, rest)) = command.split_once('\'') else {
            continue;
        };
        let is_pattern = options
            .split_whitespace()
            .all(|word| word.starts_with('-') || word == "5");
        let (pattern, _) = rest.split_once('\'').expect("the quotes end");
        if !is_pattern || pattern.contains('[') {
            continue;
        }
        for words in pattern.split('|') {
            let level = ["ERROR", "WARN"].contains(&words);
            assert!(
                level || sources.contains(words.trim()),
                "otpd does not say {words:?}"
            );
            count += 1;
        }
    }
    assert!(count > 15, "{count} patterns were found");
}
