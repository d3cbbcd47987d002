//! Contents of the admission queue: jobs, and messages to be replaced; and the keys of a batch.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::{sync::oneshot, time::Instant};

use super::{Admission, BatchError, Committed, Job, MessageWrite, VersionedMessage};
use crate::{
    store::StoreClock,
    traces::{self, TraceContext},
};
use otpd_rules::{LimitKey, RecordKey};

/// Number of writes with an unknown outcome after which a request fails. After the first one
/// another attempt finds out what was written; a store that then fails again may go on
/// failing.
pub(super) const MAX_UNKNOWN_OUTCOMES: u32 = 3;

/// Work that waits for its batch.
pub(super) struct QueuedJob {
    pub work: WorkItem,
    pub attempts: u32,
    pub unknown_outcomes: u32,
    pub queued_at: Instant,
    /// Trace that it belongs to.
    pub trace: Option<TraceContext>,
}

pub(super) enum WorkItem {
    Job(Box<dyn Job>),
    /// A message to be replaced. It depends on nothing, and there is nothing to decide.
    MessageUpdate {
        change: Box<MessageWrite>,
        reply: oneshot::Sender<Result<bool, BatchError>>,
    },
}

impl QueuedJob {
    pub fn new(work: WorkItem) -> Self {
        Self {
            work,
            attempts: 0,
            unknown_outcomes: 0,
            queued_at: Instant::now(),
            trace: traces::current(),
        }
    }

    pub fn job(&self) -> Option<&dyn Job> {
        match &self.work {
            WorkItem::Job(job) => Some(&**job),
            WorkItem::MessageUpdate { .. } => None,
        }
    }

    /// Returns the terms of its admission, if it is a request.
    pub fn admission(&self) -> Option<Admission<'_>> {
        self.job()?.admission()
    }

    pub fn is_wanted(&self) -> bool {
        match &self.work {
            WorkItem::Job(job) => job.is_wanted(),
            // A message must be written even if its dispatcher has ended.
            WorkItem::MessageUpdate { .. } => true,
        }
    }

    /// Returns whether another attempt may find out the unknown outcome of a write.
    pub fn may_retry_unknown_outcome(&self) -> bool {
        self.job().is_some() && self.unknown_outcomes < MAX_UNKNOWN_OUTCOMES
    }

    /// Ends a job that is committed.
    pub fn commit(self, clock: StoreClock, messages: Vec<VersionedMessage>) {
        if let WorkItem::Job(job) = self.work {
            complete_job(job, self.trace, Ok(Committed { clock, messages }));
        }
    }

    pub fn fail(self, error: BatchError) {
        match self.work {
            WorkItem::Job(job) => complete_job(job, self.trace, Err(error)),
            WorkItem::MessageUpdate { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// Ends a job. If that panics, the other jobs go on, and the panic hook has logged it.
fn complete_job(
    job: Box<dyn Job>,
    trace: Option<TraceContext>,
    end: Result<Committed, BatchError>,
) {
    let complete = move || traces::enter(trace, || job.complete(end));
    drop(catch_unwind(AssertUnwindSafe(complete)));
}

/// Ends all jobs of a batch with one error.
pub(super) fn fail_all(batch: Vec<QueuedJob>, error: &BatchError) {
    for job in batch {
        job.fail(error.clone());
    }
}

/// Keys of a batch, sorted as the indexes are.
pub(super) struct KeySet {
    pub records: Vec<RecordKey>,
    pub limits: Vec<LimitKey>,
}

impl KeySet {
    pub fn of(batch: &[QueuedJob]) -> Self {
        let jobs = || batch.iter().filter_map(QueuedJob::job);
        let mut records: Vec<RecordKey> = jobs().map(Job::record).collect();
        let mut limits: Vec<LimitKey> = jobs().flat_map(Job::limits).copied().collect();
        records.sort_unstable();
        records.dedup();
        limits.sort_unstable();
        limits.dedup();
        Self { records, limits }
    }
}
