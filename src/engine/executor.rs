//! The loop of the engine: load a batch, decide it, write it.

use std::{
    collections::HashSet,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    BatchError, BatchOptions, Job, NotCommitted,
    admission::AdmissionQueue,
    locked_rows::{self, LockedRecords},
    queued_job::{KeySet, QueuedJob, WorkItem, fail_all},
    working_set::{CommitDependencies, WorkingSet},
};
use crate::{
    keys::os_rng,
    metrics::BatchMetrics,
    store::{
        FoundMessage, LoadedState, RecordStore, RowVersion, StoreClock, StoreError, WriteBatch,
        WriteResult, health::StoreHealth, with_timeout,
    },
    traces::{self, TraceSpan},
};
use otpd_rules::Timestamp;

/// Maximum number of attempts of a job. Each version conflict is another request's success,
/// and a code has few of those to give.
pub(super) const MAX_CONFLICT_RETRIES: u32 = 32;

/// Executes batches, one after the other.
pub(super) struct BatchExecutor<Store: ?Sized> {
    pub store: Arc<Store>,
    pub availability: StoreHealth,
    pub queue: Arc<AdmissionQueue>,
    pub options: BatchOptions,
    pub metrics: BatchMetrics,
}

/// Outcome of an attempt of a batch.
enum BatchOutcome {
    /// These jobs need another attempt; all others have ended.
    Again(Vec<QueuedJob>),
    /// Nothing was written, because the store refuses something about one of these jobs.
    Refused(Vec<QueuedJob>, StoreError),
}

impl<Store: RecordStore + ?Sized> BatchExecutor<Store> {
    /// Runs until the queue is closed and all jobs have ended.
    pub async fn run(self) {
        let mut batch = Vec::new();
        let mut locked = LockedRecords::default();
        while self.queue.next_batch(&mut batch).await {
            batch = self.process(batch, &mut locked).await;
        }
    }

    /// Executes a batch, in ever smaller parts if the store refuses it, so that a request
    /// fails for its own data only. Returns the jobs that need another attempt.
    async fn process(&self, batch: Vec<QueuedJob>, locked: &mut LockedRecords) -> Vec<QueuedJob> {
        let mut again = Vec::new();
        let mut parts = vec![locked.refuse(&*self.store, batch).await];
        while let Some(part) = parts.pop() {
            match self.process_traced(part).await {
                BatchOutcome::Again(items) => again.extend(items),
                BatchOutcome::Refused(items, error) => {
                    if let [item] = &items[..]
                        && let StoreError::Locked(_) = error
                    {
                        locked.remember(item);
                    }
                    // The last one is next.
                    let [first, second] = self.split(items, &error).await;
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
            item.attempts += 1;
            if item.attempts < MAX_CONFLICT_RETRIES {
                left.push(item);
            } else {
                item.fail(BatchError::ContentionLimit);
            }
        }
        left
    }

    /// Splits a refused batch into two parts, of which the first is empty if the second one has to
    /// fail.
    async fn split(&self, items: Vec<QueuedJob>, error: &StoreError) -> [Vec<QueuedJob>; 2] {
        let mut items = items;
        if items.len() > 1
            && let StoreError::Locked(_) = error
        {
            match locked_rows::split(&*self.store, items).await {
                // None is locked any more, or all are. Some have waited for another row.
                Ok((free, suspects)) if free.is_empty() || suspects.is_empty() => {
                    items = free;
                    items.extend(suspects);
                }
                Ok((free, suspects)) => return [free, suspects],
                Err(all) => return [Vec::new(), all],
            }
        }
        let second = items.split_off(items.len() / 2);
        [items, second]
    }

    /// Attempts a batch, in a span that is linked to the traces of its requests.
    async fn process_traced(&self, batch: Vec<QueuedJob>) -> BatchOutcome {
        let traces = batch.iter().filter_map(|item| item.trace);
        let mut span = TraceSpan::linked_span("batch", traces);
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
            let gone = StoreError::Unavailable("its last health check failed".to_owned());
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
        let mut working_set = WorkingSet::new(snapshot, RowVersion::random(&mut os_rng()));
        let DecidedBatch {
            waiting,
            reading,
            mut again,
        } = decide(&mut working_set, batch);
        let clock = working_set.clock();
        let (changes, pending) = working_set.into_write_batch();
        // Concurrently, so that neither waits for the other.
        let (written, ()) = tokio::join!(
            self.write(waiting, &changes, &pending, clock),
            self.read_messages(reading, clock),
        );
        match written {
            Ok(not_committed) => {
                self.queue.record_latency(since.elapsed());
                again.extend(not_committed);
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

    /// Writes the decisions, and ends the committed jobs. Returns the others.
    ///
    /// # Errors
    /// The outcome for the jobs that waited for the write, if the store failed.
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
                // Only the acknowledgement may have been lost. Then a job finds its own
                // outcome in the record.
                Err(BatchOutcome::Again(notify_not_committed(
                    jobs,
                    NotCommitted::InDoubt,
                )))
            }
            Err(error) => {
                let jobs = notify_not_committed(waiting, NotCommitted::Conflict(&nothing));
                Err(BatchOutcome::Refused(jobs, error))
            }
        }
    }

    /// Records the size of a batch, and the wait of its new jobs.
    fn record_batch_start(&self, batch: &[QueuedJob]) {
        let now = Instant::now();
        let new = batch.iter().filter(|item| item.attempts == 0);
        let waits = new.map(|item| now.saturating_duration_since(item.queued_at));
        self.metrics.batch_started(batch.len(), waits);
    }

    async fn load(&self, keys: KeySet) -> Result<LoadedState, StoreError> {
        if keys.records.is_empty() && keys.limits.is_empty() {
            // Only message updates, which need no clock either.
            let clock = StoreClock::from_reading(Timestamp::from_milliseconds(0), Instant::now());
            return Ok(LoadedState::empty(clock));
        }
        self.in_time(self.store.load(&keys.records, &keys.limits))
            .await
    }

    /// Loads messages, and ends the jobs that read them.
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

    /// Awaits the store, for no longer than its timeout.
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

/// Jobs of a batch that were decided and have not ended.
struct DecidedBatch {
    /// Jobs that wait for the write.
    waiting: Vec<QueuedJob>,
    /// Jobs that read the messages of their records.
    reading: Vec<QueuedJob>,
    /// Jobs that need another batch.
    again: Vec<QueuedJob>,
}

/// Decides all jobs, in order, and ends those that need neither a write nor messages.
fn decide(working_set: &mut WorkingSet, batch: Vec<QueuedJob>) -> DecidedBatch {
    let (mut waiting, mut again) = (Vec::with_capacity(batch.len()), Vec::new());
    let mut reading = Vec::new();
    let mut updated = HashSet::new();
    for mut item in batch {
        match &mut item.work {
            WorkItem::MessageUpdate { change, .. } => {
                if updated.insert(change.message.id) {
                    working_set.replace((**change).clone());
                    waiting.push(item);
                } else {
                    again.push(item);
                }
            }
            WorkItem::Job(job) => {
                let key = job.record();
                if let Some(error) = working_set.unreadable(&key) {
                    let error = error.clone();
                    item.fail(error.into());
                    continue;
                }
                let view = working_set.view();
                let decided = catch_unwind(AssertUnwindSafe(|| job.decide(&view)));
                let Ok(change) = decided else {
                    item.fail(BatchError::Panicked);
                    continue;
                };
                working_set.apply(key, change);
                if job.reads_messages() {
                    // The messages of a record that this batch writes are complete only after
                    // the write.
                    let is_pending = working_set.is_pending(&**job);
                    let queue = if is_pending { &mut again } else { &mut reading };
                    queue.push(item);
                } else if working_set.is_pending(&**job) {
                    waiting.push(item);
                } else {
                    item.commit(working_set.clock(), Vec::new());
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
    for item in reading {
        let key = item.job().map(Job::record);
        let own = found.iter().filter(|found| Some(found.key) == key);
        match own.map(|found| found.message.clone()).collect() {
            Ok(messages) => item.commit(clock, messages),
            Err(error) => item.fail(BatchError::Store(error)),
        }
    }
}

/// Ends the committed jobs, and returns the others.
fn complete_committed(
    batch: Vec<QueuedJob>,
    pending: &CommitDependencies,
    written: &WriteResult,
    clock: StoreClock,
) -> Vec<QueuedJob> {
    let mut not_committed = Vec::new();
    for item in batch {
        match item.work {
            WorkItem::MessageUpdate { change, reply } => {
                // The dispatcher may have been aborted meanwhile.
                drop(reply.send(Ok(written.messages.contains(&change.message.id))));
            }
            WorkItem::Job(ref job) if pending.is_satisfied(&**job, written) => {
                item.commit(clock, Vec::new());
            }
            WorkItem::Job(_) => not_committed.push(item),
        }
    }
    notify_not_committed(not_committed, NotCommitted::Conflict(written))
}

/// Notifies jobs that their decisions were not committed.
fn notify_not_committed(mut batch: Vec<QueuedJob>, loss: NotCommitted<'_>) -> Vec<QueuedJob> {
    for item in &mut batch {
        item.unknown_outcomes += u32::from(matches!(loss, NotCommitted::InDoubt));
        if let WorkItem::Job(job) = &mut item.work {
            job.on_not_committed(loss);
        }
    }
    batch
}
