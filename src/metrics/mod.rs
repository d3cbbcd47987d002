//! Metrics of a running otpd, in the formats that Prometheus scrapes.
//!
//! A module that counts gets a handle, which is cheap to clone and works without a scrape, as in a
//! test. Counting costs an atomic addition, because a counter is found by small numbers and not by
//! names. docs/metrics.md describes each metric.

mod batches;
mod callback;
mod delivery;
mod grid;
mod process;
mod rpc_labels;
mod rpc_latency;
mod rpc_outcomes;

use std::{collections::BTreeSet, sync::Arc};

use prometheus_client::{encoding, registry::Registry};

pub use batches::BatchMetrics;
pub use callback::{CallbackSeries, MetricKind, series};
pub use delivery::{DeliveryMetrics, MessageOutcome};
pub(crate) use grid::CounterGrid;
pub use rpc_labels::{ReceiptOutcome, RpcName, RpcOutcome, RpcResult};
pub use rpc_latency::{RpcLatency, RpcMethod, code_name};
pub use rpc_outcomes::RpcOutcomeCounters;

use callback::{CallbackCollector, sample_all};

/// Buckets of durations in seconds: from half a millisecond to ten seconds, the range of a
/// statement, a wait or a whole request, with the usual duration in the middle.
pub(crate) const LATENCY_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Values of the labels that the configuration defines. Any other value is reported as `other`, so
/// that clients cannot create series.
#[derive(Clone, Debug, Default)]
pub struct LabelValues {
    /// Names of the callers.
    pub callers: BTreeSet<String>,
    /// Purposes of their codes.
    pub purposes: BTreeSet<String>,
    /// Names of the providers.
    pub providers: BTreeSet<String>,
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Durations of RPCs.
    pub calls: RpcLatency,
    /// Outcomes of RPCs.
    pub outcomes: RpcOutcomeCounters,
    /// Batches of requests.
    pub batches: BatchMetrics,
    /// Deliveries of messages.
    pub delivery: DeliveryMetrics,
}

impl Metrics {
    /// Returns metrics that start at zero.
    pub fn new(values: &LabelValues) -> Self {
        let mut registry = Registry::default();
        Self {
            calls: RpcLatency::new(&mut registry),
            outcomes: RpcOutcomeCounters::new(values, &mut registry),
            batches: BatchMetrics::new(&mut registry),
            delivery: DeliveryMetrics::new(values, &mut registry),
            registry,
        }
        .with_process()
    }

    /// Replaces the label values after a reload. Existing counts stay.
    pub fn set_label_values(&self, values: &LabelValues) {
        self.outcomes.set_label_values(values);
        self.delivery.set_label_values(values);
    }

    /// Returns the registry, for metrics that other modules define.
    pub(crate) fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Registers a metric with fixed series that are read at each scrape.
    pub fn register_callback(
        &mut self,
        kind: MetricKind,
        name: &'static str,
        help: &'static str,
        all: Vec<CallbackSeries>,
    ) {
        self.registry
            .register_collector(Box::new(CallbackCollector {
                kind,
                name,
                help,
                read: sample_all(all),
            }));
    }

    /// Registers a gauge with series that are read at each scrape: one for each value of `label` that
    /// `read` returns, which may differ between scrapes.
    pub fn register_callback_family(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        let labelled = move |(value, number)| (vec![(label, value)], number);
        self.registry
            .register_collector(Box::new(CallbackCollector {
                kind: MetricKind::Gauge,
                name,
                help,
                read: Box::new(move || read().into_iter().map(labelled).collect()),
            }));
    }

    fn with_process(mut self) -> Self {
        let one = || Some(1.0);
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        let build = vec![series(version, one)];
        self.register_callback(
            MetricKind::Gauge,
            "otpd_build_info",
            "Version of otpd that runs",
            build,
        );
        for (kind, name, help, read) in process::ALL {
            self.register_callback(kind, name, help, vec![series([], read)]);
        }
        self
    }

    /// Returns all metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice, because writing to a string cannot fail.
    pub fn open_metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Returns all metrics in the older text format of Prometheus.
    ///
    /// # Errors
    /// None in practice, because writing to a string cannot fail.
    pub fn prometheus(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encoding::prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Values of a label. The index of a value is its number.
pub(crate) type ConfiguredNames = Arc<[String]>;

/// Returns the values of a label that configuration does not change.
pub(crate) fn fixed_label_values<'a>(names: impl IntoIterator<Item = &'a str>) -> ConfiguredNames {
    names.into_iter().map(str::to_owned).collect()
}

/// Returns the configured values in their order, followed by `other`.
fn with_other(names: &BTreeSet<String>) -> ConfiguredNames {
    let other = std::iter::once("other".to_owned());
    names.iter().cloned().chain(other).collect()
}

/// Returns the number of a value, or that of `other` if the value is not configured.
fn number_of(names: &ConfiguredNames, name: &str) -> usize {
    let known = names.len().saturating_sub(1);
    names[..known]
        .binary_search_by(|known| known.as_str().cmp(name))
        .unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_labelled_other() {
        let names = with_other(&["shop", "crm"].map(str::to_owned).into());
        assert_eq!(number_of(&names, "crm"), 0);
        assert_eq!(number_of(&names, "shop"), 1);
        for other in ["", "other", "zzz", "+79991234567"] {
            assert_eq!(names[number_of(&names, other)], "other", "{other}");
        }
    }
}
