//! Aggregation of audit lines that unauthenticated clients cause. The first line of an address and
//! cause is written at once, and a summary of the others at the end of its window.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Event,
    field::{Field, Visit},
};

use otpd_base::log_targets::AUDIT;
use otpd_rules::subscriber_network;

/// Time in which lines of one address and cause are aggregated.
const WINDOW: Duration = Duration::from_secs(10);
/// Maximum number of distinguished addresses and causes in a window. All others of an event count as
/// one.
const MAX_ENTRIES: usize = 128;
/// Maximum length of a cause, because a part of it may come from the client.
const MAX_CAUSE: usize = 200;
/// Name of the addresses beyond [`MAX_ENTRIES`].
const OTHERS: &str = "other addresses";

/// Marker of audit lines. A summary has it only in its own message.
const MARK: &str = "[OTP AUDIT] ";

/// Recent lines of unauthenticated clients.
#[derive(Debug, Default)]
pub(super) struct UnauthenticatedLog {
    entries: Mutex<HashMap<AggregationKey, AggregationWindow>>,
    /// Signals the first entry.
    filled: Condvar,
}

/// Key of lines that are aggregated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct AggregationKey {
    event: String,
    /// Network of the client.
    from: String,
    /// Cause without its numbers, such as the time at which a certificate expired.
    cause: String,
}

#[derive(Clone, Debug)]
struct AggregationWindow {
    ends_at: Instant,
    /// Cause of the first line.
    cause: String,
    /// Number of lines that were left out.
    repeats: u64,
}

impl UnauthenticatedLog {
    /// Returns whether a line is to be written. Counts it otherwise.
    pub fn admit(&self, event: &Event<'_>) -> bool {
        let mut key = AggregationKey::default();
        event.record(&mut key);
        self.admit_at(key, Instant::now())
    }

    fn admit_at(&self, mut key: AggregationKey, now: Instant) -> bool {
        let mut entries = self.lock();
        let mut cause = key.cause.clone();
        key.cause.retain(|character| !character.is_ascii_digit());
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            OTHERS.clone_into(&mut key.from);
            key.cause.clear();
            cause.clear();
        }
        if let Some(window) = entries.get_mut(&key) {
            window.repeats += 1;
            return false;
        }
        let window = AggregationWindow {
            ends_at: now + WINDOW,
            cause,
            repeats: 0,
        };
        entries.insert(key, window);
        if entries.len() == 1 {
            self.filled.notify_one();
        }
        true
    }

    /// Writes the summary of each window at its end, without end.
    pub fn run(&self) {
        loop {
            let mut entries = self.lock();
            let now = Instant::now();
            let next = entries.values().map(|window| window.ends_at).min();
            match next.map(|at| at.saturating_duration_since(now)) {
                None => drop(self.filled.wait(entries)),
                Some(Duration::ZERO) => {
                    let ended = take(&mut entries, |window| window.ends_at <= now);
                    drop(entries);
                    summarize(ended);
                }
                Some(pause) => drop(self.filled.wait_timeout(entries, pause)),
            }
        }
    }

    /// Writes the summaries of all windows.
    pub fn flush(&self) {
        let all = take(&mut self.lock(), |_| true);
        summarize(all);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AggregationKey, AggregationWindow>> {
        // A poisoned lock holds a consistent map, because no step of a change panics.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the windows that match `wanted`, and returns those with repeats.
fn take(
    entries: &mut HashMap<AggregationKey, AggregationWindow>,
    wanted: impl Fn(&AggregationWindow) -> bool,
) -> Vec<(AggregationKey, AggregationWindow)> {
    entries
        .extract_if(|_, window| wanted(window))
        .filter(|(_, window)| window.repeats > 0)
        .collect()
}

fn summarize(windows: Vec<(AggregationKey, AggregationWindow)>) {
    for (AggregationKey { event, from, .. }, AggregationWindow { cause, repeats, .. }) in windows {
        tracing::warn!(target: AUDIT, %event, %from, %cause, repeats, "[OTP AUDIT] Repeated");
    }
}

impl Visit for AggregationKey {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = || format!("{value:?}");
        match field.name() {
            "message" => self.event = text().replacen(MARK, "", 1),
            "from" => self.from = network_of(text()),
            "cause" => self.cause = text().chars().take(MAX_CAUSE).collect(),
            _ => {}
        }
    }
}

/// Returns the network of an address with or without a port.
fn network_of(from: String) -> String {
    let address = from
        .parse()
        .map(|address: SocketAddr| address.ip())
        .or_else(|_| from.parse::<IpAddr>());
    address.map_or(from, |address| subscriber_network(address).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(from: &str) -> AggregationKey {
        AggregationKey {
            event: "Authentication failed".to_owned(),
            from: network_of(from.to_owned()),
            cause: "the bearer token is nobody's".to_owned(),
        }
    }

    #[test]
    fn lines_of_one_network_are_aggregated_until_their_window_ends() {
        let log = UnauthenticatedLog::default();
        let start = Instant::now();
        let admit = |from: &str| log.admit_at(key(from), start);
        assert!(admit("192.0.2.1:1000"));
        assert!(!admit("192.0.2.1:1001"));
        assert!(!admit("192.0.2.1"));
        assert!(admit("192.0.2.2:1000"));
        assert!(admit("[2001:db8::1]:1000"));
        assert!(!admit("[2001:db8::ffff:2]:1000"));
        let because = |cause: &str| AggregationKey {
            cause: cause.to_owned(),
            ..key("192.0.2.1")
        };
        assert!(log.admit_at(because("expired at 1796000000"), start));
        assert!(!log.admit_at(because("expired at 1796000001"), start));

        let ended = |at| {
            let mut ended = take(&mut log.lock(), |window| window.ends_at <= at);
            ended.sort_by_key(|(key, window)| (key.from.clone(), window.repeats));
            let ended = ended.into_iter();
            ended
                .map(|(key, window)| (key.from, window.repeats))
                .collect::<Vec<_>>()
        };
        assert!(ended(start).is_empty());
        let expected = [("192.0.2.1", 1), ("192.0.2.1", 2), ("2001:db8::", 1)];
        let expected = expected.map(|(from, repeats)| (from.to_owned(), repeats));
        assert_eq!(ended(start + WINDOW), expected);
        assert!(log.lock().is_empty());
        assert!(admit("192.0.2.1:1000"));
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_addresses() {
        let log = UnauthenticatedLog::default();
        let start = Instant::now();
        let count = 10_000;
        let admitted = (0..count)
            .filter(|number| {
                let from = format!("10.0.{}.{}:1", number / 256, number % 256);
                log.admit_at(key(&from), start)
            })
            .count();
        assert_eq!(admitted, MAX_ENTRIES + 1);
        let windows = take(&mut log.lock(), |_| true);
        let left_out = u64::try_from(count - admitted).unwrap();
        let others: Vec<_> = windows
            .iter()
            .map(|(key, window)| (&*key.from, window.repeats))
            .collect();
        assert_eq!(others, [(OTHERS, left_out)]);
    }
}
