//! The way into a writer: who is let in, and what goes next.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Admission, BatchOptions,
    fair_queue::{BatchLatency, FairQueue},
    item::QueuedJob,
};

/// What waits for one writer.
pub(super) struct AdmissionQueue {
    state: Mutex<State>,
    /// Told when something came that the writer waits for.
    arrived: Notify,
    options: BatchOptions,
}

struct State {
    line: FairQueue<QueuedJob>,
    pace: BatchLatency,
    /// Whether nobody can add anything any more.
    closed: bool,
}

/// What keeps a queue open. Once the last one is gone, the writer ends with what waits.
pub(super) struct QueueSender(Arc<AdmissionQueue>);

impl QueueSender {
    pub fn to(queue: Arc<AdmissionQueue>) -> Self {
        Self(queue)
    }
}

impl Deref for QueueSender {
    type Target = AdmissionQueue;

    fn deref(&self) -> &AdmissionQueue {
        &self.0
    }
}

impl Drop for QueueSender {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.arrived.notify_one();
    }
}

impl AdmissionQueue {
    pub fn new(options: BatchOptions) -> Self {
        let share = options.queue_size.div_ceil(options.batch_writers.max(1));
        Self {
            state: Mutex::new(State {
                line: FairQueue::new(share),
                pace: BatchLatency::default(),
                closed: false,
            }),
            arrived: Notify::new(),
            options,
        }
    }

    /// Lets a request in. Returns what is refused for lack of room or time, this one or
    /// another's, and how long what waits now will take.
    pub fn admit(&self, item: QueuedJob) -> Option<(QueuedJob, Duration)> {
        let Some(Admission { caller, deadline }) = item.asked() else {
            self.add_own(item);
            return None;
        };
        let now = Instant::now();
        let mut state = self.state();
        let ahead = state.line.position_of(caller);
        let outlook = state.pace.estimate(ahead, self.max_batch(), now);
        let time_left = deadline.saturating_duration_since(now);
        if outlook.behind_others > self.options.max_queue_wait || outlook.answer > time_left {
            return Some((item, outlook.answer));
        }
        let caller = caller.clone();
        let displaced = state.line.push(&caller, item);
        drop(state);
        self.arrived.notify_one();
        displaced.map(|item| (item, outlook.answer))
    }

    /// Lets in what otpd itself has begun.
    pub fn add_own(&self, item: QueuedJob) {
        self.state().line.push_priority(item);
        self.arrived.notify_one();
    }

    /// Fills up a batch, and says that it goes off. Waits for something where there is
    /// nothing to do; `false` where there never will be.
    pub async fn next_batch(&self, batch: &mut Vec<QueuedJob>) -> bool {
        loop {
            {
                let mut state = self.state();
                // What is tried again comes first.
                let room = self.max_batch().saturating_sub(batch.len());
                state.line.pop_batch(room, batch);
                if !batch.is_empty() {
                    state.pace.started(Instant::now());
                    return true;
                }
                state.pace.stopped();
                if state.closed {
                    return false;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state().line.len()
    }

    /// The store took a batch.
    pub fn record_latency(&self, taken: Duration) {
        self.state().pace.record(taken);
    }

    fn max_batch(&self) -> usize {
        self.options.max_batch.max(1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while it is held: what jobs do is done outside")
    }
}
