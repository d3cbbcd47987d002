//! Keeps account of what the store does.

use tokio::time::Instant;

use super::StoreError;
use crate::{
    metrics::{StatementKind, StatementMetrics, StoreFailureKind},
    traces::{SpanSide, TraceSpan},
};

/// Runs from the order until it is carried out; or until nobody waits for that any
/// longer, when it is dropped.
pub(super) struct StatementTimer<'a> {
    metrics: &'a StatementMetrics,
    statement: StatementKind,
    since: Instant,
    failure: Option<StoreFailureKind>,
    span: TraceSpan,
}

impl<'a> StatementTimer<'a> {
    pub fn start(
        metrics: &'a StatementMetrics,
        statement: StatementKind,
        system: &'static str,
    ) -> Self {
        let mut span = TraceSpan::child_span(statement.name(), SpanSide::Client);
        if span.is_recorded() {
            span.set_attribute("db.system.name", system);
            span.set_attribute("db.operation.name", statement.name());
        }
        Self {
            metrics,
            statement,
            since: Instant::now(),
            failure: Some(StoreFailureKind::Timeout),
            span,
        }
    }

    pub fn stop<T>(mut self, result: &Result<T, StoreError>) {
        self.failure = result.as_ref().err().map(|error| match error {
            StoreError::Unavailable(_) | StoreError::Url(_) => StoreFailureKind::Unavailable,
            StoreError::Conflict(_) => StoreFailureKind::Conflict,
            StoreError::Corrupt(_) => StoreFailureKind::Corrupt,
            StoreError::Refused(_) | StoreError::IndexKeyMismatch => StoreFailureKind::Refused,
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
