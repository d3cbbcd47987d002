//! Requests on their way to the store.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::SECONDS;

/// Twice as many each time, up to the largest batch that can be configured.
const SIZES: [f64; 13] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0,
];

/// How batches do. Clones count into the same.
#[derive(Clone, Debug)]
pub struct BatchMetrics {
    size: Histogram,
    wait: Histogram,
    lost: Counter,
}

impl Default for BatchMetrics {
    /// Metrics that nobody scrapes.
    fn default() -> Self {
        Self {
            size: Histogram::new(SIZES),
            wait: Histogram::new(SECONDS),
            lost: Counter::default(),
        }
    }
}

impl BatchMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "otpd_batch_size",
            "Requests and settlements in one batch",
            metrics.size.clone(),
        );
        registry.register(
            "otpd_queue_wait_seconds",
            "How long each waited for its batch to begin",
            metrics.wait.clone(),
        );
        registry.register(
            "otpd_batch_conflicts",
            "Decisions made again, since another one was faster or the store gave it up",
            metrics.lost.clone(),
        );
        metrics
    }

    /// A batch begins, with what each in it has waited.
    pub fn batch_started(&self, size: usize, waits: impl Iterator<Item = Duration>) {
        // Exact far beyond any batch.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.size.observe(f64::from(size));
        for wait in waits {
            self.wait.observe(wait.as_secs_f64());
        }
    }

    /// So many of a batch are to be decided again.
    pub fn lost(&self, count: usize) {
        self.lost.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
