//! docs/metrics.md, compared with a live scrape.

use std::collections::{BTreeMap, BTreeSet};

use super::get_every_answer;
use crate::support::{Database, Kind, OPERATIONS, Replica, Scrape};

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// Entry of the page for a metric.
struct Row {
    kind: String,
    labels: BTreeSet<String>,
}

/// The rows of the page's tables, by the metric's name.
fn page() -> BTreeMap<String, Row> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells = cells(line);
        assert_eq!(cells.len(), 5, "{line}");
        let labels = cells[2].split('`').skip(1).step_by(2);
        let row = Row {
            kind: cells[1].clone(),
            labels: labels.map(str::to_owned).collect(),
        };
        (cells[0].trim_matches('`').to_owned(), row)
    })
    .collect()
}

/// The labels of a series.
fn labels(series: &str) -> BTreeSet<String> {
    let Some((_, labels)) = series.split_once('{') else {
        return BTreeSet::new();
    };
    // None of the values holds an equals sign.
    let labels = labels.split("=\"").map(|part| {
        let start = part.rfind([',', '"']).map_or(0, |position| position + 1);
        part[start..].to_owned()
    });
    let mut labels: BTreeSet<String> = labels.collect();
    labels.retain(|label| !["}", "le"].contains(&label.as_str()));
    labels
}

/// The metric that a series is of.
fn metric_of(series: &str, scrape: &Scrape) -> String {
    let name = series.split('{').next().expect("there is a first part");
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
        let name = name.strip_suffix(suffix)?;
        scrape.kinds.contains_key(name).then(|| name.to_owned())
    });
    of_histogram.unwrap_or_else(|| name.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_page_lists_every_metric_with_type_and_labels() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    get_every_answer(&database, &replica).await;
    let scrape = replica
        .scrape_until(|scrape| {
            let is_verified = |series: &String| series.starts_with("otpd_codes_verified_total{");
            scrape.series.keys().any(is_verified)
                && scrape.series.contains_key("otpd_messages_queued")
        })
        .await;
    let page = page();
    let documented: BTreeMap<&String, &String> =
        page.iter().map(|(name, row)| (name, &row.kind)).collect();
    let seen: BTreeMap<&String, &String> = scrape.kinds.iter().collect();
    assert_eq!(documented, seen);
    let mut with_series = BTreeSet::new();
    for series in scrape.series.keys() {
        let metric = metric_of(series, &scrape);
        assert_eq!(labels(series), page[&metric].labels, "{series}");
        with_series.insert(metric);
    }
    // The other metrics have no series before a request is refused or reaches a limit.
    assert!(with_series.len() + 4 > page.len(), "{with_series:?}");
}
