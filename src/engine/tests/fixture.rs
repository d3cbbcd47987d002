//! An engine in front of a store in memory, and jobs that count.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{
        Admission, BatchClient, BatchError, BatchOptions, Committed, DecidedWrites, Job,
        NotCommitted, WorkingSetView,
    },
    memory_store::{InMemory, at, record},
};
use crate::{
    metrics::{LabelValues, Metrics},
    store::health::StoreHealth,
};
use otpd_rules::{CallerName, LimitKey, LimitUpdate, MessageId, Quota, RecordKey};

pub const OPTIONS: BatchOptions = BatchOptions {
    max_batch: 8,
    queue_size: 100,
    max_queue_wait: Duration::from_mins(1),
    batch_writers: 1,
    timeout: Duration::from_secs(2),
};

/// A cell a second, and room for more of them than any test takes.
pub fn rate() -> Quota {
    Quota::new(10_000, Duration::from_secs(10_000)).expect("it is on")
}

/// An engine in front of a store in memory.
pub struct Fixture {
    pub store: Arc<InMemory>,
    pub batcher: BatchClient,
    pub metrics: Metrics,
}

impl Fixture {
    /// Returns a fixture whose store works at once.
    pub fn new(options: BatchOptions) -> Self {
        let fixture = Self::held(options);
        fixture.store.let_loads(1_000);
        fixture.store.let_writes(1_000);
        fixture
    }

    /// Returns a fixture whose store waits for `let_loads` and `let_writes`.
    pub fn held(options: BatchOptions) -> Self {
        let store = Arc::new(InMemory::default());
        let metrics = Metrics::new(&LabelValues::default());
        let batcher = BatchClient::new(
            Arc::clone(&store),
            StoreHealth::fixed(true),
            options,
            metrics.batches.clone(),
        );
        Self {
            store,
            batcher,
            metrics,
        }
    }

    /// Submits a job that counts one up.
    pub fn count(&self, key: RecordKey) -> PendingJob {
        self.submit(Count::of(key))
    }

    pub fn submit(&self, mut count: Count) -> PendingJob {
        let (reply, end) = oneshot::channel();
        count.reply = Some(reply);
        self.batcher.submit(Box::new(count));
        PendingJob(end)
    }
}

/// Result of a job, once it has ended.
pub struct PendingJob(oneshot::Receiver<Result<Counted, BatchError>>);

impl PendingJob {
    pub async fn end(self) -> Result<Counted, BatchError> {
        self.0.await.expect("a job ends")
    }

    /// Returns the count of its decision.
    pub async fn count(self) -> u32 {
        self.end().await.expect("the store works").count
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

#[derive(Debug)]
pub struct Counted {
    pub count: u32,
    /// Number of its decisions.
    pub tries: u32,
    /// Rate limits that were written although its record was not.
    pub paid: HashSet<LimitKey>,
    /// Number of its writes with an unknown outcome.
    pub doubts: u32,
    /// Messages of its record.
    pub messages: Vec<MessageId>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a behaviour of its own"
)]
/// A job that counts its record's attempts up by one, and charges limits.
pub struct Count {
    key: RecordKey,
    pub caller: CallerName,
    /// Time for which a reply is of use.
    pub patience: Duration,
    submitted: Instant,
    pub limits: Vec<LimitKey>,
    /// Whether it only reads the count.
    pub looks: bool,
    /// Whether it reads the messages of its record.
    pub reads_messages: bool,
    pub panics: bool,
    pub panics_at_the_end: bool,
    counted: Counted,
    reply: Option<oneshot::Sender<Result<Counted, BatchError>>>,
}

impl Count {
    pub fn of(key: RecordKey) -> Self {
        Self {
            key,
            caller: CallerName::new("somebody"),
            patience: Duration::from_mins(1),
            submitted: Instant::now(),
            limits: Vec::new(),
            looks: false,
            reads_messages: false,
            panics: false,
            panics_at_the_end: false,
            counted: Counted {
                count: 0,
                tries: 0,
                paid: HashSet::new(),
                doubts: 0,
                messages: Vec::new(),
            },
            reply: None,
        }
    }
}

impl Job for Count {
    fn record(&self) -> RecordKey {
        self.key
    }

    fn limits(&self) -> &[LimitKey] {
        &self.limits
    }

    fn admission(&self) -> Option<Admission<'_>> {
        Some(Admission {
            caller: &self.caller,
            deadline: self.submitted + self.patience,
        })
    }

    fn reads_messages(&self) -> bool {
        self.reads_messages
    }

    fn is_wanted(&self) -> bool {
        !self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn decide(&mut self, view: &WorkingSetView<'_>) -> DecidedWrites {
        assert!(!self.panics, "the test made it panic");
        let stored = view.record(&self.key);
        let count = stored.map_or(0, |record| record.challenge.attempts) + u32::from(!self.looks);
        self.counted.count = count;
        self.counted.tries += 1;
        if self.looks {
            return DecidedWrites::default();
        }
        let charge = |key: &LimitKey| (*key, LimitUpdate::Consume(rate()));
        DecidedWrites {
            record: Some((record(count), at(0))),
            limits: self.limits.iter().map(charge).collect(),
            message: None,
        }
    }

    fn on_not_committed(&mut self, loss: NotCommitted<'_>) {
        match loss {
            NotCommitted::Conflict(written) => {
                let ours = self
                    .limits
                    .iter()
                    .filter(|key| written.limits.contains_key(key));
                self.counted.paid.extend(ours);
            }
            NotCommitted::InDoubt => self.counted.doubts += 1,
        }
    }

    fn complete(self: Box<Self>, end: Result<Committed, BatchError>) {
        assert!(!self.panics_at_the_end, "the test made it panic");
        let mut counted = self.counted;
        let end = end.map(|Committed { messages, .. }| {
            counted.messages = messages.iter().map(|found| found.message.id).collect();
            counted
        });
        let reply = self.reply.expect("a submitted job has one");
        drop(reply.send(end));
    }
}
