//! Statistics of calls and pairs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// Maximum latency that is measured; a call is given up long before.
const MAX_LATENCY: Duration = Duration::from_hours(1);

/// Significant figures of latencies.
const SIGNIFICANT_FIGURES: u8 = 3;

/// Kind of the two calls of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// `SendOtp`.
    Send,
    /// `VerifyOtp`.
    Verify,
}

/// Statistics of a run, shared by all pairs.
#[derive(Debug, Default)]
pub struct Stats(Mutex<CallTally>);

/// Counters.
#[derive(Clone, Debug)]
pub struct CallTally {
    /// Latencies of `SendOtp`, in microseconds.
    pub send: Histogram<u64>,
    /// Latencies of `VerifyOtp`, in microseconds.
    pub verify: Histogram<u64>,
    /// Expected responses, by outcome or reason.
    pub outcomes: BTreeMap<String, u64>,
    /// Calls without an expected response, by status and reason.
    pub failures: BTreeMap<String, u64>,
    /// Pairs that verified.
    pub pairs: u64,
    /// Pairs that did not.
    pub pairs_failed: u64,
    /// Pairs that could not be started in time.
    pub not_started: u64,
    /// All pairs that verified, also those that do not count.
    pub all_pairs: u64,
    /// All calls that failed, also those that do not count.
    pub all_failures: u64,
}

impl Default for CallTally {
    fn default() -> Self {
        Self {
            send: latencies(),
            verify: latencies(),
            outcomes: BTreeMap::new(),
            failures: BTreeMap::new(),
            pairs: 0,
            pairs_failed: 0,
            not_started: 0,
            all_pairs: 0,
            all_failures: 0,
        }
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(microseconds(MAX_LATENCY), SIGNIFICANT_FIGURES)
        .expect("an hour of microseconds and three figures fit a histogram")
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Stats {
    /// Records a response after `latency`; `outcome` is the outcome of a verification, or
    /// the reason of an expected refusal.
    pub fn record_call(&self, rpc: CallKind, latency: Duration, outcome: Option<&str>) {
        let counts = &mut *self.counts();
        let latencies = match rpc {
            CallKind::Send => &mut counts.send,
            CallKind::Verify => &mut counts.verify,
        };
        latencies.saturating_record(microseconds(latency));
        if let Some(outcome) = outcome {
            add_one(&mut counts.outcomes, outcome);
        }
    }

    /// Records a failure by its name; `counted` is true if it counts.
    pub fn record_failure(&self, name: &str, counted: bool) {
        let counts = &mut *self.counts();
        counts.all_failures += 1;
        if counted {
            add_one(&mut counts.failures, name);
        }
    }

    /// Records the end of a pair.
    pub fn record_pair(&self, as_expected: bool, counted: bool) {
        let counts = &mut *self.counts();
        counts.all_pairs += u64::from(as_expected);
        counts.pairs += u64::from(as_expected && counted);
        counts.pairs_failed += u64::from(!as_expected && counted);
    }

    /// Records a pair that counts and could not be started.
    pub fn record_not_started(&self) {
        self.counts().not_started += 1;
    }

    /// Returns the locked counters.
    pub fn counts(&self) -> MutexGuard<'_, CallTally> {
        // A count that is missing because of a panic is no worse than the panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_one(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

/// Returns the reason of a refusal; empty if the status has none, such as after a lost
/// connection.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info();
    info.map(|info| info.reason.clone()).unwrap_or_default()
}

/// Returns the name of a failed call: the status as the gRPC specification writes it, and
/// the reason if there is one.
pub fn failure(status: &Status) -> String {
    // Text of tonic if its own time-out ends a call.
    let timed_out =
        status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string();
    let code = if timed_out {
        Code::DeadlineExceeded
    } else {
        status.code()
    };
    let name = capitals(&format!("{code:?}"));
    format!("{name} {}", reason(status)).trim_end().to_owned()
}

/// Converts `ResourceExhausted` to `RESOURCE_EXHAUSTED`.
fn capitals(name: &str) -> String {
    let mut capitals = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !capitals.is_empty() {
            capitals.push('_');
        }
        capitals.push(character.to_ascii_uppercase());
    }
    capitals
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn failures_are_grouped_by_status_and_reason() {
        let details = ErrorDetails::with_error_info("SEND_LIMIT", "otp.v1", HashMap::new());
        let limited = Status::with_error_details(Code::ResourceExhausted, "wait", details);
        for (status, name) in [
            (limited, "RESOURCE_EXHAUSTED SEND_LIMIT"),
            (Status::unavailable("transport error"), "UNAVAILABLE"),
            (Status::cancelled("Timeout expired"), "DEADLINE_EXCEEDED"),
            (Status::cancelled("somebody did"), "CANCELLED"),
            (
                Status::new(Code::FailedPrecondition, ""),
                "FAILED_PRECONDITION",
            ),
        ] {
            assert_eq!(failure(&status), name);
        }
    }

    #[test]
    fn only_measured_pairs_are_counted() {
        let tally = Stats::default();
        tally.record_call(CallKind::Verify, Duration::from_millis(3), Some("VERIFIED"));
        tally.record_call(CallKind::Send, 2 * MAX_LATENCY, None);
        tally.record_failure("UNAVAILABLE", false);
        tally.record_failure("UNAVAILABLE", true);
        for (as_expected, counted) in [(true, true), (true, false), (false, true), (false, false)] {
            tally.record_pair(as_expected, counted);
        }
        let counts = tally.counts();
        assert_eq!((counts.send.len(), counts.verify.len()), (1, 1));
        assert_eq!(counts.outcomes["VERIFIED"], 1);
        assert_eq!(counts.failures["UNAVAILABLE"], 1);
        assert_eq!((counts.pairs, counts.pairs_failed), (1, 1));
        assert_eq!((counts.all_pairs, counts.all_failures), (2, 2));
    }
}
