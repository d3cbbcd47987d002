//! Timer of store statements, for metrics and traces.

use tokio::time::Instant;

use super::{
    StoreError,
    metrics::{StatementKind, StatementMetrics, StoreFailureKind},
};
use crate::traces::{SpanSide, TraceSpan};

/// Timer of one statement. If it is dropped before [`stop`](Self::stop), the caller no longer
/// waits, and the statement counts as timed out.
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
        let duration = self.since.elapsed();
        self.metrics.record(self.statement, duration, self.failure);
    }
}
