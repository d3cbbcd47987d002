//! The work of a batcher: load, decide, write, over and over.

use std::{
    collections::HashSet,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rand::{rand_core::UnwrapErr, rngs::SysRng};
use tokio::time::Instant;

use super::{
    BatchError, BatchOptions, Job, NotCommitted, RecordStore, RowVersion, StoreError, WriteResult,
    admission::AdmissionQueue,
    item::{QueuedJob, WorkItem, fail_all},
    working_set::{CommitDependencies, WorkingSet},
};
use crate::{
    metrics::BatchMetrics,
    store::{FoundMessage, LoadedState, StoreClock, WriteBatch, health::StoreHealth, with_timeout},
    traces::{self, TraceSpan},
};
use otpd_rules::{LimitKey, RecordKey, Timestamp};

/// How often something that lost its race is tried again. Each loss is another request's
/// success, and a code has few of those to give.
pub(super) const MAX_CONFLICT_RETRIES: u32 = 32;

/// Takes batches to the store, one after the other.
pub(super) struct BatchExecutor<Store> {
    pub store: Arc<Store>,
    pub availability: StoreHealth,
    pub queue: Arc<AdmissionQueue>,
    pub options: BatchOptions,
    pub metrics: BatchMetrics,
}

/// What became of a batch.
enum BatchOutcome {
    /// These are to be tried again; all others have ended.
    Again(Vec<QueuedJob>),
    /// Nothing happened, because something about one of these is more than the store
    /// takes.
    Refused(Vec<QueuedJob>, StoreError),
}

impl<Store: RecordStore> BatchExecutor<Store> {
    /// Works until nobody can submit anything any more, and everything has ended.
    pub async fn run(self) {
        let mut batch = Vec::new();
        while self.queue.next_batch(&mut batch).await {
            batch = self.process(batch).await;
        }
    }

    /// Works a batch off, in ever smaller parts where it is more than the store takes,
    /// so that strangers do not suffer from each other's data. Returns what is to be
    /// tried again.
    async fn process(&self, batch: Vec<QueuedJob>) -> Vec<QueuedJob> {
        let mut again = Vec::new();
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.process_traced(part).await {
                BatchOutcome::Again(items) => again.extend(items),
                BatchOutcome::Refused(mut first, error) => {
                    let second = first.split_off(first.len() / 2);
                    if first.is_empty() {
                        fail_all(second, &error.into());
                    } else {
                        parts.extend([second, first]);
                    }
                }
            }
        }
        self.metrics.lost(again.len());
        let mut left = Vec::with_capacity(again.len());
        for mut item in again {
            item.tries += 1;
            if item.tries < MAX_CONFLICT_RETRIES {
                left.push(item);
            } else {
                item.fail(BatchError::ContentionLimit);
            }
        }
        left
    }

    /// Attempts a batch, as a part of the traces in which it was asked for.
    async fn process_traced(&self, batch: Vec<QueuedJob>) -> BatchOutcome {
        let places = batch.iter().filter_map(|item| item.place);
        let mut span = TraceSpan::linked_span("batch", places);
        if span.is_recorded() {
            let size = i64::try_from(batch.len()).unwrap_or(i64::MAX);
            span.set_attribute("otpd.batch.size", size);
        }
        traces::with_context(span.context(), self.attempt(batch)).await
    }

    async fn attempt(&self, mut batch: Vec<QueuedJob>) -> BatchOutcome {
        batch.retain(QueuedJob::is_wanted);
        let since = Instant::now();
        self.record_batch_start(&batch);
        if !self.availability.is_available() {
            let gone = StoreError::Unavailable("it did not answer when last asked".to_owned());
            fail_all(batch, &gone.into());
            return BatchOutcome::Again(Vec::new());
        }
        let snapshot = match self.load(KeySet::of(&batch)).await {
            Ok(snapshot) => snapshot,
            Err(StoreError::Conflict(_)) => return BatchOutcome::Again(batch),
            Err(error @ StoreError::Unavailable(_)) => {
                fail_all(batch, &error.into());
                return BatchOutcome::Again(Vec::new());
            }
            Err(error) => return BatchOutcome::Refused(batch, error),
        };
        let mut board = WorkingSet::new(snapshot, RowVersion::random(&mut UnwrapErr(SysRng)));
        let DecidedBatch {
            waiting,
            reading,
            mut again,
        } = decide(&mut board, batch);
        let clock = board.clock();
        let (changes, pending) = board.into_write_batch();
        // At the same time, so that neither waits for the other.
        let (written, ()) = tokio::join!(
            self.write(waiting, &changes, &pending, clock),
            self.read_messages(reading, clock),
        );
        match written {
            Ok(undone) => {
                self.queue.record_latency(since.elapsed());
                again.extend(undone);
                BatchOutcome::Again(again)
            }
            Err(BatchOutcome::Again(items)) => {
                again.extend(items);
                BatchOutcome::Again(again)
            }
            Err(BatchOutcome::Refused(items, error)) => {
                again.extend(items);
                BatchOutcome::Refused(again, error)
            }
        }
    }

    /// Writes what was decided, and ends those who waited for it. Returns the others.
    ///
    /// # Errors
    /// The outcome for those who waited, if the store failed.
    async fn write(
        &self,
        waiting: Vec<QueuedJob>,
        changes: &WriteBatch,
        pending: &CommitDependencies,
        clock: StoreClock,
    ) -> Result<Vec<QueuedJob>, BatchOutcome> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let nothing = WriteResult::default();
        match self.in_time(self.store.write(changes)).await {
            Ok(written) => Ok(complete_committed(waiting, pending, &written, clock)),
            Err(StoreError::Conflict(_)) => Err(BatchOutcome::Again(notify_not_committed(
                waiting,
                NotCommitted::Conflict(&nothing),
            ))),
            Err(error @ StoreError::Unavailable(_)) => {
                let (jobs, others): (Vec<_>, _) = waiting
                    .into_iter()
                    .partition(QueuedJob::may_retry_unknown_outcome);
                fail_all(others, &error.into());
                // The acknowledgement may have been lost: a job finds its own answer in
                // the record, if it was written.
                Err(BatchOutcome::Again(notify_not_committed(
                    jobs,
                    NotCommitted::InDoubt,
                )))
            }
            Err(error) => {
                let undone = notify_not_committed(waiting, NotCommitted::Conflict(&nothing));
                Err(BatchOutcome::Refused(undone, error))
            }
        }
    }

    /// Notes a batch that begins, and what has waited for the first time.
    fn record_batch_start(&self, batch: &[QueuedJob]) {
        let now = Instant::now();
        let fresh = batch.iter().filter(|item| item.tries == 0);
        let waits = fresh.map(|item| now.saturating_duration_since(item.since));
        self.metrics.batch_started(batch.len(), waits);
    }

    async fn load(&self, about: KeySet) -> Result<LoadedState, StoreError> {
        if about.records.is_empty() && about.limits.is_empty() {
            // Settlements alone, which ask for no clock either.
            let clock = StoreClock::from_reading(Timestamp::from_milliseconds(0), Instant::now());
            return Ok(LoadedState::empty(clock));
        }
        self.in_time(self.store.load(&about.records, &about.limits))
            .await
    }

    /// Ends what needs messages with them.
    async fn read_messages(&self, reading: Vec<QueuedJob>, clock: StoreClock) {
        let keys = KeySet::of(&reading).records;
        if keys.is_empty() {
            return;
        }
        match self.in_time(self.store.load_messages(&keys)).await {
            Ok(found) => complete_with_messages(reading, &found, clock),
            Err(error) => fail_all(reading, &error.into()),
        }
    }

    /// Awaits the store, but not longer than it may take.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = with_timeout(self.options.timeout, work).await;
        if let Err(StoreError::Unavailable(cause)) = &done {
            tracing::debug!(%cause, "[OTP] Store did not answer a batch");
            self.availability.request_probe();
        }
        done
    }
}

/// What a batch is about, in the order of the keys, which is that of the indexes.
struct KeySet {
    records: Vec<RecordKey>,
    limits: Vec<LimitKey>,
}

impl KeySet {
    fn of(batch: &[QueuedJob]) -> Self {
        let jobs = || batch.iter().filter_map(QueuedJob::job);
        let mut records: Vec<RecordKey> = jobs().flat_map(Job::records).copied().collect();
        let mut limits: Vec<LimitKey> = jobs().flat_map(Job::limits).copied().collect();
        records.sort_unstable();
        records.dedup();
        limits.sort_unstable();
        limits.dedup();
        Self { records, limits }
    }
}

/// Items of a batch that were decided and have not ended.
struct DecidedBatch {
    /// Those that wait for the write.
    waiting: Vec<QueuedJob>,
    /// Those that need messages of their records.
    reading: Vec<QueuedJob>,
    /// Those that have to wait for another batch.
    again: Vec<QueuedJob>,
}

/// Has everything decided, in order. What needs neither a write nor messages has ended.
fn decide(board: &mut WorkingSet, batch: Vec<QueuedJob>) -> DecidedBatch {
    let (mut waiting, mut again) = (Vec::with_capacity(batch.len()), Vec::new());
    let mut reading = Vec::new();
    let mut settled = HashSet::new();
    for mut item in batch {
        match &mut item.task {
            WorkItem::MessageUpdate { change, .. } => {
                if settled.insert(change.message.id) {
                    board.replace((**change).clone());
                    waiting.push(item);
                } else {
                    again.push(item);
                }
            }
            WorkItem::Job(job) => {
                if let Some(error) = board.unreadable(&**job) {
                    let error = error.clone();
                    item.fail(error.into());
                    continue;
                }
                let view = board.view();
                let decided = catch_unwind(AssertUnwindSafe(|| job.decide(&view)));
                let Ok(change) = decided else {
                    item.fail(BatchError::Panicked);
                    continue;
                };
                board.apply(job.records().first().copied(), change);
                if job.reads_messages() {
                    // What its batch writes of its record has its messages only later.
                    let is_pending = board.is_pending(&**job);
                    let queue = if is_pending { &mut again } else { &mut reading };
                    queue.push(item);
                } else if board.is_pending(&**job) {
                    waiting.push(item);
                } else {
                    item.complete(board.clock(), false);
                }
            }
        }
    }
    DecidedBatch {
        waiting,
        reading,
        again,
    }
}

/// Ends jobs with the messages of their records. A message that cannot be read fails the
/// jobs about its record, and no others.
fn complete_with_messages(reading: Vec<QueuedJob>, found: &[FoundMessage], clock: StoreClock) {
    for mut item in reading {
        if let WorkItem::Job(job) = &mut item.task {
            let keys = job.records();
            let own = found.iter().filter(|found| keys.contains(&found.key));
            let own = own.map(|found| found.message.clone());
            match own.collect() {
                Ok(own) => job.take_messages(own),
                Err(error) => {
                    item.fail(BatchError::Store(error));
                    continue;
                }
            }
        }
        item.complete(clock, false);
    }
}

/// Ends what was written, and returns what was not.
fn complete_committed(
    batch: Vec<QueuedJob>,
    pending: &CommitDependencies,
    written: &WriteResult,
    clock: StoreClock,
) -> Vec<QueuedJob> {
    let mut undone = Vec::new();
    for item in batch {
        match &item.task {
            WorkItem::MessageUpdate { change, .. } => {
                let settled = written.messages.contains(&change.message.id);
                item.complete(clock, settled);
            }
            WorkItem::Job(job) if pending.is_satisfied(&**job, written) => {
                item.complete(clock, false);
            }
            WorkItem::Job(_) => undone.push(item),
        }
    }
    notify_not_committed(undone, NotCommitted::Conflict(written))
}

/// Tells jobs that what they decided did not stand.
fn notify_not_committed(mut batch: Vec<QueuedJob>, loss: NotCommitted<'_>) -> Vec<QueuedJob> {
    for item in &mut batch {
        item.unknown_outcomes += u32::from(matches!(loss, NotCommitted::InDoubt));
        if let WorkItem::Job(job) = &mut item.task {
            job.on_not_committed(loss);
        }
    }
    batch
}
