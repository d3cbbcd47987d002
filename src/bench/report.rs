//! What a run found, for people and for machines.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{process::Usage, rules::Violations, settings::Settings, tally::Counts};

/// What a run found. As JSON it is documented in docs/bench.md, and keeps its shape.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of the load generator.
    pub otpd: &'static str,
    /// What it was told.
    pub settings: Settings,
    /// How long pairs counted.
    pub seconds: f64,
    /// The pairs that count and ended as they should.
    pub pairs: u64,
    /// The pairs that count and did not.
    pub pairs_failed: u64,
    /// Pairs by seconds.
    pub pairs_per_second: f64,
    /// Pairs that had arrived, and found too many running.
    pub not_started: u64,
    /// The calls of `SendOtp`.
    pub send: Calls,
    /// The calls of `VerifyOtp`.
    pub verify: Calls,
    /// Verdicts, and expected refusals by their reason.
    pub outcomes: BTreeMap<String, u64>,
    /// Everything else that came of a call, by status and reason.
    pub failures: BTreeMap<String, u64>,
    /// Verdicts against the rules.
    pub violations: u64,
    /// The processes that were watched.
    pub processes: Vec<Usage>,
    /// This process.
    pub load_generator: LoadGenerator,
    #[serde(skip)]
    violations_told: Vec<String>,
}

/// Calls of one kind that were answered.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// How long the answers took.
    pub latency_microseconds: Latency,
}

/// A distribution of latencies, in microseconds, to three figures.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: u64,
    /// Nine of ten took no longer.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
}

/// What the load itself cost.
#[derive(Clone, Debug, Serialize)]
pub struct LoadGenerator {
    /// Processor time; nothing where it is not known.
    pub cpu_seconds: Option<f64>,
    /// The same for each pair.
    pub cpu_microseconds_per_pair: Option<f64>,
}

/// What was measured of the time that counts.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long it was.
    pub time: Duration,
    /// The processes that were watched.
    pub processes: Vec<Usage>,
    /// Processor time of this process.
    pub own_cpu_seconds: Option<f64>,
}

impl Report {
    /// Puts together what was found.
    #[expect(clippy::cast_precision_loss, reason = "nobody waits for 2^53 pairs")]
    pub fn new(
        settings: Settings,
        counts: Counts,
        violations: Violations,
        measured: Measured,
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
            send: Calls::of(&counts.send),
            verify: Calls::of(&counts.verify),
            outcomes: counts.outcomes,
            failures: counts.failures,
            violations: violations.count,
            processes: measured
                .processes
                .into_iter()
                .map(|usage| Usage {
                    cpu_microseconds_per_pair: per_pair(usage.cpu_seconds),
                    ..usage
                })
                .collect(),
            load_generator: LoadGenerator {
                cpu_seconds: measured.own_cpu_seconds,
                cpu_microseconds_per_pair: per_pair(measured.own_cpu_seconds),
            },
            violations_told: violations.first,
        }
    }

    /// Whether the servers did what they should: nothing was against the rules, and
    /// every pair verified, of which there must be one. Who hammers may be turned away.
    pub fn is_good(&self) -> bool {
        let all_verified = self.pairs_failed == 0 || self.settings.hot.is_some();
        self.violations == 0 && self.pairs > 0 && all_verified
    }

    /// Whether the load generator was so busy that it may have held up the load.
    fn is_busy(&self) -> bool {
        const BUSY: f64 = 0.8;
        #[expect(clippy::cast_precision_loss, reason = "threads are few")]
        let available = self.seconds * self.settings.threads as f64;
        self.load_generator
            .cpu_seconds
            .is_some_and(|used| used > BUSY * available)
    }
}

impl Calls {
    fn of(latencies: &Histogram<u64>) -> Self {
        Self {
            count: latencies.len(),
            latency_microseconds: Latency {
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

/// The table.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} pairs in {:.1} s: {:.1} pairs/s\n",
            self.pairs, self.seconds, self.pairs_per_second
        )?;
        writeln!(
            formatter,
            "{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "calls", "p50", "p90", "p99", "p99.9", "max", "mean"
        )?;
        for (name, calls) in [("SendOtp", &self.send), ("VerifyOtp", &self.verify)] {
            let latency = &calls.latency_microseconds;
            write!(formatter, "{name:<10}{:>10}", calls.count)?;
            for microseconds in [
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p999,
                latency.max,
            ] {
                #[expect(clippy::cast_precision_loss, reason = "an hour at most")]
                let microseconds = microseconds as f64;
                write!(formatter, "{:>10}", milliseconds(microseconds))?;
            }
            writeln!(formatter, "{:>10}", milliseconds(latency.mean))?;
        }
        self.counts(formatter)?;
        self.usages(formatter)
    }
}

impl Report {
    fn counts(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter)?;
        for (what, counts) in [("outcomes", &self.outcomes), ("failures", &self.failures)] {
            let list: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            let list = if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            };
            writeln!(formatter, "{what:<14}{list}")?;
        }
        for (what, count) in [
            ("pairs failed", self.pairs_failed),
            ("not started", self.not_started),
            ("violations", self.violations),
        ] {
            if count > 0 {
                writeln!(formatter, "{what:<14}{count}")?;
            }
        }
        for violation in &self.violations_told {
            writeln!(formatter, "VIOLATION     {violation}")?;
        }
        Ok(())
    }

    fn usages(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter)?;
        for usage in &self.processes {
            let cpu = cpu(usage.cpu_seconds, usage.cpu_microseconds_per_pair);
            let memory = match (usage.resident_bytes, usage.peak_resident_bytes) {
                (Some(now), Some(peak)) => {
                    format!("; memory {}, at most {}", mebibytes(now), mebibytes(peak))
                }
                _ => "; it has ended".to_owned(),
            };
            writeln!(formatter, "{:<14}{cpu}{memory}", usage.name)?;
        }
        let own = &self.load_generator;
        let cpu = cpu(own.cpu_seconds, own.cpu_microseconds_per_pair);
        writeln!(formatter, "{:<14}{cpu}", "otpd bench")?;
        if self.is_busy() {
            writeln!(
                formatter,
                "\notpd bench itself was busy nearly all the time: what it measured may be its own limit; give it more --threads"
            )?;
        }
        Ok(())
    }
}

fn cpu(seconds: Option<f64>, microseconds_per_pair: Option<f64>) -> String {
    match (seconds, microseconds_per_pair) {
        (Some(seconds), Some(each)) => format!("CPU {seconds:.2} s, {each:.0} µs a pair"),
        (Some(seconds), None) => format!("CPU {seconds:.2} s"),
        _ => "CPU unknown".to_owned(),
    }
}

fn milliseconds(microseconds: f64) -> String {
    format!("{:.2} ms", microseconds / 1_000.0)
}

#[expect(clippy::cast_precision_loss, reason = "no process uses 2^53 bytes")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
