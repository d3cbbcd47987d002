//! Keeps account of what the store does.

use tokio::time::Instant;

use super::StoreError;
use crate::{
    metrics::{Failure, Statement, StatementMetrics},
    traces::{Kind, Span},
};

/// Runs from the order until it is carried out; or until nobody waits for that any
/// longer, when it is dropped.
pub(super) struct StatementTimer<'a> {
    metrics: &'a StatementMetrics,
    statement: Statement,
    since: Instant,
    failure: Option<Failure>,
    span: Span,
}

impl<'a> StatementTimer<'a> {
    pub fn start(
        metrics: &'a StatementMetrics,
        statement: Statement,
        system: &'static str,
    ) -> Self {
        let mut span = Span::inside(statement.name(), Kind::Client);
        if span.is_recorded() {
            span.note("db.system.name", system);
            span.note("db.operation.name", statement.name());
        }
        Self {
            metrics,
            statement,
            since: Instant::now(),
            failure: Some(Failure::Timeout),
            span,
        }
    }

    pub fn stop<T>(mut self, result: &Result<T, StoreError>) {
        self.failure = result.as_ref().err().map(|error| match error {
            StoreError::Unavailable(_) | StoreError::Url(_) => Failure::Unavailable,
            StoreError::Conflict(_) => Failure::Conflict,
            StoreError::Corrupt(_) => Failure::Corrupt,
            StoreError::Refused(_) | StoreError::IndexKeyMismatch => Failure::Refused,
        });
    }
}

impl Drop for StatementTimer<'_> {
    fn drop(&mut self) {
        if let Some(failure) = self.failure {
            self.span.fail(failure.name());
        }
        let took = self.since.elapsed();
        self.metrics.done(self.statement, took, self.failure);
    }
}
