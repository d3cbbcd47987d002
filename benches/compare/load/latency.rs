//! Latencies of calls.

use std::time::Duration;

use serde_json::{Value, json};

/// Latencies of one kind of call, in whole microseconds.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn merge(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Returns counts and exact quantiles, in the form of `otpd bench`.
    pub fn summary(mut self) -> Value {
        self.0.sort_unstable();
        let sum: u64 = self.0.iter().map(|&latency| u64::from(latency)).sum();
        let count = u64::try_from(self.0.len()).expect("a length in memory fits 64 bits");
        json!({
            "count": count,
            "latency_microseconds": {
                "p50": self.quantile(500),
                "p90": self.quantile(900),
                "p99": self.quantile(990),
                "p999": self.quantile(999),
                "max": self.0.last(),
                "mean": sum.checked_div(count),
            },
        })
    }

    /// Returns the smallest latency that `of_thousand` of a thousand calls did not
    /// exceed.
    fn quantile(&self, of_thousand: usize) -> Option<u32> {
        let rank = (self.0.len() * of_thousand).div_ceil(1_000);
        self.0.get(rank.saturating_sub(1)).copied()
    }
}
