//! What the store does.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{SECONDS, fixed, grid::CounterGrid};

/// What a store is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Load records, limits and the clock.
    Load,
    /// Write a batch.
    Write,
    /// Write what became of messages, and nothing else.
    Settle,
    /// Load the messages of records.
    Messages,
    /// Load the messages that somebody has to look after.
    Due,
    /// Load who delivered codes that were verified.
    Deliveries,
    /// Remove what no answer depends on.
    Sweep,
    /// Give a sign of life.
    Probe,
    /// Count what is there.
    Census,
}

/// Their names, in the order of [`StatementKind`].
const STATEMENTS: [&str; 9] = [
    "load",
    "write",
    "update_messages",
    "load_messages",
    "due_messages",
    "attribution",
    "sweep",
    "ping",
    "stats",
];

impl StatementKind {
    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        STATEMENTS[self as usize]
    }
}

/// Why a store did not do what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailureKind {
    /// It did not answer.
    Unavailable,
    /// Nobody waited for it any longer.
    Timeout,
    /// It gave the transaction up for another one's sake.
    Conflict,
    /// It holds what otpd never wrote.
    Corrupt,
    /// It did not take what it was told to write.
    Refused,
}

/// Their names, in the order of [`StoreFailureKind`].
const FAILURES: [&str; 5] = ["unavailable", "timeout", "conflict", "corrupt", "refused"];
impl StoreFailureKind {
    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        FAILURES[self as usize]
    }
}

/// What is swept, in the order of the fields of [`PurgeStats`].
const PURGED: [&str; 3] = ["records", "limits", "messages"];

/// How many rows a sweep has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeStats {
    /// Records.
    pub records: u64,
    /// Limits.
    pub limits: u64,
    /// Messages.
    pub messages: u64,
}

impl PurgeStats {
    /// How many in all.
    pub const fn all(self) -> u64 {
        self.records + self.limits + self.messages
    }
}

/// How a store does. Clones count into the same.
#[derive(Clone, Debug)]
pub struct StatementMetrics {
    durations: [Histogram; STATEMENTS.len()],
    failures: [Counter; FAILURES.len()],
    swept: [Counter; PURGED.len()],
}

impl Default for StatementMetrics {
    /// Metrics that nobody scrapes.
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

impl StatementMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let durations = CounterGrid::<Histogram, fn() -> Histogram, 1>::new(
            "otpd_store_statement_duration_seconds",
            "What the store took for one thing that it was told, with the wait for a connection",
            [("statement", fixed(STATEMENTS))],
            || Histogram::new(SECONDS),
            registry,
        );
        let failures = CounterGrid::<Counter, fn() -> Counter, 1>::new(
            "otpd_store_errors",
            "What the store did not do",
            [("kind", fixed(FAILURES))],
            Counter::default,
            registry,
        );
        let swept = CounterGrid::<Counter, fn() -> Counter, 1>::new(
            "otpd_rows_purged",
            "Rows removed, since no answer depends on them any more",
            [("table", fixed(PURGED))],
            Counter::default,
            registry,
        );
        Self {
            durations: array::from_fn(|number| durations.at([number]).clone()),
            failures: array::from_fn(|number| failures.at([number]).clone()),
            swept: array::from_fn(|number| swept.at([number]).clone()),
        }
    }

    /// Something was done, or not.
    pub fn done(
        &self,
        statement: StatementKind,
        took: Duration,
        failure: Option<StoreFailureKind>,
    ) {
        self.durations[statement as usize].observe(took.as_secs_f64());
        if let Some(failure) = failure {
            self.failures[failure as usize].inc();
        }
    }

    /// A sweep has removed so much.
    pub fn swept(&self, swept: PurgeStats) {
        let PurgeStats {
            records,
            limits,
            messages,
        } = swept;
        for (counter, count) in self.swept.iter().zip([records, limits, messages]) {
            counter.inc_by(count);
        }
    }
}
