//! What a batch consists of: requests, and messages to be replaced.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::{sync::oneshot, time::Instant};

use super::{Asked, BatchError, Job, MessageWrite};
use crate::{
    store::StoreClock,
    traces::{self, TraceContext},
};

/// After how many writes that the store failed a request is told so. After the first one
/// it is to be found out what was written; a store that then fails again may go on so.
pub(super) const MAX_DOUBTS: u32 = 3;

/// What waits for its batch.
pub(super) struct Item {
    pub task: Task,
    pub tries: u32,
    pub doubts: u32,
    /// Since when it waits.
    pub since: Instant,
    /// Where in a trace it was asked for.
    pub place: Option<TraceContext>,
}

pub(super) enum Task {
    /// A request.
    Job(Box<dyn Job>),
    /// A message to be replaced. It rests on nothing, and there is nothing to decide.
    Settlement {
        change: Box<MessageWrite>,
        reply: oneshot::Sender<Result<bool, BatchError>>,
    },
}

impl Item {
    pub fn new(task: Task) -> Self {
        Self {
            task,
            tries: 0,
            doubts: 0,
            since: Instant::now(),
            place: traces::current(),
        }
    }

    pub fn job(&self) -> Option<&dyn Job> {
        match &self.task {
            Task::Job(job) => Some(&**job),
            Task::Settlement { .. } => None,
        }
    }

    /// Who waits for it, if it is a request.
    pub fn asked(&self) -> Option<Asked<'_>> {
        self.job()?.asked()
    }

    pub fn is_wanted(&self) -> bool {
        match &self.task {
            Task::Job(job) => job.is_wanted(),
            // What became of a message is to be known, whoever waits for that.
            Task::Settlement { .. } => true,
        }
    }

    /// Whether to find out what became of a write that the store failed.
    pub fn is_worth_another_doubt(&self) -> bool {
        matches!(self.task, Task::Job(_)) && self.doubts < MAX_DOUBTS
    }

    /// Everything of it was written that there is; or, of a message, nothing.
    pub fn done(self, clock: StoreClock, settled: bool) {
        match self.task {
            Task::Job(job) => end(job, Ok(clock)),
            // Whoever asked may have been ended meanwhile.
            Task::Settlement { reply, .. } => drop(reply.send(Ok(settled))),
        }
    }

    pub fn failed(self, error: BatchError) {
        match self.task {
            Task::Job(job) => end(job, Err(error)),
            Task::Settlement { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// Ends a job. What it does then must not end the others; where it panics, the log has
/// the place from the panic hook.
fn end(job: Box<dyn Job>, how: Result<StoreClock, BatchError>) {
    drop(catch_unwind(AssertUnwindSafe(move || job.end(how))));
}

/// Ends all of a batch with one error.
pub(super) fn fail_all(batch: Vec<Item>, error: &BatchError) {
    for item in batch {
        item.failed(error.clone());
    }
}
