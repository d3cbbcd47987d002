//! Messages on their way: each was written in one transaction with its record, so that
//! an acknowledged code is on its way whatever dies, and is handed over at least once
//! while its code lives.
//!
//! A message is held by a *lease*: the replica that wrote it, or took it over when the
//! lease of another had ended, is the only one to try it until then. Leases are taken
//! by compare-and-set, like everything else.

mod attempt;
mod dispatcher;
mod lane_scan;
mod permits;
mod reclaimer;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::CallerRegistry,
    delivery::{Delivery, Route, RouteQuery},
    keys::KeyRing,
    metrics::DeliveryMetrics,
    store::{
        FoundMessage, LaneCursor, MessageWrite, RecordStore as _, RecordStoreHandle, RowVersion,
        StoreClock, StoreError,
        batcher::{BatchClient, BatchError},
        health::StoreHealth,
        with_timeout,
    },
    traces,
};
use dispatcher::Dispatcher;
use otpd_rules::{CallerName, OutboxMessage, Purpose, PurposePolicy, RecordKey};
use permits::{HeldMessages, InFlightLimits};

pub use permits::OutboxPermit;

/// How many messages a replica holds at most between their commit and their end. More
/// are left to whoever has room, so that memory is bounded whatever comes.
const MAX_NEW_IN_FLIGHT: usize = 1_024;
/// Number of further rooms for each caller alone.
const FRESH_EACH: usize = 16;
/// How many of others' messages, and of those that are tried again, a replica holds at
/// most: so few that new ones never wait long behind them.
const MAX_RECLAIMED_IN_FLIGHT: usize = 64;
/// Number of further rooms for each caller alone.
const TAKEN_OVER_EACH: usize = 4;

/// No attempt starts later than this after the store was asked for a code that it says
/// is alive, by the monotonic clock.
const MAX_LIVENESS_AGE: Duration = Duration::from_secs(2);
/// Length of a lease beyond the longest attempt: for the start before it, and for the write
/// after it. The lease of a message that waits for a turn is renewed.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Rest of the lease of a waiting message at which it is renewed.
const LEASE_RENEWAL: Duration = Duration::from_secs(3);
/// What must be left of a lease, beyond the attempt, for it to start.
const LEASE_RESERVE: Duration = Duration::from_secs(1);

/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// How messages are carried: the `[delivery]` table of the configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxOptions {
    /// How often messages are looked for whose lease has ended, or that are to be tried
    /// again.
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

/// The messages of a replica that are on their way. Clones are one outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    courier: Arc<Dispatcher>,
    /// Who carries what is taken over: with the tools that were given last.
    newest: watch::Sender<Arc<Dispatcher>>,
    /// Rooms for messages that this replica writes.
    fresh: InFlightLimits,
    /// Messages in hand. This replica never takes them over from itself.
    carried: HeldMessages,
    /// Told when there is a message that nobody holds.
    unheld: Arc<Notify>,
    tasks: TaskTracker,
    /// The taking over, which is never cut off: what it has leased it must carry.
    taking_over: TaskTracker,
    stopping: CancellationToken,
}

/// What the outbox works with.
#[derive(Clone, Debug)]
pub struct OutboxContext {
    /// Where messages are.
    pub store: Arc<RecordStoreHandle>,
    /// How long a look at it may take.
    pub store_timeout: Duration,
    /// How what is decided about them gets there.
    pub batcher: BatchClient,
    /// Whether it answers.
    pub availability: StoreHealth,
    /// What messages are sealed with.
    pub keys: Arc<KeyRing>,
    /// Whose codes they carry.
    pub callers: Arc<CallerRegistry>,
    /// Who takes them.
    pub delivery: Arc<Delivery>,
    /// How they do.
    pub metrics: DeliveryMetrics,
}

/// A message whose lease this replica holds.
#[derive(Debug)]
pub struct LeasedMessage {
    /// The record whose code it carries.
    pub key: RecordKey,
    /// Whose code that is.
    pub caller: CallerName,
    /// What the code is for.
    pub purpose: Purpose,
    /// The version under which the store has it.
    pub version: RowVersion,
    /// The message.
    pub message: OutboxMessage,
    /// The store's clock at the load that saw the code alive.
    pub clock: StoreClock,
}

impl Outbox {
    /// An outbox, which takes messages over until it is closed.
    pub fn new(tools: OutboxContext, options: OutboxOptions) -> Self {
        let stopping = CancellationToken::new();
        let courier = Arc::new(Dispatcher::new(tools, stopping.clone()));
        let outbox = Self {
            newest: watch::Sender::new(Arc::clone(&courier)),
            courier,
            fresh: InFlightLimits::new(MAX_NEW_IN_FLIGHT, FRESH_EACH),
            carried: HeldMessages::default(),
            unheld: Arc::default(),
            tasks: TaskTracker::new(),
            taking_over: TaskTracker::new(),
            stopping,
        };
        let taking_over = reclaimer::run(outbox.clone(), options);
        outbox.taking_over.spawn(taking_over);
        outbox
    }

    /// The same outbox with other tools. What is on its way keeps those that it has.
    #[must_use]
    pub fn with_context(&self, tools: OutboxContext) -> Self {
        let courier = Arc::new(Dispatcher::new(tools, self.stopping.clone()));
        self.newest.send_replace(Arc::clone(&courier));
        Self {
            courier,
            ..self.clone()
        }
    }

    /// The same outbox with the tools that were given last.
    fn newest(&self) -> Self {
        let courier = Arc::clone(&self.newest.borrow());
        Self {
            courier,
            ..self.clone()
        }
    }

    /// Who takes messages.
    pub fn delivery(&self) -> &Delivery {
        &self.courier.tools.delivery
    }

    /// Room for a message of `caller` that is about to be written; `None` if no room is
    /// free, and the message is to be written without a lease.
    pub fn try_reserve(&self, caller: &CallerName) -> Option<OutboxPermit> {
        if self.stopping.is_cancelled() {
            return None;
        }
        self.fresh.enter(caller)
    }

    /// How long to hold a message that takes `route`.
    pub fn lease(route: &Route) -> Duration {
        route.longest_attempt() + LEASE_MARGIN
    }

    /// Sends a message that was just written, off the way of the reply.
    pub fn send(&self, room: OutboxPermit, in_hand: LeasedMessage) {
        self.carry(room, in_hand);
    }

    /// A message was just written that nobody holds.
    pub fn wake(&self) {
        self.unheld.notify_one();
    }

    fn carry(&self, room: OutboxPermit, in_hand: LeasedMessage) {
        let courier = Arc::clone(&self.courier);
        let entry = self.carried.add(in_hand.message.id);
        let carrying = async move {
            courier.dispatch(in_hand).await;
            drop((room, entry));
        };
        // What becomes of a message belongs to the trace in which it was asked for.
        self.tasks
            .spawn(traces::with_context(traces::current(), carrying));
    }

    /// Finishes the attempts that run, and gives back the leases of what has not been
    /// tried. To be called when nothing is written any more.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.taking_over.close();
        self.taking_over.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many messages are in hand.
    pub fn in_hand(&self) -> usize {
        self.tasks.len()
    }
}

impl OutboxContext {
    /// The policy of a caller's codes; `None` if this replica does not know the caller.
    fn policy(&self, caller: &CallerName, purpose: &Purpose) -> Option<&PurposePolicy> {
        let caller = self.callers.get(caller)?;
        Some(caller.policies.of(purpose))
    }

    /// The way of a message; `None` where no provider is for it any more.
    fn route(&self, in_hand: &LeasedMessage) -> Option<&Route> {
        let content = in_hand.message.content()?;
        self.delivery.route(&RouteQuery {
            channel: in_hand.message.channel,
            purpose: &in_hand.purpose,
            caller: &in_hand.caller,
            recipient: &content.recipient,
            locale: &content.locale,
        })
    }

    /// The lanes with messages that are not final.
    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        with_timeout(self.store_timeout, self.store.waiting_lanes()).await
    }

    /// Messages of these lanes that have to be looked after now, oldest first.
    async fn due_messages(&self, turns: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        with_timeout(self.store_timeout, self.store.due_messages(turns)).await
    }

    /// Writes what became of a message, however long the store does not answer, and says
    /// whether the message still was as expected. It was not where another replica took
    /// it over; and it may not be where a write that seemed to fail had been done, which
    /// looks the same and is as harmless: whoever holds the lease goes on.
    async fn settle(&self, change: MessageWrite) -> bool {
        loop {
            match self.batcher.update_message(change.clone()).await {
                Ok(written) => return written,
                Err(
                    BatchError::Store(StoreError::Unavailable(_)) | BatchError::ContentionLimit,
                ) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, "[OTP] Message state could not be recorded");
                    return false;
                }
            }
        }
    }
}
