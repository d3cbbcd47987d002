//! Transactional outbox: each message is written in one transaction with its record. An
//! acknowledged code therefore survives any crash, and its message is delivered at least
//! once while the code is valid.
//!
//! A replica dispatches a message only while it holds the message's *lease*: the replica
//! that wrote the message has the first one, and after its end any replica can reclaim the
//! message. Leases are acquired by compare-and-set, like every other write.

mod attempt;
mod dispatcher;
mod lane_scan;
mod permits;
mod recent_deliveries;
mod reclaimer;
mod transitions;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::CallerRegistry,
    engine::{BatchClient, BatchError, LeasedMessage, MessageHandoff},
    keys::KeyRing,
    metrics::DeliveryMetrics,
    store::{
        FoundMessage, LaneCursor, MessageWrite, RecordStore, StoreError, health::StoreHealth,
        with_timeout,
    },
    traces,
};
use dispatcher::Dispatcher;
use otpd_delivery::{Delivery, Route, RouteQuery};
use otpd_rules::{CallerName, Purpose, PurposePolicy};
use permits::{HeldMessages, InFlightLimits, OutboxPermit};
pub use recent_deliveries::RecentDeliveries;

/// Maximum number of new messages in flight on a replica. Further messages are written
/// without a lease, for any replica with capacity, so that memory is bounded.
const MAX_NEW_IN_FLIGHT: usize = 1_024;
/// Number of further new messages in flight that are reserved for each caller.
const NEW_RESERVED_PER_CALLER: usize = 16;
/// Maximum number of reclaimed messages (of other replicas, and retries) in flight on a
/// replica: so few that new ones never wait long behind them.
const MAX_RECLAIMED_IN_FLIGHT: usize = 64;
/// Number of further reclaimed messages in flight that are reserved for each caller.
const RECLAIMED_RESERVED_PER_CALLER: usize = 4;

/// Maximum time, by the monotonic clock, from the request to the store that found a code
/// valid to the start of an attempt.
const MAX_LIVENESS_AGE: Duration = Duration::from_secs(2);
/// Length of a lease beyond the longest attempt, for the start before the attempt and the
/// write after it. The lease of a message that waits for a permit is renewed.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Remaining lease of a waiting message at which the lease is renewed.
const LEASE_RENEWAL: Duration = Duration::from_secs(3);
/// Minimum remaining lease beyond the timeout of an attempt, for the attempt to start.
const LEASE_RESERVE: Duration = Duration::from_secs(1);

/// Pause before a write is retried while the store is unavailable.
const STORE_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Options of the outbox: the `[delivery]` table.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxOptions {
    /// Interval of polls for messages whose lease has expired or whose retry is due.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
        }
    }
}

/// Outbox of a replica. Clones share their state.
#[derive(Clone, Debug)]
pub struct Outbox {
    dispatcher: Arc<Dispatcher>,
    /// Dispatcher with the latest context, for reclaimed messages.
    latest: watch::Sender<Arc<Dispatcher>>,
    /// Limits on the messages that this replica writes.
    new_in_flight: InFlightLimits,
    /// Messages in flight. This replica never reclaims them from itself.
    held: HeldMessages,
    /// Notified if a message without a lease was written.
    unleased: Arc<Notify>,
    tasks: TaskTracker,
    /// Task of the reclaimer, which is never aborted, because it must dispatch the messages
    /// that it has leased.
    reclaiming: TaskTracker,
    stopping: CancellationToken,
}

/// Dependencies of the outbox.
#[derive(Clone, Debug)]
pub struct OutboxContext {
    /// Store of the messages.
    pub store: Arc<dyn RecordStore>,
    /// Timeout of reads from the store.
    pub store_timeout: Duration,
    /// Batch executor, which reads records and writes messages.
    pub batcher: BatchClient,
    /// Availability of the store.
    pub availability: StoreHealth,
    /// Keys that messages are sealed with.
    pub keys: Arc<KeyRing>,
    /// Callers with their policies.
    pub callers: Arc<CallerRegistry>,
    /// Providers, routes and texts.
    pub delivery: Arc<Delivery>,
    /// Metrics of delivery.
    pub metrics: DeliveryMetrics,
    /// Providers of recent messages; `None` if metrics are not scraped.
    pub recent: Option<RecentDeliveries>,
}

/// Capacity of the outbox for the message of one send.
#[derive(Debug)]
pub struct OutboxSlot {
    outbox: Outbox,
    /// Capacity for the message; `None` if there is none left.
    permit: Option<OutboxPermit>,
}

impl OutboxSlot {
    /// Returns the lease of the message, if it takes `route`; `None` if there is no capacity
    /// left, and it is to be written without a lease.
    pub fn lease(&self, route: &Route) -> Option<Duration> {
        self.permit.as_ref()?;
        Some(lease(route))
    }
}

/// Returns the lease of a message that takes `route`.
fn lease(route: &Route) -> Duration {
    route.longest_attempt() + LEASE_MARGIN
}

impl MessageHandoff for OutboxSlot {
    fn accept(self: Box<Self>, message: LeasedMessage) {
        match self.permit {
            Some(permit) => self.outbox.spawn_dispatch(permit, message),
            // Wakes the reclaimer, because a message without a lease was written.
            None => self.outbox.unleased.notify_one(),
        }
    }
}

impl Outbox {
    /// Creates an outbox, and starts its reclaimer, which runs until the outbox is closed.
    pub fn new(context: OutboxContext, options: OutboxOptions) -> Self {
        let stopping = CancellationToken::new();
        let dispatcher = Arc::new(Dispatcher::new(context, stopping.clone()));
        let outbox = Self {
            latest: watch::Sender::new(Arc::clone(&dispatcher)),
            dispatcher,
            new_in_flight: InFlightLimits::new(MAX_NEW_IN_FLIGHT, NEW_RESERVED_PER_CALLER),
            held: HeldMessages::default(),
            unleased: Arc::default(),
            tasks: TaskTracker::new(),
            reclaiming: TaskTracker::new(),
            stopping,
        };
        let reclaiming = reclaimer::run(outbox.clone(), options);
        outbox.reclaiming.spawn(reclaiming);
        outbox
    }

    /// Returns the same outbox with another context. Messages in flight keep the context
    /// that they started with.
    #[must_use]
    pub fn with_context(&self, context: OutboxContext) -> Self {
        let dispatcher = Arc::new(Dispatcher::new(context, self.stopping.clone()));
        self.latest.send_replace(Arc::clone(&dispatcher));
        Self {
            dispatcher,
            ..self.clone()
        }
    }

    /// Returns the same outbox with the latest context.
    fn with_latest_context(&self) -> Self {
        let dispatcher = Arc::clone(&self.latest.borrow());
        Self {
            dispatcher,
            ..self.clone()
        }
    }

    /// Returns the providers, routes and texts.
    pub fn delivery(&self) -> &Delivery {
        &self.dispatcher.context.delivery
    }

    /// Reserves capacity for a message of `caller` that is about to be written.
    pub fn reserve(&self, caller: &CallerName) -> OutboxSlot {
        let is_open = !self.stopping.is_cancelled();
        let permit = is_open
            .then(|| self.new_in_flight.try_acquire(caller))
            .flatten();
        OutboxSlot {
            outbox: self.clone(),
            permit,
        }
    }

    fn spawn_dispatch(&self, permit: OutboxPermit, leased: LeasedMessage) {
        let dispatcher = Arc::clone(&self.dispatcher);
        let entry = self.held.add(leased.message.id);
        let dispatching = async move {
            dispatcher.dispatch(leased).await;
            drop((permit, entry));
        };
        // Delivery belongs to the trace of the request.
        self.tasks
            .spawn(traces::with_context(traces::current(), dispatching));
    }

    /// Finishes the running attempts, and releases the leases of messages without an
    /// attempt. Must be called after the last write.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.reclaiming.close();
        self.reclaiming.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns the number of messages in flight.
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }
}

impl OutboxContext {
    /// Returns the policy of a caller's codes, or `None` if the caller is not configured on
    /// this replica.
    fn policy(&self, caller: &CallerName, purpose: &Purpose) -> Option<&PurposePolicy> {
        let caller = self.callers.get(caller)?;
        Some(caller.policies.of(purpose))
    }

    /// Returns the route of a message, or `None` if no configured route matches.
    fn route(&self, leased: &LeasedMessage) -> Option<&Route> {
        let content = leased.message.content()?;
        self.delivery.route(&RouteQuery {
            channel: leased.message.channel,
            purpose: &leased.purpose,
            caller: &leased.caller,
            recipient: &content.recipient,
            locale: &content.locale,
        })
    }

    /// Returns the lanes with messages that are not in a final state.
    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        with_timeout(self.store_timeout, self.store.waiting_lanes()).await
    }

    /// Returns the messages of these lanes that are due, oldest first.
    async fn due_messages(&self, turns: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        with_timeout(self.store_timeout, self.store.due_messages(turns)).await
    }

    /// Writes the new state of a message, and retries as long as the store is unavailable.
    /// Returns whether the message had the expected version. It has another one if another
    /// replica reclaimed it, or if an earlier write with an unknown outcome had succeeded.
    /// Both are harmless, because the holder of the lease continues.
    async fn record_state(&self, change: MessageWrite) -> bool {
        loop {
            match self.batcher.update_message(change.clone()).await {
                Ok(written) => return written,
                Err(
                    BatchError::Store(StoreError::Unavailable(_) | StoreError::Locked(_))
                    | BatchError::ContentionLimit,
                ) => {
                    tokio::time::sleep(STORE_RETRY_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, "[OTP] Message state could not be recorded");
                    return false;
                }
            }
        }
    }
}
