//! Finds messages that nobody looks after: their lease has ended, or it is time to try
//! them again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use rand::RngExt as _;
use tokio::sync::Semaphore;

use super::{InHand, LEASE_MARGIN, MOST_TAKEN_OVER, Outbox, OutboxOptions, Tools};
use crate::{
    domain::{Message, RecordKey, Then, Timestamp},
    keys::system_random,
    store::{MessageChange, RecordStore as _, Snapshot, StoreError, Version, VersionedMessage},
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
        let pause = match round(&outbox, &room).await {
            Ok(Found::All) => Duration::ZERO,
            Ok(Found::Part) => STEP_ASIDE.mul_f64(system_random().random_range(0.0..1.0)),
            Ok(Found::Nothing) => options.poll_interval,
            Err(error) => {
                tracing::debug!(%error, "[OTP] Outbox gave up until its next turn");
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

/// Takes over what is due, as much as there is room for.
async fn round(outbox: &Outbox, room: &Arc<Semaphore>) -> Result<Found, StoreError> {
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
    let due = tools.in_time(tools.store.due_messages(limit)).await?;
    if due.is_empty() {
        return Ok(Found::Nothing);
    }
    // Two messages of one record are one key.
    let keys: BTreeSet<RecordKey> = due.iter().map(|message| message.key).collect();
    let keys: Vec<RecordKey> = keys.into_iter().collect();
    let snapshot = tools.in_time(tools.store.load(&keys, &[])).await?;

    let mut changes = Vec::new();
    let mut taken = HashMap::new();
    for due in due {
        let (then, in_hand) = match take(tools, &due, &snapshot) {
            Some((in_hand, until)) => (Then::Leased(until), Some(in_hand)),
            None => (Then::Dropped, None),
        };
        let id = due.message.id;
        if in_hand.is_none() {
            tracing::warn!(message_id = %id, "[OTP] Message dropped: its code is dead");
        }
        let change = MessageChange {
            key: due.key,
            expected: Some(due.version),
            version: Version::random(&mut system_random()),
            message: due.message.then(then, snapshot.clock.now()),
        };
        if let Some(mut in_hand) = in_hand {
            in_hand.version = change.version;
            taken.insert(id, in_hand);
        }
        changes.push(change);
    }
    let written = tools.in_time(tools.store.write_messages(&changes)).await?;
    for id in &written {
        if let Some(in_hand) = taken.remove(id)
            && let Some(permit) = permits.pop()
        {
            outbox.carry(permit, in_hand);
        }
    }
    Ok(if written.len() == changes.len() {
        Found::All
    } else {
        Found::Part
    })
}

/// The message in hand, and until when it is to be leased; `None` where its code is
/// dead, or can be opened no more.
fn take(tools: &Tools, due: &VersionedMessage, snapshot: &Snapshot) -> Option<(InHand, Timestamp)> {
    let now = snapshot.clock.now();
    let record = &snapshot.records.get(&due.key)?.record;
    let policy = tools.policy(&record.caller, &record.purpose)?;
    if !record.has_live(due.message.challenge, policy, now) {
        return None;
    }
    let message = due.message.clone().try_map(|sealed| {
        let Message { challenge, id, .. } = &due.message;
        tools
            .keys
            .open_content(&due.key, challenge, id, &sealed)
            .ok_or(())
    });
    let message = message.ok()?;
    let mut in_hand = InHand {
        key: due.key,
        caller: record.caller.clone(),
        purpose: record.purpose.clone(),
        version: due.version,
        message,
        clock: snapshot.clock,
    };
    let lease = tools.route(&in_hand).map_or(LEASE_MARGIN, Outbox::lease);
    let until = now.plus(lease);
    in_hand.message = in_hand.message.then(Then::Leased(until), now);
    Some((in_hand, until))
}
