//! Finds messages that no replica looks after: their lease has ended, or it is time to
//! try them again.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use rand::RngExt as _;

use super::{
    LeasedMessage, MAX_RECLAIMED_IN_FLIGHT, Outbox, OutboxContext, OutboxOptions, TAKEN_OVER_EACH,
    lane_scan::{LaneScan, MOST_AT_ONCE},
    permits::{InFlightLimits, OutboxPermit},
};
use crate::{
    keys::{OpenError, os_rng},
    log_targets::AUDIT,
    metrics::MessageOutcome,
    store::{
        FoundMessage, LaneCursor, MessageWrite, RowVersion, StoreError, VersionedMessage,
        batcher::{BatchError, ReadResult},
    },
    traces::{self, TraceSpan},
};
use otpd_rules::{CallerName, MessageId, NextState, OutboxMessage, Timestamp};

/// How long to wait at most after another replica was faster, so that the two do not
/// meet again.
const CONFLICT_JITTER: Duration = Duration::from_millis(50);

/// Result of one look at the store.
enum PollOutcome {
    /// There is nothing more that is due.
    Nothing,
    /// More may be due, and there is no room for it.
    NoRoom,
    /// Everything that was found is in hand now, or ended, or left.
    All,
    /// Another replica took a part of what was found.
    Part,
}

/// Verdict about a message that is due.
enum ReclaimDecision {
    /// This replica carries it.
    Carry(Box<ReclaimedMessage>),
    /// Its code is dead.
    Dead,
    /// This replica cannot judge it, for that reason. Another one may.
    Leave(&'static str),
}

/// Takes messages over, until the outbox is closed. It ends between two rounds alone:
/// what was leased in one would else be nobody's until its lease ends.
pub(super) async fn run(outbox: Outbox, options: OutboxOptions) {
    let rooms = InFlightLimits::new(MAX_RECLAIMED_IN_FLIGHT, TAKEN_OVER_EACH);
    let mut scan = LaneScan::new(options.poll_interval);
    while !outbox.stopping.is_cancelled() {
        let found = poll_once(&outbox.newest(), &rooms, &mut scan).await;
        let waits_for_room = matches!(found, Ok(PollOutcome::NoRoom));
        let pause = match found {
            Ok(PollOutcome::All) => Duration::ZERO,
            Ok(PollOutcome::Part) => CONFLICT_JITTER.mul_f64(os_rng().random_range(0.0..1.0)),
            Ok(PollOutcome::Nothing | PollOutcome::NoRoom) => options.poll_interval,
            Err(error) => {
                tracing::debug!(%error, "[OTP] Outbox poll failed, will retry");
                scan.end();
                options.poll_interval
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = outbox.unheld.notified() => {}
            () = rooms.freed(), if waits_for_room => {}
            () = outbox.stopping.cancelled() => {}
        }
    }
}

/// Takes over some of what is due, as far as there is room for it.
async fn poll_once(
    outbox: &Outbox,
    rooms: &InFlightLimits,
    scan: &mut LaneScan,
) -> Result<PollOutcome, BatchError> {
    let tools = &outbox.courier.tools;
    if !tools.availability.is_available() {
        scan.end();
        return Ok(PollOutcome::Nothing);
    }
    if scan.is_over() {
        scan.start(tools.waiting_lanes().await?);
    }
    let (turns, mut free) = turns(rooms, scan);
    if turns.is_empty() {
        return Ok(if scan.is_at_end() {
            PollOutcome::Nothing
        } else {
            scan.allow_restart();
            PollOutcome::NoRoom
        });
    }
    let due = tools.due_messages(&turns).await?;
    scan.passed(&turns, &due);
    let due = readable(outbox, scan, due);
    let looks = due.iter().map(|due| tools.batcher.read(due.1.key));
    let seen = join_all(looks).await;

    // What is wrong with one message keeps no other from being taken over.
    let mut found = Ok(PollOutcome::All);
    let mut decided = Vec::new();
    for ((lane, due), seen) in due.into_iter().zip(seen) {
        let id = due.message.id;
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                found = found.and(excuse(error, id, scan));
                continue;
            }
        };
        let taken = match judge(tools, &due, &seen) {
            ReclaimDecision::Carry(taken) => Some(taken),
            ReclaimDecision::Dead => {
                tracing::warn!(message_id = %id, "[OTP] Message dropped: code expired or used");
                None
            }
            ReclaimDecision::Leave(cause) => {
                tracing::warn!(message_id = %id, cause, "[OTP] Message left to other replicas");
                scan.leave(id);
                continue;
            }
        };
        decided.push((lane, change(due, taken, seen.clock.now())));
    }
    let settlements = decided
        .iter()
        .map(|(_, (change, _))| tools.batcher.update_message(change.clone()));
    let written = join_all(settlements).await;
    for ((lane, (change, taken)), written) in decided.into_iter().zip(written) {
        match (written, taken) {
            (Ok(true), Some(taken)) => {
                taken.note_interruption(tools);
                scan.allow_restart();
                // There is a room for each that was asked for.
                if let Some(room) = free.get_mut(&lane).and_then(Vec::pop) {
                    // Who asked for it is not known any more.
                    let unasked = TraceSpan::root_span("take over");
                    traces::enter(unasked.context(), || outbox.carry(room, taken.in_hand));
                }
            }
            (Ok(true), None) => {
                scan.allow_restart();
                tools.metrics.ended(MessageOutcome::Dropped);
            }
            (Ok(false), _) => found = found.and(Ok(PollOutcome::Part)),
            (Err(error), _) => found = found.and(excuse(error, change.message.id, scan)),
        }
    }
    match found {
        Ok(PollOutcome::All) if scan.is_at_end() => Ok(PollOutcome::Nothing),
        found => found,
    }
}

/// A message that is taken over.
struct ReclaimedMessage {
    in_hand: LeasedMessage,
    /// End of its lease.
    until: Timestamp,
    /// Whether the replica that held it before may have been trying it.
    was_interrupted: bool,
}

impl ReclaimedMessage {
    /// Counts the attempt that the lost replica may have made.
    fn note_interruption(&self, tools: &OutboxContext) {
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

/// Takes rooms for the lanes that are to be looked through, and returns the turns that
/// fit into them.
fn turns(
    rooms: &InFlightLimits,
    scan: &LaneScan,
) -> (Vec<LaneCursor>, HashMap<CallerName, Vec<OutboxPermit>>) {
    let mut free = HashMap::new();
    let mut turns = Vec::new();
    let share = (MOST_AT_ONCE / scan.lanes().len().max(1)).max(1);
    for lane in scan.lanes() {
        let taken: Vec<OutboxPermit> = (0..share)
            .map_while(|_| rooms.enter(&lane.caller))
            .collect();
        if !taken.is_empty() {
            turns.push(LaneCursor {
                lane: lane.caller.clone(),
                after: lane.after,
                most: u32::try_from(taken.len()).unwrap_or(u32::MAX),
            });
            free.insert(lane.caller.clone(), taken);
        }
    }
    (turns, free)
}

/// Sorts out what this replica carries already, what it left a moment ago, and rows that
/// cannot be read.
fn readable(
    outbox: &Outbox,
    scan: &mut LaneScan,
    found: Vec<FoundMessage>,
) -> Vec<(CallerName, VersionedMessage)> {
    let mut readable = Vec::new();
    for found in found {
        let id = found.place.id;
        if outbox.carried.holds(id) || scan.has_left(id) {
            continue;
        }
        match found.message {
            Ok(message) => readable.push((found.lane, message)),
            Err(error) => refuse(&error.into(), id, scan),
        }
    }
    readable
}

/// Logs that a message cannot be taken over for a reason of its own, and leaves it.
fn refuse(error: &BatchError, id: MessageId, scan: &mut LaneScan) {
    tracing::error!(message_id = %id, %error, "[OTP] Message could not be reclaimed");
    scan.leave(id);
}

/// Sorts the error of one message: the round fails only if the store does.
fn excuse(
    error: BatchError,
    id: MessageId,
    scan: &mut LaneScan,
) -> Result<PollOutcome, BatchError> {
    match error {
        BatchError::Store(StoreError::Unavailable(_))
        | BatchError::ContentionLimit
        | BatchError::Full { .. } => Err(error),
        BatchError::Panicked | BatchError::Store(_) => {
            refuse(&error, id, scan);
            Ok(PollOutcome::All)
        }
    }
}

/// Returns the change that leases a message to the replica that has it in hand, or drops
/// it.
fn change(
    due: VersionedMessage,
    mut taken: Option<Box<ReclaimedMessage>>,
    now: Timestamp,
) -> (MessageWrite, Option<Box<ReclaimedMessage>>) {
    let version = RowVersion::random(&mut os_rng());
    let mut message = due.message;
    let mut then = NextState::Dropped;
    if let Some(ReclaimedMessage { in_hand, until, .. }) = taken.as_deref_mut() {
        in_hand.version = version;
        message.history.clone_from(&in_hand.message.history);
        message.provider.clone_from(&in_hand.message.provider);
        then = NextState::Leased(*until);
    }
    let change = MessageWrite {
        key: due.key,
        expected: Some(due.version),
        version,
        message: message.transition_to(then, now),
    };
    (change, taken)
}

/// Decides about a message. Only the record can say that a code is dead. What the
/// configuration of this replica lacks says nothing of the code: replicas may run with an
/// older or a newer configuration.
fn judge(tools: &OutboxContext, due: &VersionedMessage, seen: &ReadResult) -> ReclaimDecision {
    let now = seen.clock.now();
    let Some(record) = &seen.record else {
        return ReclaimDecision::Dead;
    };
    if record.is_dead(due.message.challenge, now) || now >= due.message.expires_at {
        return ReclaimDecision::Dead;
    }
    let Some(policy) = tools.policy(&record.caller, &record.purpose) else {
        return ReclaimDecision::Leave("its caller is not configured here");
    };
    if !record.has_live(due.message.challenge, policy, now) {
        return ReclaimDecision::Leave("its code was answered more often than is allowed here");
    }
    let opened = tools.keys.open_message(
        &due.key,
        &record.caller,
        &record.purpose,
        due.message.clone(),
    );
    let message = match opened {
        Ok(message) => message,
        Err(OpenError::Unreadable) => {
            return ReclaimDecision::Leave("it was sealed with a key that is not in the key ring");
        }
        Err(OpenError::Altered) => {
            tracing::error!(
                target: AUDIT,
                message_id = %due.message.id,
                caller = %record.caller,
                purpose = %record.purpose,
                channel = %due.message.channel,
                "[OTP AUDIT] Message dropped: it was altered in the database"
            );
            return ReclaimDecision::Dead;
        }
    };
    let mut in_hand = LeasedMessage {
        key: due.key,
        caller: record.caller.clone(),
        purpose: record.purpose.clone(),
        version: due.version,
        message,
        clock: seen.clock,
    };
    let Some(route) = tools.route(&in_hand) else {
        return ReclaimDecision::Leave("no route leads to a provider for it");
    };
    let until = now.saturating_add(Outbox::lease(route));
    let first = route.first(in_hand.message.predecessors);
    let open = in_hand.message.open_attempt(first).map(str::to_owned);
    if let Some(provider) = &open {
        in_hand.message = interrupted(tools, in_hand.message, provider, now);
    }
    in_hand.message = in_hand.message.transition_to(NextState::Leased(until), now);
    ReclaimDecision::Carry(Box::new(ReclaimedMessage {
        in_hand,
        until,
        was_interrupted: open.is_some(),
    }))
}

/// The message after the replica that held it was lost while it may have been trying
/// `provider`.
fn interrupted(
    tools: &OutboxContext,
    message: OutboxMessage,
    provider: &str,
    now: Timestamp,
) -> OutboxMessage {
    let gateways = &tools.delivery.gateways;
    let gateway = gateways.iter().find(|gateway| gateway.name == provider);
    let channel = gateway.map_or(message.channel, |gateway| gateway.channel(message.channel));
    let is_idempotent = gateway.is_some_and(|gateway| gateway.is_idempotent());
    message.interrupted(provider, (channel, is_idempotent), now)
}
