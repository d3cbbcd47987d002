//! What is not counted but looked at, whenever somebody scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::grid::SeriesLabels;

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It goes up and down.
    Gauge,
    /// It only grows.
    Counter,
}

/// One number of what is looked at.
pub struct CallbackSeries {
    labels: SeriesLabels,
    look: Box<dyn Fn() -> Option<f64> + Send + Sync>,
}

/// The number that `look` sees, with these labels; `None` where it cannot be seen.
pub fn series<const LABELS: usize>(
    labels: [(&'static str, String); LABELS],
    look: impl Fn() -> Option<f64> + Send + Sync + 'static,
) -> CallbackSeries {
    CallbackSeries {
        labels: labels.into(),
        look: Box::new(look),
    }
}

impl fmt::Debug for CallbackSeries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Series({:?})", self.labels)
    }
}

/// All numbers of one kind.
pub(super) struct CallbackCollector {
    pub kind: MetricKind,
    pub name: &'static str,
    pub help: &'static str,
    /// Looks at them, and names those that there are now.
    pub look: Box<dyn Fn() -> Vec<(SeriesLabels, f64)> + Send + Sync>,
}

impl fmt::Debug for CallbackCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Watched({})", self.name)
    }
}

/// Looks at all of these.
pub(super) fn sample_all(
    all: Vec<CallbackSeries>,
) -> Box<dyn Fn() -> Vec<(SeriesLabels, f64)> + Send + Sync> {
    Box::new(move || {
        let seen = |series: &CallbackSeries| Some((series.labels.clone(), (series.look)()?));
        all.iter().filter_map(seen).collect()
    })
}

impl Collector for CallbackCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Counter => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in (self.look)() {
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
