//! Requests grouped: whatever waits is loaded together, decided about one by one in
//! memory, and written together, with one commit for all.
//!
//! There is no timer. A request that finds nothing else waiting goes at once; while its
//! batch is on its way the next one gathers. So a batch is as large as the load makes
//! it, and the more there is to do the less each request costs.
//!
//! Within a batch a request sees what those before it decided, so that requests about
//! one record follow each other without a round trip. What it rested on may turn out
//! not to have been written, because another replica was faster; then it is decided
//! again, like one that lost its own race.
//!
//! Who waits is bounded in number and in time. A request that could not be answered
//! before its caller gives up is refused at once, and callers take turns, so that the
//! flood of one is not the drought of another.

mod admission;
mod executor;
mod fair_queue;
mod item;
#[cfg(test)]
mod tests;
mod working_set;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use admission::AdmissionQueue;
use executor::BatchExecutor;
use item::{QueuedJob, WorkItem};
pub use working_set::WorkingSetView;

use super::{
    MessageWrite, RecordStore, RowVersion, SealedBytes, StoreClock, StoreError, VersionedMessage,
    VersionedRecord, WriteResult, health::StoreHealth,
};
use crate::metrics::BatchMetrics;
use otpd_rules::{CallerName, LimitKey, LimitUpdate, Record, RecordKey, Timestamp};

/// One request, as batches treat it.
pub trait Job: Send + 'static {
    /// The records that it is about.
    fn records(&self) -> &[RecordKey];

    /// The limits that it is under.
    fn limits(&self) -> &[LimitKey];

    /// Who waits for it; `None` for what otpd itself has begun, which goes before all
    /// others and is never refused.
    fn admission(&self) -> Option<Admission<'_>>;

    /// Whether it needs the messages of its record as well. They are loaded after the record
    /// that it was decided on.
    fn reads_messages(&self) -> bool {
        false
    }

    /// Takes the messages of its record, oldest first, before it ends.
    fn take_messages(&mut self, _messages: Vec<VersionedMessage>) {}

    /// Whether anybody still waits for its end. It is asked before it is decided about:
    /// then nothing of it has happened.
    fn is_wanted(&self) -> bool;

    /// Decides what to write. May be asked again: then nothing is left of what it had
    /// decided before, apart from what [`on_not_committed`](Self::on_not_committed) keeps.
    fn decide(&mut self, view: &WorkingSetView<'_>) -> DecidedWrites;

    /// Not everything was written that the decision consisted of, or rested on.
    fn on_not_committed(&mut self, loss: NotCommitted<'_>);

    /// Ends it: everything that it decided last, and rested on, has been written, by
    /// the store's clock at that load; or why there is no decision.
    fn complete(self: Box<Self>, end: Result<StoreClock, BatchError>);
}

/// By whom a job was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// In whose lane it waits.
    pub caller: &'a CallerName,
    /// Until when an answer is of use.
    pub deadline: Instant,
}

/// What a job wants to have written.
#[derive(Debug, Default)]
pub struct DecidedWrites {
    /// Its (first) record, with the instant from which on a sweep may remove it.
    pub record: Option<(Record<SealedBytes>, Timestamp)>,
    /// Updates of limits. The record is written only if they are.
    pub limits: Vec<(LimitKey, LimitUpdate)>,
    /// A new message about the record.
    pub message: Option<MessageWrite>,
}

/// What is known of a decision that did not stand.
#[derive(Clone, Copy, Debug)]
pub enum NotCommitted<'a> {
    /// This was written, and nothing else.
    Conflict(&'a WriteResult),
    /// Everything that was as expected was written, or nothing.
    InDoubt,
}

/// Why there is no decision.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// Too many requests wait for this one to be answered in time.
    #[error("too many requests wait for the store")]
    Full {
        /// How long what waits now will take.
        wait: Duration,
    },
    /// Others were faster, time and again.
    #[error("too many requests race for one record")]
    ContentionLimit,
    /// The decision panicked.
    #[error("a decision panicked")]
    Panicked,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How requests are grouped.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// How many are in one batch at most.
    pub max_batch: usize,
    /// How many may wait in all.
    pub queue_size: usize,
    /// How long a request may wait behind others.
    pub max_queue_wait: Duration,
    /// How many batches are on their way at once. Requests about one record always meet
    /// in the same one.
    pub batch_writers: usize,
    /// How long the store may take for one load or write.
    pub timeout: Duration,
}

/// Takes requests to the store. Clones are one batcher.
#[derive(Clone)]
pub struct BatchClient {
    queues: Arc<[admission::QueueSender]>,
}

impl BatchClient {
    /// A batcher in front of `store`. Its work ends when the last clone of it is gone
    /// and everything has been done; that must happen on the current runtime.
    pub fn new<Store: RecordStore>(
        store: Arc<Store>,
        availability: StoreHealth,
        options: BatchOptions,
        metrics: BatchMetrics,
    ) -> Self {
        let queues = (0..options.batch_writers.max(1)).map(|_| {
            let queue = Arc::new(AdmissionQueue::new(options));
            let writer = BatchExecutor {
                store: Arc::clone(&store),
                availability: availability.clone(),
                queue: Arc::clone(&queue),
                options,
                metrics: metrics.clone(),
            };
            tokio::spawn(writer.run());
            admission::QueueSender::to(queue)
        });
        Self {
            queues: queues.collect(),
        }
    }

    /// How many wait for their batch.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting()).sum()
    }

    /// Takes a job, or refuses it at once where it could not be answered in time.
    pub fn submit(&self, job: Box<dyn Job>) {
        let queue = self.queue(job.records().first());
        if let Some((refused, wait)) = queue.admit(QueuedJob::new(WorkItem::Job(job))) {
            refused.fail(BatchError::Full { wait });
        }
    }

    /// Loads a record for otpd's own purposes. Goes before all requests.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, key: RecordKey) -> Result<ReadResult, BatchError> {
        let (reply, seen) = oneshot::channel();
        let look = ReadJob {
            keys: [key],
            seen: None,
            reply,
        };
        self.wait_for(key, WorkItem::Job(Box::new(look)), seen)
            .await
    }

    /// Replaces a message if it is unchanged, and says whether it was. Goes before all
    /// requests.
    ///
    /// # Errors
    /// The store's. After [`StoreError::Unavailable`] it may have been replaced.
    pub async fn update_message(&self, change: MessageWrite) -> Result<bool, BatchError> {
        let (reply, settled) = oneshot::channel();
        let key = change.key;
        let change = Box::new(change);
        let settlement = WorkItem::MessageUpdate { change, reply };
        self.wait_for(key, settlement, settled).await
    }

    async fn wait_for<Reply>(
        &self,
        key: RecordKey,
        task: WorkItem,
        reply: oneshot::Receiver<Result<Reply, BatchError>>,
    ) -> Result<Reply, BatchError> {
        let gone = |_| StoreError::Unavailable("nobody writes any more".to_owned());
        self.queue(Some(&key)).add_own(QueuedJob::new(task));
        reply.await.map_err(gone)?
    }

    /// The queue of what is about one record.
    fn queue(&self, key: Option<&RecordKey>) -> &AdmissionQueue {
        // Keys are MACs: any byte of them is evenly distributed.
        let byte = key.map_or(0, |key| usize::from(key.0[0]));
        &self.queues[byte % self.queues.len()]
    }
}

impl fmt::Debug for BatchClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Batcher({} writers)", self.queues.len())
    }
}

/// What a look saw.
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// The store's clock at the load.
    pub clock: StoreClock,
    /// The record, if there is one.
    pub record: Option<Record<SealedBytes>>,
}

/// A job that only looks.
struct ReadJob {
    keys: [RecordKey; 1],
    seen: Option<Record<SealedBytes>>,
    reply: oneshot::Sender<Result<ReadResult, BatchError>>,
}

impl Job for ReadJob {
    fn records(&self) -> &[RecordKey] {
        &self.keys
    }

    fn limits(&self) -> &[LimitKey] {
        &[]
    }

    fn admission(&self) -> Option<Admission<'_>> {
        None
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn decide(&mut self, view: &WorkingSetView<'_>) -> DecidedWrites {
        self.seen = view.record(&self.keys[0]).cloned();
        DecidedWrites::default()
    }

    fn on_not_committed(&mut self, _: NotCommitted<'_>) {}

    fn complete(self: Box<Self>, end: Result<StoreClock, BatchError>) {
        let record = self.seen;
        // Whoever asked may have been ended meanwhile.
        let _ = self
            .reply
            .send(end.map(|clock| ReadResult { clock, record }));
    }
}
