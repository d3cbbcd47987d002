//! Finds messages that nobody looks after: their lease has ended, or it is time to try
//! them again.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rand::RngExt as _;
use tokio::sync::Semaphore;

use super::{InHand, LEASE_MARGIN, MOST_TAKEN_OVER, Outbox, OutboxOptions, Tools};
use crate::{
    domain::{Message, Then, Timestamp},
    keys::{OpenError, system_random},
    log_targets::AUDIT,
    metrics::Ended,
    store::{
        MessageChange, StoreError, Version, VersionedMessage,
        batcher::{BatchError, Seen},
    },
    traces::{self, Span},
};

/// How many messages are taken over at once: few, so that replicas which look at the
/// same moment lose little to each other.
const BATCH: usize = 16;
/// How long to wait at most after another replica was faster, so that the two do not
/// meet again.
const STEP_ASIDE: Duration = Duration::from_millis(50);

/// What one look at the store found.
enum Found {
    /// Nothing that is due.
    Nothing,
    /// Something, all of which is in hand now or ended.
    All,
    /// Something, of which another replica took a part.
    Part,
}

/// Takes messages over, until the outbox is closed. It ends between two rounds alone:
/// what was leased in one would else be nobody's until its lease ends.
pub(super) async fn run(outbox: Outbox, options: OutboxOptions) {
    let room = Arc::new(Semaphore::new(MOST_TAKEN_OVER));
    while !outbox.stopping.is_cancelled() {
        let pause = match round(&outbox.newest(), &room).await {
            Ok(Found::All) => Duration::ZERO,
            Ok(Found::Part) => STEP_ASIDE.mul_f64(system_random().random_range(0.0..1.0)),
            Ok(Found::Nothing) => options.poll_interval,
            Err(error) => {
                tell(&error);
                options.poll_interval
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = outbox.unheld.notified() => {}
            () = outbox.stopping.cancelled() => {}
        }
    }
}

/// Tells the log why something is left until the next round. Of an outage it has been
/// told.
fn tell(error: &BatchError) {
    match error {
        BatchError::Store(StoreError::Unavailable(_))
        | BatchError::Outraced
        | BatchError::Full { .. } => {
            tracing::debug!(%error, "[OTP] Outbox gave up until its next turn");
        }
        BatchError::Panicked | BatchError::Store(_) => {
            tracing::error!(%error, "[OTP] A message cannot be taken over");
        }
    }
}

/// Takes over what is due, as much as there is room for.
async fn round(outbox: &Outbox, room: &Arc<Semaphore>) -> Result<Found, BatchError> {
    let tools = &outbox.courier.tools;
    if !tools.availability.answers() {
        return Ok(Found::Nothing);
    }
    // Waits until there is room for one at least.
    let first = tokio::select! {
        first = Arc::clone(room).acquire_owned() => first,
        () = outbox.stopping.cancelled() => return Ok(Found::Nothing),
    };
    let mut permits = vec![first.expect("the semaphore of an outbox is never closed")];
    while permits.len() < BATCH
        && let Ok(permit) = Arc::clone(room).try_acquire_owned()
    {
        permits.push(permit);
    }
    let limit = u32::try_from(permits.len()).unwrap_or(u32::MAX);
    let due = tools.due_messages(limit).await?;
    if due.is_empty() {
        return Ok(Found::Nothing);
    }
    let looks = due.iter().map(|due| tools.batcher.look(due.key));
    let seen = join_all(looks).await;

    // What is wrong with one message keeps no other from being taken over.
    let mut found = Ok(Found::All);
    let mut changes = Vec::new();
    let mut taken = Vec::new();
    for (due, seen) in due.into_iter().zip(seen) {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                found = Err(error);
                continue;
            }
        };
        let held = take(tools, &due, &seen);
        let mut message = due.message;
        let then = if let Some(Taken { in_hand, until, .. }) = &held {
            message.history.clone_from(&in_hand.message.history);
            message.provider.clone_from(&in_hand.message.provider);
            Then::Leased(*until)
        } else {
            tracing::warn!(message_id = %message.id, "[OTP] Message dropped: its code is dead");
            Then::Dropped
        };
        let change = MessageChange {
            key: due.key,
            expected: Some(due.version),
            version: Version::random(&mut system_random()),
            message: message.then(then, seen.clock.now()),
        };
        let version = change.version;
        taken.push(held.map(|held| Taken {
            in_hand: InHand {
                version,
                ..held.in_hand
            },
            ..held
        }));
        changes.push(change);
    }
    let settlements = changes
        .into_iter()
        .map(|change| tools.batcher.settle(change));
    let written = join_all(settlements).await;
    for (held, written) in taken.into_iter().zip(written) {
        match (written, held) {
            (Ok(true), Some(held)) => {
                held.note_interruption(tools);
                if let Some(permit) = permits.pop() {
                    // Who asked for it is not known any more.
                    let span = Span::unasked("take over");
                    traces::enter(span.context(), || outbox.carry(permit, held.in_hand));
                }
            }
            (Ok(true), None) => tools.metrics.ended(Ended::Dropped),
            (Ok(false), _) => found = found.and(Ok(Found::Part)),
            (Err(error), _) => found = Err(error),
        }
    }
    found
}

/// A message that is taken over.
struct Taken {
    in_hand: InHand,
    /// End of its lease.
    until: Timestamp,
    /// Whether the replica that held it before may have been trying it.
    was_interrupted: bool,
}

impl Taken {
    /// Counts the attempt that the lost replica may have made.
    fn note_interruption(&self, tools: &Tools) {
        let message = &self.in_hand.message;
        let Some(attempt) = message
            .history
            .newest
            .last()
            .filter(|_| self.was_interrupted)
        else {
            return;
        };
        tools
            .metrics
            .interrupted(&attempt.provider, attempt.channel);
        tracing::warn!(
            message_id = %message.id,
            provider = attempt.provider,
            "[OTP] Delivery attempt interrupted: the replica that held the message was lost"
        );
    }
}

/// Takes a message over; `None` where its code is dead, or can be opened no more.
fn take(tools: &Tools, due: &VersionedMessage, seen: &Seen) -> Option<Taken> {
    let now = seen.clock.now();
    let record = seen.record.as_ref()?;
    let policy = tools.policy(&record.caller, &record.purpose)?;
    if !record.has_live(due.message.challenge, policy, now) {
        return None;
    }
    let message = due.message.clone();
    let opened = tools
        .keys
        .open_message(&due.key, &record.caller, &record.purpose, message);
    if opened.as_ref().err() == Some(&OpenError::Altered) {
        tracing::error!(
            target: AUDIT,
            message_id = %due.message.id,
            caller = %record.caller,
            purpose = %record.purpose,
            channel = %due.message.channel,
            "[OTP AUDIT] Message dropped: it was altered in the database"
        );
    }
    let message = opened.ok()?;
    let mut in_hand = InHand {
        key: due.key,
        caller: record.caller.clone(),
        purpose: record.purpose.clone(),
        version: due.version,
        message,
        clock: seen.clock,
    };
    let route = tools.route(&in_hand);
    let lease = route.map_or(LEASE_MARGIN, Outbox::lease);
    let first = route.map_or("", |route| route.first(in_hand.message.predecessors));
    let open = in_hand.message.open_attempt(first).map(str::to_owned);
    if let Some(provider) = &open {
        in_hand.message = interrupted(tools, in_hand.message, provider, now);
    }
    let until = now.plus(lease);
    in_hand.message = in_hand.message.then(Then::Leased(until), now);
    Some(Taken {
        in_hand,
        until,
        was_interrupted: open.is_some(),
    })
}

/// The message after the replica that held it was lost while it may have been trying
/// `provider`.
fn interrupted(tools: &Tools, message: Message, provider: &str, now: Timestamp) -> Message {
    let gateways = &tools.delivery.gateways;
    let gateway = gateways.iter().find(|gateway| gateway.name == provider);
    let channel = gateway.map_or(message.channel, |gateway| gateway.channel(message.channel));
    let is_idempotent = gateway.is_some_and(|gateway| gateway.is_idempotent());
    message.interrupted(provider, (channel, is_idempotent), now)
}
