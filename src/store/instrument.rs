//! Metrics and spans of store statements.

use std::future::Future;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    DeliveredMessage, FoundMessage, LaneCursor, LoadedState, LockedRows, PurgeStats, RecordStore,
    StoreError, StoreStats, WriteBatch, WriteResult,
    metrics::{StatementKind, StatementMetrics, StoreFailureKind},
};
use crate::traces::{SpanSide, TraceSpan};
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};

/// Store with metrics and a span for each statement. Migrations and the check of the index key
/// have neither.
#[derive(Debug)]
pub struct InstrumentedStore {
    store: Box<dyn RecordStore>,
    metrics: StatementMetrics,
}

impl InstrumentedStore {
    /// Returns `store`, with its statements recorded in `metrics`.
    pub fn new(store: Box<dyn RecordStore>, metrics: StatementMetrics) -> Self {
        Self { store, metrics }
    }

    /// Awaits a statement and records its duration and result.
    async fn record<T>(
        &self,
        statement: StatementKind,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timer = StatementTimer::start(&self.metrics, statement, self.store.system());
        let result = work.await;
        timer.stop(&result);
        result
    }
}

#[async_trait]
impl RecordStore for InstrumentedStore {
    fn system(&self) -> &'static str {
        self.store.system()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn store_fingerprint(&self, own: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        self.store.store_fingerprint(own).await
    }

    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        let work = self.store.load(records, limits);
        self.record(StatementKind::Load, work).await
    }

    async fn write(&self, batch: &WriteBatch) -> Result<WriteResult, StoreError> {
        let statement = if batch.limits.is_empty() && batch.records.is_empty() {
            StatementKind::UpdateMessages
        } else {
            StatementKind::Write
        };
        self.record(statement, self.store.write(batch)).await
    }

    async fn locked_rows(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LockedRows, StoreError> {
        let locked = self.store.locked_rows(records, limits);
        self.record(StatementKind::LockedRows, locked).await
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        let work = self.store.load_messages(records);
        self.record(StatementKind::LoadMessages, work).await
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        let work = self.store.waiting_lanes();
        self.record(StatementKind::DueMessages, work).await
    }

    async fn due_messages(&self, lanes: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        let work = self.store.due_messages(lanes);
        self.record(StatementKind::DueMessages, work).await
    }

    async fn delivered_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        let work = self.store.delivered_messages(records);
        self.record(StatementKind::Attribution, work).await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        let work = self.store.purge(now, limit);
        let purged = self.record(StatementKind::Purge, work).await?;
        self.metrics.record_purge(purged);
        Ok(purged)
    }

    async fn stats(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        self.record(StatementKind::Stats, self.store.stats(now))
            .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.record(StatementKind::Ping, self.store.probe()).await
    }

    fn connections(&self) -> (u32, u32) {
        self.store.connections()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

/// Timer of one statement. If it is dropped before [`stop`](Self::stop), the caller no longer
/// waits, and the statement counts as timed out.
struct StatementTimer<'a> {
    metrics: &'a StatementMetrics,
    statement: StatementKind,
    since: Instant,
    failure: Option<StoreFailureKind>,
    span: TraceSpan,
}

impl<'a> StatementTimer<'a> {
    fn start(
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

    fn stop<T>(mut self, result: &Result<T, StoreError>) {
        self.failure = result.as_ref().err().map(|error| match error {
            StoreError::Unavailable(_) | StoreError::Url(_) => StoreFailureKind::Unavailable,
            StoreError::Conflict(_) => StoreFailureKind::Conflict,
            StoreError::Locked(_) => StoreFailureKind::Locked,
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
