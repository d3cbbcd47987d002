//! Admission queue of an executor.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Admission, BatchOptions,
    fair_queue::{BatchLatency, FairQueue},
    queued_job::QueuedJob,
};

/// Requests that wait for one executor.
pub(super) struct AdmissionQueue {
    state: Mutex<State>,
    /// Wakes the executor.
    arrived: Notify,
    options: BatchOptions,
}

struct State {
    queue: FairQueue<QueuedJob>,
    latency: BatchLatency,
    /// Whether all senders are dropped.
    closed: bool,
}

/// Sender that keeps a queue open. Once it is dropped, the executor ends after the rest.
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
                queue: FairQueue::new(share),
                latency: BatchLatency::default(),
                closed: false,
            }),
            arrived: Notify::new(),
            options,
        }
    }

    /// Admits a request. Returns the request that is refused for lack of room or time, this one
    /// or another caller's, and the estimated time until the waiting requests are answered.
    pub fn admit(&self, item: QueuedJob) -> Option<(QueuedJob, Duration)> {
        let Some(Admission { caller, deadline }) = item.admission() else {
            self.admit_first(item);
            return None;
        };
        let now = Instant::now();
        let mut state = self.state();
        let ahead = state.queue.position_of(caller);
        let wait = state.latency.estimate(ahead, self.max_batch(), now);
        let time_left = deadline.saturating_duration_since(now);
        if wait.behind_others > self.options.max_queue_wait || wait.reply > time_left {
            return Some((item, wait.reply));
        }
        let caller = caller.clone();
        let displaced = state.queue.push(&caller, item);
        drop(state);
        self.arrived.notify_one();
        displaced.map(|item| (item, wait.reply))
    }

    /// Admits work of otpd itself, before all requests.
    pub fn admit_first(&self, item: QueuedJob) {
        self.state().queue.push_priority(item);
        self.arrived.notify_one();
    }

    /// Fills up a batch, and notes its start. Waits if there is nothing to do; returns `false`
    /// if there never will be.
    pub async fn next_batch(&self, batch: &mut Vec<QueuedJob>) -> bool {
        loop {
            {
                let mut state = self.state();
                // The batch begins with the jobs that are attempted again.
                let room = self.max_batch().saturating_sub(batch.len());
                state.queue.pop_batch(room, batch);
                if !batch.is_empty() {
                    state.latency.started(Instant::now());
                    return true;
                }
                state.latency.stopped();
                if state.closed {
                    return false;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    /// Notes the duration of a batch that the store took.
    pub fn record_latency(&self, taken: Duration) {
        self.state().latency.record(taken);
    }

    fn max_batch(&self) -> usize {
        self.options.max_batch.max(1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code of a job runs, and so panics, while the lock is held")
    }
}
