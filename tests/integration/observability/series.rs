//! Series exported by a running otpd, by their labels.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Scrape;

/// All series, by the names of their metrics.
#[derive(Debug, Default)]
pub struct AllSeries(BTreeMap<String, Vec<BTreeMap<String, String>>>);

impl AllSeries {
    pub fn of(scrape: &Scrape) -> Self {
        let mut all = Self::default();
        for series in scrape.series.keys() {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let pairs = labels.trim_end_matches('}').split("\",");
            let labels = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
                let (label, value) = pair.split_once("=\"").expect("a label has a value");
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            let same_name = all.0.entry(name.to_owned()).or_default();
            same_name.push(labels.collect());
        }
        all
    }

    /// Returns true if there is a series of that name; a histogram has it before `_bucket`.
    pub fn knows(&self, metric: &str) -> bool {
        let buckets = format!("{metric}_bucket");
        self.0.contains_key(metric) || self.0.contains_key(&buckets)
    }

    /// The values of a label.
    pub fn values(&self, metric: &str, label: &str) -> BTreeSet<&str> {
        let all = self.0.get(metric).into_iter().flatten();
        all.filter_map(|labels| labels.get(label))
            .map(String::as_str)
            .collect()
    }
}
