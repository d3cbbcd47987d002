//! What is counted and measured of a running otpd, in the form that Prometheus scrapes.
//!
//! Who has something to count is given a handle: cheap to clone, and as good in a test
//! that nobody scrapes. Counting costs an atomic addition: what a counter is found by
//! are small numbers, not names. docs/metrics.md says what each metric means.

mod batches;
mod callback;
mod delivery;
mod grid;
mod process;
mod rpc_latency;
mod rpc_outcomes;
mod store;

use std::{collections::BTreeSet, sync::Arc};

use prometheus_client::{encoding, registry::Registry};

pub use batches::BatchMetrics;
pub use callback::{CallbackSeries, MetricKind, series};
pub use delivery::{DeliveryMetrics, MessageOutcome};
pub use rpc_latency::{RpcLatency, RpcMethod, code_name};
pub use rpc_outcomes::{RpcName, RpcOutcome, RpcOutcomeCounters};
pub use store::{PurgeStats, StatementKind, StatementMetrics, StoreFailureKind};

use callback::{CallbackCollector, sample_all};

/// From half a millisecond to ten seconds: what one statement, one wait or one whole
/// request may take, its usual time in the middle.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The values of the labels that configuration names. Any other value is told as
/// `other`, so that nobody from outside can make series.
#[derive(Clone, Debug, Default)]
pub struct LabelValues {
    /// The callers.
    pub callers: BTreeSet<String>,
    /// What their codes may be for.
    pub purposes: BTreeSet<String>,
    /// Who takes messages.
    pub providers: BTreeSet<String>,
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Each RPC as a whole.
    pub calls: RpcLatency,
    /// What was answered to whom.
    pub answers: RpcOutcomeCounters,
    /// Requests on their way to the store.
    pub batches: BatchMetrics,
    /// What the store does.
    pub statements: StatementMetrics,
    /// Messages on their way.
    pub delivery: DeliveryMetrics,
}

impl Metrics {
    /// Metrics at nought.
    pub fn new(known: &LabelValues) -> Self {
        let mut registry = Registry::default();
        Self {
            calls: RpcLatency::new(&mut registry),
            answers: RpcOutcomeCounters::new(known, &mut registry),
            batches: BatchMetrics::new(&mut registry),
            statements: StatementMetrics::new(&mut registry),
            delivery: DeliveryMetrics::new(known, &mut registry),
            registry,
        }
        .with_process()
    }

    /// Takes other names for known from now on; what was counted stays.
    pub fn set_label_values(&self, known: &LabelValues) {
        self.answers.know(known);
        self.delivery.know(known);
    }

    /// Has something looked at whenever somebody scrapes.
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
                look: sample_all(all),
            }));
    }

    /// Has gauges looked at whenever somebody scrapes, of which there may be others each
    /// time: one for each value of `label`.
    pub fn register_callback_family(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        look: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static,
    ) {
        let labelled = move |(value, number)| (vec![(label, value)], number);
        self.registry
            .register_collector(Box::new(CallbackCollector {
                kind: MetricKind::Gauge,
                name,
                help,
                look: Box::new(move || look().into_iter().map(labelled).collect()),
            }));
    }

    fn with_process(mut self) -> Self {
        let one = || Some(1.0);
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        let build = vec![series(version, one)];
        self.register_callback(
            MetricKind::Gauge,
            "otpd_build_info",
            "The version that runs",
            build,
        );
        for (kind, name, help, read) in process::ALL {
            self.register_callback(kind, name, help, vec![series([], read)]);
        }
        self
    }

    /// Everything, in the OpenMetrics text format.
    ///
    /// # Errors
    /// None: a text takes whatever is written.
    pub fn open_metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Everything, in the older text format of Prometheus.
    ///
    /// # Errors
    /// None: a text takes whatever is written.
    pub fn prometheus(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encoding::prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The values of a label, each with its number.
type ConfiguredNames = Arc<[String]>;

/// Values that are fixed.
fn fixed<const COUNT: usize>(names: [&str; COUNT]) -> ConfiguredNames {
    names.iter().map(ToString::to_string).collect()
}

/// Known values in their order, and after them what stands for all others.
fn known(names: &BTreeSet<String>) -> ConfiguredNames {
    let other = std::iter::once("other".to_owned());
    names.iter().cloned().chain(other).collect()
}

/// The number of a known value; that of `other`, where it is not.
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
        let names = known(&["shop", "crm"].map(str::to_owned).into());
        assert_eq!(number_of(&names, "crm"), 0);
        assert_eq!(number_of(&names, "shop"), 1);
        for other in ["", "other", "zzz", "+79991234567"] {
            assert_eq!(names[number_of(&names, other)], "other", "{other}");
        }
    }
}
