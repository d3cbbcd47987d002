//! Decides requests in batches: all waiting requests are loaded together, decided one by
//! one in memory, and written together, with one commit for all.
//!
//! There is no timer. A request that finds no other one waiting is started at once. While
//! its batch is in progress the next one fills. So the size of a batch follows the load, and
//! a request costs less the more requests there are.
//!
//! Within a batch a request sees the decisions of those before it, so that requests about
//! one record follow each other without a round trip. If a decision that it depends on was
//! not committed, because another replica was faster, it is decided again, like one whose
//! own write was not committed.
//!
//! The admission queue is bounded in number and in time. A request that could not be
//! answered before its deadline is refused at once, and callers take turns, so that the
//! load of one caller does not delay the others.
//!
//! [`Engine`] is the entrance for commands; [`BatchClient`] also takes the reads and the
//! message updates of the outbox.

mod admission;
mod command_job;
mod executor;
mod fair_queue;
mod handoff;
mod locked_rows;
mod queued_job;
mod rate_limit_charges;
mod sealed_record;
#[cfg(test)]
mod tests;
mod working_set;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use admission::AdmissionQueue;
pub use command_job::{CommandRequest, Engine, Reply};
use executor::BatchExecutor;
pub use handoff::{LeasedMessage, MessageHandoff};
use queued_job::{QueuedJob, WorkItem};
pub use rate_limit_charges::RateLimit;
pub use working_set::WorkingSetView;

use crate::{
    metrics::BatchMetrics,
    store::{
        MessageWrite, RecordStore, SealedBytes, StoreClock, StoreError, StoreOptions,
        VersionedMessage, WriteResult, health::StoreHealth,
    },
};
use otpd_rules::{CallerName, LimitKey, LimitUpdate, Record, RecordKey, Timestamp};

/// A request, as batches treat it.
pub trait Job: Send + 'static {
    /// Returns the key of its record.
    fn record(&self) -> RecordKey;

    /// Returns the keys of its rate limits.
    fn limits(&self) -> &[LimitKey];

    /// Returns the terms of its admission; `None` for work of otpd itself, which goes before
    /// all requests and is never refused.
    fn admission(&self) -> Option<Admission<'_>>;

    /// Returns whether it needs the messages of its record. They are loaded after the record
    /// that it was decided on.
    fn reads_messages(&self) -> bool {
        false
    }

    /// Returns whether its reply is still of use. If not, it is dropped undecided.
    fn is_wanted(&self) -> bool;

    /// Decides its writes. If it is called again, nothing of the earlier decision was
    /// committed, except as [`on_not_committed`](Self::on_not_committed) said.
    fn decide(&mut self, view: &WorkingSetView<'_>) -> DecidedWrites;

    /// Notes that its decision was not committed, or one that it depends on was not.
    fn on_not_committed(&mut self, loss: NotCommitted<'_>);

    /// Replies: its last decision, and those that it depends on, are committed, or failed.
    fn complete(self: Box<Self>, end: Result<Committed, BatchError>);
}

/// Terms on which a job is admitted.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// Caller in whose lane it waits.
    pub caller: &'a CallerName,
    /// Latest instant at which a reply is of use.
    pub deadline: Instant,
}

/// Writes that a job decided, sealed.
#[derive(Debug, Default)]
pub struct DecidedWrites {
    /// Its record, with the earliest instant at which a purge may remove it.
    pub record: Option<(Record<SealedBytes>, Timestamp)>,
    /// Updates of rate limits. The record is written only if they are.
    pub limits: Vec<(LimitKey, LimitUpdate)>,
    /// A new message about the record.
    pub message: Option<MessageWrite>,
}

/// Facts about a batch that a committed job replies with.
#[derive(Debug)]
pub struct Committed {
    /// The store's clock at the load that the decision was made on.
    pub clock: StoreClock,
    /// Messages of the record, oldest first, if the job reads them.
    pub messages: Vec<VersionedMessage>,
}

/// Result of a write that did not commit a decision.
#[derive(Clone, Copy, Debug)]
pub enum NotCommitted<'a> {
    /// Version conflict: only this was written.
    Conflict(&'a WriteResult),
    /// Unknown outcome: everything that was as expected was written, or nothing.
    InDoubt,
}

/// Reason why a job has no decision.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// Too many requests wait for this one to be answered in time.
    #[error("too many requests wait for the store")]
    Full {
        /// Estimated time until the waiting requests are answered.
        wait: Duration,
    },
    /// Each of many attempts ended in a version conflict.
    #[error("too many requests race for one record")]
    ContentionLimit,
    /// The decision panicked.
    #[error("a decision panicked")]
    Panicked,
    /// The live code of the record is sealed with a key that this replica does not have.
    #[error("a code cannot be opened; give this replica the key ring of the others")]
    SealingKeyMissing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bounds on batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// Maximum number of requests in one batch.
    pub max_batch: usize,
    /// Maximum number of waiting requests.
    pub queue_size: usize,
    /// Maximum time for which a request may wait behind others.
    pub max_queue_wait: Duration,
    /// Number of batches in progress at once. Requests about one record are always in the
    /// same one.
    pub batch_writers: usize,
    /// Maximum time for one load or write.
    pub timeout: Duration,
}

impl From<&StoreOptions> for BatchOptions {
    fn from(options: &StoreOptions) -> Self {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            max_batch: count(options.max_batch),
            queue_size: count(options.queue_size),
            max_queue_wait: options.max_queue_wait,
            batch_writers: usize::from(options.batch_writers),
            timeout: options.timeout,
        }
    }
}

/// Submits work to the batch executors. Clones share them.
#[derive(Clone)]
pub struct BatchClient {
    queues: Arc<[admission::QueueSender]>,
}

impl BatchClient {
    /// Starts the executors in front of `store`. They end once the last clone of this client
    /// is dropped and all work is done, which must happen on the current runtime.
    pub fn new<Store: RecordStore + ?Sized>(
        store: Arc<Store>,
        availability: StoreHealth,
        options: BatchOptions,
        metrics: BatchMetrics,
    ) -> Self {
        let queues = (0..options.batch_writers.max(1)).map(|_| {
            let queue = Arc::new(AdmissionQueue::new(options));
            let executor = BatchExecutor {
                store: Arc::clone(&store),
                availability: availability.clone(),
                queue: Arc::clone(&queue),
                options,
                metrics: metrics.clone(),
            };
            tokio::spawn(executor.run());
            admission::QueueSender::to(queue)
        });
        Self {
            queues: queues.collect(),
        }
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting()).sum()
    }

    /// Admits a job, or fails it at once if it could not be answered in time.
    pub fn submit(&self, job: Box<dyn Job>) {
        let queue = self.queue(&job.record());
        if let Some((refused, wait)) = queue.admit(QueuedJob::new(WorkItem::Job(job))) {
            refused.fail(BatchError::Full { wait });
        }
    }

    /// Loads a record for otpd's own purposes, before all requests.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(&self, key: RecordKey) -> Result<ReadResult, BatchError> {
        let (reply, result) = oneshot::channel();
        let job = ReadJob {
            key,
            record: None,
            reply,
        };
        self.wait_for(key, WorkItem::Job(Box::new(job)), result)
            .await
    }

    /// Replaces a message if it is unchanged, before all requests, and returns whether it
    /// was.
    ///
    /// # Errors
    /// Those of the store. After [`StoreError::Unavailable`] it may have been replaced.
    pub async fn update_message(&self, change: MessageWrite) -> Result<bool, BatchError> {
        let (reply, result) = oneshot::channel();
        let key = change.key;
        let change = Box::new(change);
        let update = WorkItem::MessageUpdate { change, reply };
        self.wait_for(key, update, result).await
    }

    async fn wait_for<Reply>(
        &self,
        key: RecordKey,
        work: WorkItem,
        reply: oneshot::Receiver<Result<Reply, BatchError>>,
    ) -> Result<Reply, BatchError> {
        let gone = |_| StoreError::Unavailable("the batch executor has ended".to_owned());
        self.queue(&key).admit_first(QueuedJob::new(work));
        reply.await.map_err(gone)?
    }

    /// Returns the queue for work on one record.
    fn queue(&self, key: &RecordKey) -> &AdmissionQueue {
        // Keys are MACs: any byte of them is evenly distributed.
        &self.queues[usize::from(key.0[0]) % self.queues.len()]
    }
}

impl fmt::Debug for BatchClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BatchClient({} executors)", self.queues.len())
    }
}

/// Result of [`BatchClient::read`].
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// The store's clock at the load.
    pub clock: StoreClock,
    /// The record, if it exists.
    pub record: Option<Record<SealedBytes>>,
}

/// A job that only reads its record.
struct ReadJob {
    key: RecordKey,
    record: Option<Record<SealedBytes>>,
    reply: oneshot::Sender<Result<ReadResult, BatchError>>,
}

impl Job for ReadJob {
    fn record(&self) -> RecordKey {
        self.key
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
        self.record = view.record(&self.key).cloned();
        DecidedWrites::default()
    }

    fn on_not_committed(&mut self, _: NotCommitted<'_>) {}

    fn complete(self: Box<Self>, end: Result<Committed, BatchError>) {
        let record = self.record;
        let result = end.map(|Committed { clock, .. }| ReadResult { clock, record });
        // The reader may have been aborted meanwhile.
        drop(self.reply.send(result));
    }
}
