//! Report of a run as a table.

use std::fmt;

use super::report::BenchReport;

impl fmt::Display for BenchReport {
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
                #[expect(clippy::cast_precision_loss, reason = "latencies are an hour at most")]
                let microseconds = microseconds as f64;
                write!(formatter, "{:>10}", milliseconds(microseconds))?;
            }
            writeln!(formatter, "{:>10}", milliseconds(latency.mean))?;
        }
        self.counts(formatter)?;
        self.usages(formatter)
    }
}

impl BenchReport {
    fn counts(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter)?;
        for (title, counts) in [("outcomes", &self.outcomes), ("failures", &self.failures)] {
            let list: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            let list = if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            };
            writeln!(formatter, "{title:<14}{list}")?;
        }
        for (title, count) in [
            ("pairs failed", self.pairs_failed),
            ("not started", self.not_started),
            ("violations", self.violations),
        ] {
            if count > 0 {
                writeln!(formatter, "{title:<14}{count}")?;
            }
        }
        for violation in &self.violations_described {
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
                "\notpd bench itself was busy nearly all the time, so the result may be its own limit; use more --threads"
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

#[cfg(test)]
mod tests {
    use crate::{invariants::RuleViolations, report::tests::report};

    #[test]
    fn table_lists_all_failures() {
        let violations = RuleViolations {
            count: 12,
            first: vec!["challenge a: VERIFIED 2 times".to_owned()],
        };
        let table = report(None, violations).to_string();
        for line in [
            "2 pairs in 4.0 s: 0.5 pairs/s\n",
            "SendOtp            2   1.00 ms   3.00 ms   3.00 ms   3.00 ms   3.00 ms   2.00 ms\n",
            "VerifyOtp          4 ",
            "outcomes      VERIFIED 2, WRONG_CODE 2\n",
            "failures      CODE_NOT_SEEN 1, UNAVAILABLE 2\n",
            "pairs failed  3\n",
            "not started   1\n",
            "violations    12\n",
            "VIOLATION     challenge a: VERIFIED 2 times\n",
            "otpd          CPU 0.50 s, 250000 µs a pair; memory 2.0 MiB, at most 2.0 MiB\n",
            "gone          CPU unknown; it has ended\n",
            "otpd bench    CPU 3.50 s, 1750000 µs a pair\n",
            "use more --threads\n",
        ] {
            assert!(table.contains(line), "no {line:?} in {table}");
        }
    }
}
