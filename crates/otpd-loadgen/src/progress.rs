//! Progress of a run, one line per second.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    phases::{LoadPhase, LoadPhases},
    scenario::PairScenario,
    stats::CallTally,
};

const SECOND: Duration = Duration::from_secs(1);

/// Display of the progress on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressLine {
    /// No display.
    Quiet,
    /// One line that is overwritten, for a terminal.
    InPlace,
    /// One line after the other.
    Lines,
}

impl ProgressLine {
    /// Displays the progress of a run until the task is aborted.
    pub async fn spawn(self, pairs: Arc<PairScenario>, phases: Arc<LoadPhases>) {
        if self == Self::Quiet {
            return;
        }
        let begin = Instant::now();
        let mut seconds = interval_at(begin + SECOND, SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut before = 0;
        let mut last = begin;
        loop {
            let now = seconds.tick().await;
            let line = {
                let counts = pairs.tally.counts();
                let new = counts.all_pairs - before;
                before = counts.all_pairs;
                line(now - begin, now - last, new, phases.phase(), &counts)
            };
            last = now;
            self.write(&line);
        }
    }

    /// Clears the line that was written last.
    pub fn end(self) {
        if self == Self::InPlace {
            self.write("");
        }
    }

    fn write(self, line: &str) {
        let text = match self {
            Self::Quiet => return,
            // Back to the beginning of the line, and clear it.
            Self::InPlace => format!("\r\u{1b}[K{line}"),
            Self::Lines => format!("{line}\n"),
        };
        let mut stderr = io::stderr().lock();
        // A closed standard error is ignored.
        let _ = stderr
            .write_all(text.as_bytes())
            .and_then(|()| stderr.flush());
    }
}

fn line(since: Duration, time: Duration, new: u64, phase: LoadPhase, counts: &CallTally) -> String {
    let phase = match phase {
        LoadPhase::Ramp => "ramp",
        LoadPhase::WarmUp => "warm-up",
        LoadPhase::Counted => "counted",
        LoadPhase::Over | LoadPhase::Stopped => "finishing",
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run has fewer than 2^53 pairs"
    )]
    let rate = new as f64 / time.as_secs_f64();
    let p99 = |name: &str, latencies: &Histogram<u64>| {
        if latencies.is_empty() {
            return String::new();
        }
        #[expect(clippy::cast_precision_loss, reason = "latencies are an hour at most")]
        let milliseconds = latencies.value_at_quantile(0.99) as f64 / 1_000.0;
        format!("  p99 {name} {milliseconds:.1} ms")
    };
    format!(
        "{:>4} s  {phase:<9}  {rate:>8.0} pairs/s  {} errors{}{}",
        since.as_secs(),
        counts.all_failures,
        p99("SendOtp", &counts.send),
        p99("VerifyOtp", &counts.verify),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_line_shows_rate_errors_and_latencies() {
        let mut counts = CallTally::default();
        assert_eq!(
            line(SECOND, SECOND, 0, LoadPhase::WarmUp, &counts),
            "   1 s  warm-up           0 pairs/s  0 errors"
        );
        counts.all_failures = 3;
        counts.send.record(12_300).unwrap();
        counts.verify.record(4_000).unwrap();
        assert_eq!(
            line(12 * SECOND, 2 * SECOND, 2_469, LoadPhase::Counted, &counts),
            "  12 s  counted        1234 pairs/s  3 errors  p99 SendOtp 12.3 ms  p99 VerifyOtp 4.0 ms"
        );
    }
}
