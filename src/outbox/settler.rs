//! Writes down what became of messages, many at a time and off the way of replies.

use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::MessageId,
    store::{MessageChange, RecordStore, StoreError, availability::Availability},
};

/// How many messages are written in one transaction at most.
const MOST_AT_ONCE: usize = 256;
/// How many may wait; whoever comes then waits himself.
const MOST_WAITING: usize = 1_024;
/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes what became of messages.
#[derive(Clone, Debug)]
pub(super) struct Settler(mpsc::Sender<Settlement>);

#[derive(Debug)]
struct Settlement {
    change: MessageChange,
    written: oneshot::Sender<bool>,
}

impl Settler {
    /// A settler, and its work, which ends when the last clone of it is gone and
    /// everything has been written.
    pub fn new<Store: RecordStore>(
        store: Arc<Store>,
        availability: Availability,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        (Self(sender), settle(store, availability, waiting))
    }

    /// Writes `change`, however long the store does not answer, and says whether the
    /// message still was as expected. It was not where another replica took it over; and
    /// it may not be where a write that seemed to fail had been done, which looks the
    /// same and is as harmless: whoever holds the lease goes on.
    pub async fn settle(&self, change: MessageChange) -> bool {
        let (written, outcome) = oneshot::channel();
        if self.0.send(Settlement { change, written }).await.is_err() {
            return false;
        }
        outcome.await.unwrap_or(false)
    }
}

async fn settle<Store: RecordStore>(
    store: Arc<Store>,
    availability: Availability,
    mut waiting: mpsc::Receiver<Settlement>,
) {
    let mut batch = Vec::with_capacity(MOST_AT_ONCE);
    while waiting.recv_many(&mut batch, MOST_AT_ONCE).await > 0 {
        let (changes, replies): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .map(|settlement| (settlement.change, settlement.written))
            .unzip();
        let written = write(&*store, &availability, &changes).await;
        for (change, reply) in changes.iter().zip(replies) {
            // Whoever asked may have been ended meanwhile.
            let _ = reply.send(written.contains(&change.message.id));
        }
    }
}

/// Writes a batch, and returns what of it was as expected.
async fn write<Store: RecordStore>(
    store: &Store,
    availability: &Availability,
    changes: &[MessageChange],
) -> HashSet<MessageId> {
    loop {
        match store.write_messages(changes).await {
            Ok(written) => return written,
            Err(StoreError::Conflict(_)) => {}
            Err(StoreError::Unavailable(cause)) => {
                tracing::debug!(%cause, "[OTP] Store did not take what became of messages");
                availability.doubt();
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::error!(%error, "[OTP] What became of messages could not be written");
                return HashSet::new();
            }
        }
    }
}
