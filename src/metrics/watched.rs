//! What is not counted but looked at, whenever somebody scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::grid::Labels;

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows.
    Counter,
}

/// One number of what is looked at.
pub struct Series {
    labels: Labels,
    look: Box<dyn Fn() -> Option<f64> + Send + Sync>,
}

/// The number that `look` sees, with these labels; `None` where it cannot be seen.
pub fn series<const LABELS: usize>(
    labels: [(&'static str, String); LABELS],
    look: impl Fn() -> Option<f64> + Send + Sync + 'static,
) -> Series {
    Series {
        labels: labels.into(),
        look: Box::new(look),
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Series({:?})", self.labels)
    }
}

#[derive(Debug)]
pub(super) struct Watched {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    all: Vec<Series>,
}

impl Watched {
    pub fn new(kind: Kind, name: &'static str, help: &'static str, all: Vec<Series>) -> Self {
        Self {
            kind,
            name,
            help,
            all,
        }
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for Series { labels, look } in &self.all {
            let Some(value) = look() else {
                continue;
            };
            let number =
                |encoder: &mut prometheus_client::encoding::MetricEncoder<'_>| match self.kind {
                    Kind::Gauge => encoder.encode_gauge(&value),
                    Kind::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
                };
            if labels.is_empty() {
                number(&mut metric)?;
            } else {
                number(&mut metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
