//! Metrics of one name, found by the numbers of their labels' values.

use std::sync::OnceLock;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        TypedMetric,
        family::{Family, MetricConstructor},
    },
    registry::Registry,
};

use super::ConfiguredNames;

/// The labels of one series.
pub(super) type SeriesLabels = Vec<(&'static str, String)>;

/// A label, with all its values.
pub(super) type LabelDomain = (&'static str, ConfiguredNames);

/// The series of one metric. Each is made when it is first used, and found without its
/// name from then on.
#[derive(Debug)]
pub(super) struct CounterGrid<M, C, const LABELS: usize> {
    family: Family<SeriesLabels, M, C>,
    labels: [LabelDomain; LABELS],
    cells: Box<[OnceLock<M>]>,
}

impl<M, C, const LABELS: usize> CounterGrid<M, C, LABELS>
where
    M: EncodeMetric + TypedMetric + Clone + std::fmt::Debug + Send + Sync + 'static,
    C: MetricConstructor<M> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    /// A metric without series so far.
    pub fn new(
        name: &'static str,
        help: &'static str,
        labels: [LabelDomain; LABELS],
        constructor: C,
        registry: &mut Registry,
    ) -> Self {
        let family = Family::new_with_constructor(constructor);
        registry.register_collector(Box::new(DescribedMetric {
            name,
            help,
            family: family.clone(),
        }));
        Self::of(family, labels)
    }

    fn of(family: Family<SeriesLabels, M, C>, labels: [LabelDomain; LABELS]) -> Self {
        let count = labels.iter().map(|(_, values)| values.len()).product();
        Self {
            family,
            labels,
            cells: (0..count).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The same metric with other values of its labels; its series go on.
    pub fn with(&self, labels: [LabelDomain; LABELS]) -> Self {
        Self::of(self.family.clone(), labels)
    }

    /// The values of a label.
    pub fn names(&self, label: usize) -> &ConfiguredNames {
        &self.labels[label].1
    }

    /// The series of these values, by their numbers.
    pub fn at(&self, numbers: [usize; LABELS]) -> &M {
        let place = self
            .labels
            .iter()
            .zip(numbers)
            .fold(0, |place, ((_, values), number)| {
                place * values.len() + number
            });
        self.cell(place)
    }

    /// The same with all its series, at nought: Prometheus sees an increase only of a
    /// series that it has seen before, so that a first count would go unnoticed.
    pub fn with_all_series(self) -> Self {
        for place in 0..self.cells.len() {
            self.cell(place);
        }
        self
    }

    fn cell(&self, place: usize) -> &M {
        self.cells[place].get_or_init(|| {
            let mut rest = place;
            let labels = self.labels.iter().rev().map(|(label, values)| {
                let number = rest % values.len();
                rest /= values.len();
                (*label, values[number].clone())
            });
            let mut labels: SeriesLabels = labels.collect();
            labels.reverse();
            self.family.get_or_create_owned(&labels)
        })
    }
}

/// A metric that is described also while it has no series.
#[derive(Debug)]
struct DescribedMetric<M, C> {
    name: &'static str,
    help: &'static str,
    family: Family<SeriesLabels, M, C>,
}

impl<M, C> Collector for DescribedMetric<M, C>
where
    M: EncodeMetric + TypedMetric + std::fmt::Debug + Send + Sync + 'static,
    C: MetricConstructor<M> + std::fmt::Debug + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let kind = self.family.metric_type();
        let metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        self.family.encode(metric)
    }
}
