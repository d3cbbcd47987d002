//! Reclaimer: acquires the leases of messages whose lease has expired or whose retry is
//! due.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use rand::RngExt as _;

use super::{
    LeasedMessage, MAX_RECLAIMED_IN_FLIGHT, Outbox, OutboxContext, OutboxOptions,
    RECLAIMED_RESERVED_PER_CALLER,
    lane_scan::{LaneScan, MAX_RECLAIM_BATCH},
    lease,
    permits::{InFlightLimits, OutboxPermit},
};
use crate::{
    engine::{BatchError, ReadResult},
    keys::{OpenError, os_rng},
    metrics::MessageOutcome,
    store::{FoundMessage, LaneCursor, MessageWrite, RowVersion, StoreError, VersionedMessage},
    traces::{self, TraceSpan},
};
use otpd_base::log_targets::AUDIT;
use otpd_rules::{CallerName, MessageId, NextState, OutboxMessage, Timestamp};

/// Maximum random pause after a conflict with another replica, so that the two do not
/// conflict again.
const CONFLICT_JITTER: Duration = Duration::from_millis(50);

/// Result of one poll.
enum PollOutcome {
    /// No further message is due.
    Nothing,
    /// More messages may be due, but there is no capacity for them.
    NoCapacity,
    /// Every message that was found is reclaimed, completed or skipped.
    All,
    /// Another replica reclaimed some of the messages.
    Conflict,
}

/// Decision about a message that is due.
enum ReclaimDecision {
    /// This replica dispatches the message.
    Reclaim(Box<ReclaimedMessage>),
    /// The message is dropped, because its code is no longer valid.
    Drop,
    /// This replica cannot decide about the message, for this reason. Another one may.
    Skip(&'static str),
}

/// Reclaims messages until the outbox is closed. It ends only between two polls, because
/// messages that were leased in a poll would otherwise wait until their lease expires.
pub(super) async fn run(outbox: Outbox, options: OutboxOptions) {
    let limits = InFlightLimits::new(MAX_RECLAIMED_IN_FLIGHT, RECLAIMED_RESERVED_PER_CALLER);
    let mut scan = LaneScan::new(options.poll_interval);
    while !outbox.stopping.is_cancelled() {
        let found = poll_once(&outbox.with_latest_context(), &limits, &mut scan).await;
        let waits_for_permit = matches!(found, Ok(PollOutcome::NoCapacity));
        let pause = match found {
            Ok(PollOutcome::All) => Duration::ZERO,
            Ok(PollOutcome::Conflict) => CONFLICT_JITTER.mul_f64(os_rng().random_range(0.0..1.0)),
            Ok(PollOutcome::Nothing | PollOutcome::NoCapacity) => options.poll_interval,
            Err(error) => {
                tracing::debug!(%error, "[OTP] Outbox poll failed, will retry");
                scan.end();
                options.poll_interval
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = outbox.unleased.notified() => {}
            () = limits.returned(), if waits_for_permit => {}
            () = outbox.stopping.cancelled() => {}
        }
    }
}

/// Reclaims messages that are due, as far as there is capacity for them.
async fn poll_once(
    outbox: &Outbox,
    limits: &InFlightLimits,
    scan: &mut LaneScan,
) -> Result<PollOutcome, BatchError> {
    let context = &outbox.dispatcher.context;
    if !context.availability.is_available() {
        scan.end();
        return Ok(PollOutcome::Nothing);
    }
    if scan.is_over() {
        scan.start(context.waiting_lanes().await?);
    }
    let (cursors, mut permits) = acquire_permits(limits, scan);
    if cursors.is_empty() {
        return Ok(if scan.is_at_end() {
            PollOutcome::Nothing
        } else {
            scan.allow_restart();
            PollOutcome::NoCapacity
        });
    }
    let due = context.due_messages(&cursors).await?;
    scan.advance(&cursors, &due);
    let due = readable(outbox, scan, due);
    let reads = due.iter().map(|due| context.batcher.read(due.1.key));
    let reads = join_all(reads).await;

    // An error of one message does not prevent the reclaim of others.
    let mut outcome = Ok(PollOutcome::All);
    let mut decided = Vec::new();
    for ((lane, due), read) in due.into_iter().zip(reads) {
        let id = due.message.id;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                outcome = outcome.and(classify_error(error, id, scan));
                continue;
            }
        };
        let reclaimed = match decide_reclaim(context, &due, &read) {
            ReclaimDecision::Reclaim(reclaimed) => Some(reclaimed),
            ReclaimDecision::Drop => {
                tracing::warn!(message_id = %id, "[OTP] Message dropped: code expired or used");
                None
            }
            ReclaimDecision::Skip(cause) => {
                tracing::warn!(message_id = %id, cause, "[OTP] Message left to other replicas");
                scan.skip(id);
                continue;
            }
        };
        decided.push((lane, message_write(due, reclaimed, read.clock.now())));
    }
    let writes = decided
        .iter()
        .map(|(_, (write, _))| context.batcher.update_message(write.clone()));
    let written = join_all(writes).await;
    for ((lane, (write, reclaimed)), written) in decided.into_iter().zip(written) {
        match (written, reclaimed) {
            (Ok(true), Some(reclaimed)) => {
                reclaimed.count_interruption(context);
                scan.allow_restart();
                // At most as many messages as permits were requested.
                if let Some(permit) = permits.get_mut(&lane).and_then(Vec::pop) {
                    // The trace of the request is not known any more.
                    let root_span = TraceSpan::root_span("reclaim");
                    traces::enter(root_span.context(), || {
                        outbox.spawn_dispatch(permit, reclaimed.leased);
                    });
                }
            }
            (Ok(true), None) => {
                scan.allow_restart();
                context.metrics.ended(MessageOutcome::Dropped);
            }
            (Ok(false), _) => outcome = outcome.and(Ok(PollOutcome::Conflict)),
            (Err(error), _) => {
                outcome = outcome.and(classify_error(error, write.message.id, scan));
            }
        }
    }
    match outcome {
        Ok(PollOutcome::All) if scan.is_at_end() => Ok(PollOutcome::Nothing),
        outcome => outcome,
    }
}

/// A reclaimed message.
struct ReclaimedMessage {
    leased: LeasedMessage,
    /// End of the lease.
    until: Timestamp,
    /// True if the previous holder of the lease may have been in an attempt.
    was_interrupted: bool,
}

impl ReclaimedMessage {
    /// Counts and logs the attempt that the lost replica may have made.
    fn count_interruption(&self, context: &OutboxContext) {
        let message = &self.leased.message;
        let Some(attempt) = message
            .history
            .newest
            .last()
            .filter(|_| self.was_interrupted)
        else {
            return;
        };
        context
            .metrics
            .interrupted(&attempt.provider, attempt.channel);
        tracing::warn!(
            message_id = %message.id,
            provider = attempt.provider,
            "[OTP] Delivery attempt interrupted: the replica that held the message was lost"
        );
    }
}

/// Acquires permits for the lanes of the scan, and returns a cursor for each lane with
/// permits.
fn acquire_permits(
    limits: &InFlightLimits,
    scan: &LaneScan,
) -> (Vec<LaneCursor>, HashMap<CallerName, Vec<OutboxPermit>>) {
    let mut permits = HashMap::new();
    let mut cursors = Vec::new();
    let share = (MAX_RECLAIM_BATCH / scan.lanes().len().max(1)).max(1);
    for lane in scan.lanes() {
        let acquired: Vec<OutboxPermit> = (0..share)
            .map_while(|_| limits.try_acquire(&lane.caller))
            .collect();
        if !acquired.is_empty() {
            cursors.push(LaneCursor {
                lane: lane.caller.clone(),
                after: lane.after,
                most: u32::try_from(acquired.len()).unwrap_or(u32::MAX),
            });
            permits.insert(lane.caller.clone(), acquired);
        }
    }
    (cursors, permits)
}

/// Removes messages that this replica already dispatches or skips, and rows that cannot be
/// read.
fn readable(
    outbox: &Outbox,
    scan: &mut LaneScan,
    found: Vec<FoundMessage>,
) -> Vec<(CallerName, VersionedMessage)> {
    let mut readable = Vec::new();
    for found in found {
        let id = found.place.id;
        if outbox.held.contains(id) || scan.is_skipped(id) {
            continue;
        }
        match found.message {
            Ok(message) => readable.push((found.lane, message)),
            Err(error) => skip_failed(&error.into(), id, scan),
        }
    }
    readable
}

/// Logs that a message cannot be reclaimed because of an error of its own, and skips it.
fn skip_failed(error: &BatchError, id: MessageId, scan: &mut LaneScan) {
    tracing::error!(message_id = %id, %error, "[OTP] Message could not be reclaimed");
    scan.skip(id);
}

/// Returns the error only if the store failed. An error of the message alone is logged,
/// and the message is skipped.
fn classify_error(
    error: BatchError,
    id: MessageId,
    scan: &mut LaneScan,
) -> Result<PollOutcome, BatchError> {
    match error {
        BatchError::Store(StoreError::Unavailable(_))
        | BatchError::ContentionLimit
        | BatchError::Full { .. } => Err(error),
        BatchError::Panicked | BatchError::SealingKeyMissing | BatchError::Store(_) => {
            skip_failed(&error, id, scan);
            Ok(PollOutcome::All)
        }
    }
}

/// Returns the write that leases a reclaimed message to this replica, or drops the
/// message.
fn message_write(
    due: VersionedMessage,
    mut reclaimed: Option<Box<ReclaimedMessage>>,
    now: Timestamp,
) -> (MessageWrite, Option<Box<ReclaimedMessage>>) {
    let version = RowVersion::random(&mut os_rng());
    let mut message = due.message;
    let mut state = NextState::Dropped;
    if let Some(ReclaimedMessage { leased, until, .. }) = reclaimed.as_deref_mut() {
        leased.version = version;
        message.history.clone_from(&leased.message.history);
        message.provider.clone_from(&leased.message.provider);
        state = NextState::Leased(*until);
    }
    let write = MessageWrite {
        key: due.key,
        expected: Some(due.version),
        version,
        message: message.transition_to(state, now),
    };
    (write, reclaimed)
}

/// Decides about a message that is due. Only the record shows that a code is no longer
/// valid. A missing entry in the configuration of this replica does not, because replicas
/// may run with an older or a newer configuration.
fn decide_reclaim(
    context: &OutboxContext,
    due: &VersionedMessage,
    read: &ReadResult,
) -> ReclaimDecision {
    let now = read.clock.now();
    let Some(record) = &read.record else {
        return ReclaimDecision::Drop;
    };
    if record.is_dead(due.message.challenge, now) || now >= due.message.expires_at {
        return ReclaimDecision::Drop;
    }
    let Some(policy) = context.policy(&record.caller, &record.purpose) else {
        return ReclaimDecision::Skip("its caller is not configured here");
    };
    if !record.has_live(due.message.challenge, policy, now) {
        return ReclaimDecision::Skip("its code has more attempts than this replica allows");
    }
    let opened = context.keys.open_message(
        &due.key,
        &record.caller,
        &record.purpose,
        due.message.clone(),
    );
    let message = match opened {
        Ok(message) => message,
        Err(OpenError::Unreadable) => {
            return ReclaimDecision::Skip("it was sealed with a key that is not in the key ring");
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
            return ReclaimDecision::Drop;
        }
    };
    let mut leased = LeasedMessage {
        key: due.key,
        caller: record.caller.clone(),
        purpose: record.purpose.clone(),
        version: due.version,
        message,
        clock: read.clock,
    };
    let Some(route) = context.route(&leased) else {
        return ReclaimDecision::Skip("no route leads to a provider for it");
    };
    let until = now.saturating_add(lease(route));
    let first = route.first(leased.message.predecessors);
    let open = leased.message.open_attempt(first).map(str::to_owned);
    if let Some(provider) = &open {
        leased.message = interrupted(context, leased.message, provider, now);
    }
    leased.message = leased.message.transition_to(NextState::Leased(until), now);
    ReclaimDecision::Reclaim(Box::new(ReclaimedMessage {
        leased,
        until,
        was_interrupted: open.is_some(),
    }))
}

/// Returns the message after the loss of the replica that may have been in an attempt with
/// `provider`.
fn interrupted(
    context: &OutboxContext,
    message: OutboxMessage,
    provider: &str,
    now: Timestamp,
) -> OutboxMessage {
    let gateways = &context.delivery.gateways;
    let gateway = gateways.iter().find(|gateway| gateway.name == provider);
    let channel = gateway.map_or(message.channel, |gateway| gateway.channel(message.channel));
    let is_idempotent = gateway.is_some_and(|gateway| gateway.is_idempotent());
    message.interrupted(provider, (channel, is_idempotent), now)
}
