//! Report of a run.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    invariants::RuleViolations, process::ProcessUsage, settings::BenchSettings, stats::CallTally,
};

/// Report of a run. Its JSON form is documented in docs/bench.md, and stays stable.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Version of the load generator.
    pub otpd: &'static str,
    /// Settings of the run.
    pub settings: BenchSettings,
    /// Duration of the phase that counts.
    pub seconds: f64,
    /// Pairs that count and verified.
    pub pairs: u64,
    /// Pairs that count and did not.
    pub pairs_failed: u64,
    /// Pairs per second.
    pub pairs_per_second: f64,
    /// Pairs that arrived while too many were running.
    pub not_started: u64,
    /// Calls of `SendOtp`.
    pub send: CallCounts,
    /// Calls of `VerifyOtp`.
    pub verify: CallCounts,
    /// Outcomes, and expected refusals by their reason.
    pub outcomes: BTreeMap<String, u64>,
    /// All other results of calls, by status and reason.
    pub failures: BTreeMap<String, u64>,
    /// Violations of the invariants.
    pub violations: u64,
    /// Processes that were measured.
    pub processes: Vec<ProcessUsage>,
    /// Usage of this process.
    pub load_generator: LoadGenerator,
    /// Descriptions of the first violations.
    #[serde(skip)]
    pub violations_described: Vec<String>,
}

/// Calls of one kind that got a response.
#[derive(Clone, Debug, Serialize)]
pub struct CallCounts {
    /// Number of calls.
    pub count: u64,
    /// Latencies of the responses.
    pub latency_microseconds: LatencySummary,
}

/// Distribution of latencies, in microseconds, to three figures.
#[derive(Clone, Debug, Serialize)]
pub struct LatencySummary {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Maximum.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

/// Usage of the load generator itself.
#[derive(Clone, Debug, Serialize)]
pub struct LoadGenerator {
    /// Processor time; `None` if it is unknown.
    pub cpu_seconds: Option<f64>,
    /// Processor time per pair.
    pub cpu_microseconds_per_pair: Option<f64>,
}

/// Measurements of the phase that counts.
#[derive(Clone, Debug, Default)]
pub struct MeasuredPhase {
    /// Duration of the phase.
    pub time: Duration,
    /// Processes that were measured.
    pub processes: Vec<ProcessUsage>,
    /// Processor time of this process.
    pub own_cpu_seconds: Option<f64>,
}

impl BenchReport {
    /// Builds the report.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run has fewer than 2^53 pairs"
    )]
    pub fn new(
        settings: BenchSettings,
        counts: CallTally,
        violations: RuleViolations,
        measured: MeasuredPhase,
    ) -> Self {
        let seconds = measured.time.as_secs_f64();
        let pairs = counts.pairs as f64;
        let per_pair = |cpu_seconds: Option<f64>| {
            cpu_seconds
                .filter(|_| counts.pairs > 0)
                .map(|seconds| seconds * 1e6 / pairs)
        };
        Self {
            otpd: env!("CARGO_PKG_VERSION"),
            settings,
            seconds,
            pairs: counts.pairs,
            pairs_failed: counts.pairs_failed,
            pairs_per_second: if seconds > 0.0 { pairs / seconds } else { 0.0 },
            not_started: counts.not_started,
            send: CallCounts::of(&counts.send),
            verify: CallCounts::of(&counts.verify),
            outcomes: counts.outcomes,
            failures: counts.failures,
            violations: violations.count,
            processes: measured
                .processes
                .into_iter()
                .map(|usage| ProcessUsage {
                    cpu_microseconds_per_pair: per_pair(usage.cpu_seconds),
                    ..usage
                })
                .collect(),
            load_generator: LoadGenerator {
                cpu_seconds: measured.own_cpu_seconds,
                cpu_microseconds_per_pair: per_pair(measured.own_cpu_seconds),
            },
            violations_described: violations.first,
        }
    }

    /// Returns true if the servers worked correctly: there was no violation, and every
    /// pair verified, of which there must be one. On hot recipients pairs may be refused.
    pub fn passed(&self) -> bool {
        let all_verified = self.pairs_failed == 0 || self.settings.hot.is_some();
        self.violations == 0 && self.pairs > 0 && all_verified
    }

    /// Returns true if the load generator was so busy that it may have limited the load.
    pub fn is_busy(&self) -> bool {
        const BUSY: f64 = 0.8;
        #[expect(clippy::cast_precision_loss, reason = "the number of threads is small")]
        let available = self.seconds * self.settings.threads as f64;
        self.load_generator
            .cpu_seconds
            .is_some_and(|used| used > BUSY * available)
    }
}

impl CallCounts {
    fn of(latencies: &Histogram<u64>) -> Self {
        Self {
            count: latencies.len(),
            latency_microseconds: LatencySummary {
                p50: latencies.value_at_quantile(0.5),
                p90: latencies.value_at_quantile(0.9),
                p99: latencies.value_at_quantile(0.99),
                p999: latencies.value_at_quantile(0.999),
                max: latencies.max(),
                mean: latencies.mean(),
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stats::{CallKind, Stats};

    fn settings(hot: Option<usize>) -> BenchSettings {
        BenchSettings {
            addresses: vec!["127.0.0.1:50051".to_owned()],
            codes: vec!["otpd.log".into()],
            connections: 8,
            in_flight: 64,
            duration: Some(Duration::from_secs(10)),
            pairs: None,
            warm_up: Duration::from_millis(2_500),
            ramp: Duration::ZERO,
            rate: Some(150.5),
            wrong_share: 0.5,
            hot,
            max_attempts: 5,
            client_ips: 10_000,
            regions: 20,
            purpose: "default".to_owned(),
            receipt_audience: None,
            threads: 1,
        }
    }

    /// Two pairs and three failures in four seconds.
    fn counts() -> CallTally {
        let tally = Stats::default();
        for milliseconds in [1, 3] {
            let latency = Duration::from_millis(milliseconds);
            tally.record_call(CallKind::Send, latency, None);
            tally.record_call(CallKind::Verify, latency, Some("WRONG_CODE"));
            tally.record_call(CallKind::Verify, latency, Some("VERIFIED"));
            tally.record_pair(true, true);
        }
        for name in ["UNAVAILABLE", "UNAVAILABLE", "CODE_NOT_SEEN"] {
            tally.record_failure(name, true);
            tally.record_pair(false, true);
        }
        tally.record_not_started();
        tally.counts().clone()
    }

    fn measured() -> MeasuredPhase {
        let usage = |name: &str, cpu_seconds, bytes| ProcessUsage {
            name: name.to_owned(),
            cpu_seconds,
            cpu_microseconds_per_pair: None,
            resident_bytes: bytes,
            peak_resident_bytes: bytes,
        };
        MeasuredPhase {
            time: Duration::from_secs(4),
            processes: vec![
                usage("otpd", Some(0.5), Some(1 << 21)),
                usage("gone", None, None),
            ],
            own_cpu_seconds: Some(3.5),
        }
    }

    pub fn report(hot: Option<usize>, violations: RuleViolations) -> BenchReport {
        BenchReport::new(settings(hot), counts(), violations, measured())
    }

    #[test]
    fn json_format_is_stable() {
        let violations = RuleViolations {
            count: 12,
            first: vec!["challenge a: VERIFIED 2 times".to_owned()],
        };
        let report = serde_json::to_value(report(Some(5), violations)).unwrap();
        let latency = json!({
            "p50": 1_000, "p90": 3_001, "p99": 3_001, "p999": 3_001, "max": 3_001, "mean": 2_000.5,
        });
        let expected = json!({
            "otpd": env!("CARGO_PKG_VERSION"),
            "settings": {
                "addresses": ["127.0.0.1:50051"],
                "codes": ["otpd.log"],
                "connections": 8,
                "in_flight": 64,
                "duration": "10s",
                "pairs": null,
                "warm_up": "2s 500ms",
                "ramp": "0s",
                "rate": 150.5,
                "wrong_share": 0.5,
                "hot": 5,
                "max_attempts": 5,
                "client_ips": 10_000,
                "regions": 20,
                "purpose": "default",
                "receipt_audience": null,
                "threads": 1,
            },
            "seconds": 4.0,
            "pairs": 2,
            "pairs_failed": 3,
            "pairs_per_second": 0.5,
            "not_started": 1,
            "send": { "count": 2, "latency_microseconds": latency },
            "verify": { "count": 4, "latency_microseconds": latency },
            "outcomes": { "VERIFIED": 2, "WRONG_CODE": 2 },
            "failures": { "UNAVAILABLE": 2, "CODE_NOT_SEEN": 1 },
            "violations": 12,
            "processes": [
                {
                    "name": "otpd",
                    "cpu_seconds": 0.5,
                    "cpu_microseconds_per_pair": 250_000.0,
                    "resident_bytes": 2_097_152,
                    "peak_resident_bytes": 2_097_152,
                },
                {
                    "name": "gone",
                    "cpu_seconds": null,
                    "cpu_microseconds_per_pair": null,
                    "resident_bytes": null,
                    "peak_resident_bytes": null,
                },
            ],
            "load_generator": { "cpu_seconds": 3.5, "cpu_microseconds_per_pair": 1_750_000.0 },
        });
        assert_eq!(report, expected, "{report:#}");
    }

    #[test]
    fn run_without_pairs_reports_finite_numbers() {
        let nothing = BenchReport::new(
            settings(None),
            CallTally::default(),
            RuleViolations::default(),
            MeasuredPhase {
                time: Duration::ZERO,
                ..measured()
            },
        );
        assert!(!nothing.passed());
        let report = serde_json::to_value(&nothing).unwrap();
        assert_eq!(report["pairs_per_second"], 0.0);
        assert_eq!(report["send"]["latency_microseconds"]["mean"], 0.0);
        let per_pair = &report["processes"][0]["cpu_microseconds_per_pair"];
        assert_eq!(*per_pair, Value::Null);
        let table = nothing.to_string();
        assert!(table.contains("otpd          CPU 0.50 s; "), "{table}");
    }

    #[test]
    fn run_passes_if_all_verified_and_invariants_hold() {
        let none = RuleViolations::default;
        let one = || RuleViolations {
            count: 1,
            first: Vec::new(),
        };
        assert!(!report(None, none()).passed(), "pairs failed");
        assert!(report(Some(5), none()).passed());
        assert!(!report(Some(5), one()).passed());
        let mut counts = counts();
        counts.pairs_failed = 0;
        let good = |violations| {
            BenchReport::new(settings(None), counts.clone(), violations, measured()).passed()
        };
        assert!(good(none()));
        assert!(!good(one()));
    }
}
