//! Metrics of store statements.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::PurgeStats;
use crate::{
    labels::label_enum,
    metrics::{CounterGrid, LATENCY_BUCKETS, Metrics, fixed_label_values},
};

label_enum! {
    /// Kind of a store statement.
    pub enum StatementKind {
        /// Loads records, limits and the clock.
        Load = "load",
        /// Writes a batch.
        Write = "write",
        /// Writes the state of messages, and nothing else.
        UpdateMessages = "update_messages",
        /// Finds locked rows, after a write waited too long for one.
        LockedRows = "locked_rows",
        /// Loads the messages of records.
        LoadMessages = "load_messages",
        /// Loads the messages that are due.
        DueMessages = "due_messages",
        /// Loads the deliveries of codes that were verified.
        Attribution = "attribution",
        /// Removes rows that no reply depends on.
        Purge = "purge",
        /// Checks that the store answers.
        Ping = "ping",
        /// Counts records and messages.
        Stats = "stats",
    }
}

label_enum! {
    /// Kind of a failed statement.
    pub enum StoreFailureKind {
        /// The store did not answer.
        Unavailable = "unavailable",
        /// The caller no longer waited for the answer.
        Timeout = "timeout",
        /// The database aborted the transaction because of another one.
        Conflict = "conflict",
        /// Another session held the lock of a row for too long.
        Locked = "locked",
        /// The store holds a value that otpd never wrote.
        Corrupt = "corrupt",
        /// The store rejected a written value.
        Refused = "refused",
    }
}

/// Labels of purged tables, in the order of the fields of [`PurgeStats`].
const TABLES: [&str; 3] = ["records", "limits", "messages"];

/// Metrics of a store's statements. Clones share their counters.
#[derive(Clone, Debug)]
pub struct StatementMetrics {
    durations: [Histogram; StatementKind::ALL.len()],
    failures: [Counter; StoreFailureKind::ALL.len()],
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
            [("statement", fixed_label_values(StatementKind::names()))],
            || Histogram::new(LATENCY_BUCKETS),
            registry,
        );
        let failures = CounterGrid::<Counter, fn() -> Counter, 1>::new(
            "otpd_store_errors",
            "Store statements that failed",
            [("kind", fixed_label_values(StoreFailureKind::names()))],
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
