//! What a batch consists of: requests, and messages to be replaced.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::{sync::oneshot, time::Instant};

use super::{Admission, BatchError, Job, MessageWrite};
use crate::{
    store::StoreClock,
    traces::{self, TraceContext},
};

/// After how many writes that the store failed a request is told so. After the first one
/// it is to be found out what was written; a store that then fails again may go on so.
pub(super) const MAX_UNKNOWN_OUTCOMES: u32 = 3;

/// What waits for its batch.
pub(super) struct QueuedJob {
    pub task: WorkItem,
    pub tries: u32,
    pub unknown_outcomes: u32,
    /// Since when it waits.
    pub since: Instant,
    /// Where in a trace it was asked for.
    pub place: Option<TraceContext>,
}

pub(super) enum WorkItem {
    /// A request.
    Job(Box<dyn Job>),
    /// A message to be replaced. It rests on nothing, and there is nothing to decide.
    MessageUpdate {
        change: Box<MessageWrite>,
        reply: oneshot::Sender<Result<bool, BatchError>>,
    },
}

impl QueuedJob {
    pub fn new(task: WorkItem) -> Self {
        Self {
            task,
            tries: 0,
            unknown_outcomes: 0,
            since: Instant::now(),
            place: traces::current(),
        }
    }

    pub fn job(&self) -> Option<&dyn Job> {
        match &self.task {
            WorkItem::Job(job) => Some(&**job),
            WorkItem::MessageUpdate { .. } => None,
        }
    }

    /// Who waits for it, if it is a request.
    pub fn asked(&self) -> Option<Admission<'_>> {
        self.job()?.admission()
    }

    pub fn is_wanted(&self) -> bool {
        match &self.task {
            WorkItem::Job(job) => job.is_wanted(),
            // What became of a message is to be known, whoever waits for that.
            WorkItem::MessageUpdate { .. } => true,
        }
    }

    /// Whether to find out what became of a write that the store failed.
    pub fn may_retry_unknown_outcome(&self) -> bool {
        matches!(self.task, WorkItem::Job(_)) && self.unknown_outcomes < MAX_UNKNOWN_OUTCOMES
    }

    /// Everything of it was written that there is; or, of a message, nothing.
    pub fn complete(self, clock: StoreClock, settled: bool) {
        match self.task {
            WorkItem::Job(job) => complete_job(job, Ok(clock)),
            // Whoever asked may have been ended meanwhile.
            WorkItem::MessageUpdate { reply, .. } => drop(reply.send(Ok(settled))),
        }
    }

    pub fn fail(self, error: BatchError) {
        match self.task {
            WorkItem::Job(job) => complete_job(job, Err(error)),
            WorkItem::MessageUpdate { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// Ends a job. What it does then must not end the others; where it panics, the log has
/// the place from the panic hook.
fn complete_job(job: Box<dyn Job>, how: Result<StoreClock, BatchError>) {
    drop(catch_unwind(AssertUnwindSafe(move || job.complete(how))));
}

/// Ends all of a batch with one error.
pub(super) fn fail_all(batch: Vec<QueuedJob>, error: &BatchError) {
    for item in batch {
        item.fail(error.clone());
    }
}
