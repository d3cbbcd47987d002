//! Keeps account of what the store does.

use tokio::time::Instant;

use super::StoreError;
use crate::metrics::{Failure, Statement, StatementMetrics};

/// Runs from the order until it is carried out; or until nobody waits for that any
/// longer, when it is dropped.
pub(super) struct Stopwatch<'a> {
    metrics: &'a StatementMetrics,
    statement: Statement,
    since: Instant,
    failure: Option<Failure>,
}

impl<'a> Stopwatch<'a> {
    pub fn start(metrics: &'a StatementMetrics, statement: Statement) -> Self {
        Self {
            metrics,
            statement,
            since: Instant::now(),
            failure: Some(Failure::Timeout),
        }
    }

    pub fn stop<T>(mut self, result: &Result<T, StoreError>) {
        self.failure = result.as_ref().err().map(|error| match error {
            StoreError::Unavailable(_) | StoreError::Url(_) => Failure::Unavailable,
            StoreError::Conflict(_) => Failure::Conflict,
            StoreError::Corrupt(_) => Failure::Corrupt,
            StoreError::Refused(_) | StoreError::OtherIndexKey => Failure::Refused,
        });
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.metrics
            .done(self.statement, self.since.elapsed(), self.failure);
    }
}
