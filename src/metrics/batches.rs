//! Metrics of batches.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::LATENCY_BUCKETS;

/// Buckets of batch sizes, doubling up to the largest size that can be configured.
const SIZES: [f64; 13] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0,
];

/// Metrics of batches. Clones share their counters.
#[derive(Clone, Debug)]
pub struct BatchMetrics {
    size: Histogram,
    wait: Histogram,
    lost: Counter,
}

impl Default for BatchMetrics {
    /// Returns metrics that are not part of any registry.
    fn default() -> Self {
        Self {
            size: Histogram::new(SIZES),
            wait: Histogram::new(LATENCY_BUCKETS),
            lost: Counter::default(),
        }
    }
}

impl BatchMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "otpd_batch_size",
            "Requests and message updates in one batch",
            metrics.size.clone(),
        );
        registry.register(
            "otpd_queue_wait_seconds",
            "Wait of each item for its batch to begin",
            metrics.wait.clone(),
        );
        registry.register(
            "otpd_batch_conflicts",
            "Decisions repeated because another replica wrote first or the store aborted the batch",
            metrics.lost.clone(),
        );
        metrics
    }

    /// Records the size of a batch that begins, and the wait of each of its items.
    pub fn batch_started(&self, size: usize, waits: impl Iterator<Item = Duration>) {
        // No batch comes near the bound.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.size.observe(f64::from(size));
        for wait in waits {
            self.wait.observe(wait.as_secs_f64());
        }
    }

    /// Counts decisions of a batch that must be repeated.
    pub fn lost(&self, count: usize) {
        self.lost.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
