//! Metrics of store statements.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::PurgeStats;
use crate::metrics::{CounterGrid, LATENCY_BUCKETS, Metrics, fixed_label_values};

/// Kind of a store statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Loads records, limits and the clock.
    Load,
    /// Writes a batch.
    Write,
    /// Writes the state of messages, and nothing else.
    UpdateMessages,
    /// Finds locked rows, after a write waited too long for one.
    LockedRows,
    /// Loads the messages of records.
    LoadMessages,
    /// Loads the messages that are due.
    DueMessages,
    /// Loads the deliveries of codes that were verified.
    Attribution,
    /// Removes rows that no reply depends on.
    Purge,
    /// Checks that the store answers.
    Ping,
    /// Counts records and messages.
    Stats,
}

/// Labels of statements, in the order of [`StatementKind`].
const STATEMENTS: [&str; 10] = [
    "load",
    "write",
    "update_messages",
    "locked_rows",
    "load_messages",
    "due_messages",
    "attribution",
    "purge",
    "ping",
    "stats",
];

impl StatementKind {
    /// Returns its label.
    pub const fn name(self) -> &'static str {
        STATEMENTS[self as usize]
    }
}

/// Kind of a failed statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailureKind {
    /// The store did not answer.
    Unavailable,
    /// The caller no longer waited for the answer.
    Timeout,
    /// The database aborted the transaction because of another one.
    Conflict,
    /// Another session held the lock of a row for too long.
    Locked,
    /// The store holds a value that otpd never wrote.
    Corrupt,
    /// The store rejected a written value.
    Refused,
}

/// Labels of failures, in the order of [`StoreFailureKind`].
const FAILURES: [&str; 6] = [
    "unavailable",
    "timeout",
    "conflict",
    "locked",
    "corrupt",
    "refused",
];

impl StoreFailureKind {
    /// Returns its label.
    pub const fn name(self) -> &'static str {
        FAILURES[self as usize]
    }
}

/// Labels of purged tables, in the order of the fields of [`PurgeStats`].
const TABLES: [&str; 3] = ["records", "limits", "messages"];

/// Metrics of a store's statements. Clones share their counters.
#[derive(Clone, Debug)]
pub struct StatementMetrics {
    durations: [Histogram; STATEMENTS.len()],
    failures: [Counter; FAILURES.len()],
    purged: [Counter; TABLES.len()],
}

impl Default for StatementMetrics {
    /// Returns metrics that are not part of any registry.
    fn default() -> Self {
        Self::in_registry(&mut Registry::default())
    }
}

impl StatementMetrics {
    /// Registers the metrics of a store.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self::in_registry(metrics.registry_mut())
    }

    fn in_registry(registry: &mut Registry) -> Self {
        let durations = CounterGrid::<Histogram, fn() -> Histogram, 1>::new(
            "otpd_store_statement_duration_seconds",
            "Duration of one store statement, including the wait for a connection",
            [("statement", fixed_label_values(STATEMENTS))],
            || Histogram::new(LATENCY_BUCKETS),
            registry,
        );
        let failures = CounterGrid::<Counter, fn() -> Counter, 1>::new(
            "otpd_store_errors",
            "Store statements that failed",
            [("kind", fixed_label_values(FAILURES))],
            Counter::default,
            registry,
        );
        let purged = CounterGrid::<Counter, fn() -> Counter, 1>::new(
            "otpd_rows_purged",
            "Rows removed because no reply depends on them any more",
            [("table", fixed_label_values(TABLES))],
            Counter::default,
            registry,
        );
        Self {
            durations: array::from_fn(|number| durations.at([number]).clone()),
            failures: array::from_fn(|number| failures.at([number]).clone()),
            purged: array::from_fn(|number| purged.at([number]).clone()),
        }
    }

    /// Records one statement, and its failure if it failed.
    pub fn record(
        &self,
        statement: StatementKind,
        duration: Duration,
        failure: Option<StoreFailureKind>,
    ) {
        self.durations[statement as usize].observe(duration.as_secs_f64());
        if let Some(failure) = failure {
            self.failures[failure as usize].inc();
        }
    }

    /// Counts the rows that a purge has removed.
    pub fn record_purge(&self, purged: PurgeStats) {
        let PurgeStats {
            records,
            limits,
            messages,
        } = purged;
        for (counter, count) in self.purged.iter().zip([records, limits, messages]) {
            counter.inc_by(count);
        }
    }
}
