//! Metrics that are read at each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::grid::SeriesLabels;

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Value that goes up and down.
    Gauge,
    /// Value that only grows.
    Counter,
}

/// Series that is read at each scrape.
pub struct CallbackSeries {
    labels: SeriesLabels,
    read: Box<dyn Fn() -> Option<f64> + Send + Sync>,
}

/// Returns a series with these labels and the value that `read` returns. Without a value the series
/// is left out.
pub fn series<const LABELS: usize>(
    labels: [(&'static str, String); LABELS],
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) -> CallbackSeries {
    CallbackSeries {
        labels: labels.into(),
        read: Box::new(read),
    }
}

impl fmt::Debug for CallbackSeries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CallbackSeries({:?})", self.labels)
    }
}

/// Metric with series that are read at each scrape.
pub(super) struct CallbackCollector {
    pub kind: MetricKind,
    pub name: &'static str,
    pub help: &'static str,
    /// Returns the present series with their values.
    pub read: Box<dyn Fn() -> Vec<(SeriesLabels, f64)> + Send + Sync>,
}

impl fmt::Debug for CallbackCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CallbackCollector({})", self.name)
    }
}

/// Returns a reader of all these series.
pub(super) fn sample_all(
    all: Vec<CallbackSeries>,
) -> Box<dyn Fn() -> Vec<(SeriesLabels, f64)> + Send + Sync> {
    Box::new(move || {
        let sample = |series: &CallbackSeries| Some((series.labels.clone(), (series.read)()?));
        all.iter().filter_map(sample).collect()
    })
}

impl Collector for CallbackCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Counter => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in (self.read)() {
            let number = |encoder: &mut prometheus_client::encoding::MetricEncoder<'_>| match self
                .kind
            {
                MetricKind::Gauge => encoder.encode_gauge(&value),
                MetricKind::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
            };
            if labels.is_empty() {
                number(&mut metric)?;
            } else {
                number(&mut metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
