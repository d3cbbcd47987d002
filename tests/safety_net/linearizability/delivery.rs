//! Invariants of delivery: every acknowledged send has a message, which is sent unless its
//! code dies first, and no message with a code known to be dead is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use otpd_model::{Command, Observed, Outcome, RecordId};
use otpd_rules::{ChallengeId, ChallengeNonce, RecordKey};
use tokio::time::Instant;

use super::{
    checker::Event,
    delivery_log::{self, Ended},
    fleet::{Fleet, Message},
};
/// Maximum time from the end of a code to the log line of its message: an attempt may start
/// 2 s after a load that showed a live code, and then takes a while.
const MAX_LATENESS: Duration = Duration::from_secs(5);

/// Maximum time until the log line of a sent message is read.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Numbers of messages by their final state.
pub static SENT: AtomicU64 = AtomicU64::new(0);
pub static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Checks the messages of one recipient, whose calls began at `start`, after all of them are
/// final.
///
/// # Errors
/// The broken invariant.
pub async fn check(
    fleet: &Fleet,
    record: &RecordId,
    events: &[Event],
    start: Instant,
) -> Result<(), String> {
    let sends = acknowledged(events);
    if let Some((challenge, _)) = sends.first() {
        let RecordKey(key) = parse(challenge)?.key;
        let ends = delivery_log::ends(fleet.database_url(), &fleet.up, &key).await?;
        let resend_after = fleet.settings.policies[record.purpose].resend_after;
        check_sends(&sends, &ends, events, resend_after)?;
        check_ends(&ends, fleet.paused_since(start))?;
        check_lines(fleet, record, RecordKey(key), &ends).await?;
    }
    check_mail(fleet, record, events)
}

/// Every acknowledged send has a message, and every message has a send.
fn check_sends(
    sends: &BTreeSet<(&str, i64)>,
    ends: &[Ended],
    events: &[Event],
    resend_after: i64,
) -> Result<(), String> {
    let mut of_sends = BTreeSet::new();
    for (challenge, resend_at) in sends {
        let ChallengeNonce(nonce) = parse(challenge)?.nonce;
        let created_at = resend_at - resend_after;
        let mut own = ends
            .iter()
            .filter(|end| end.challenge == nonce && end.created_at == created_at);
        let Some(end) = own.next() else {
            return Err(format!(
                "a send of {challenge} was acknowledged and has no message: {ends:?}"
            ));
        };
        of_sends.insert(&end.message_id);
    }
    let all: BTreeSet<_> = ends.iter().map(|end| &end.message_id).collect();
    let is_lost_send = |event: &&Event| {
        event.observed.is_none() && matches!(event.call.command, Command::Send { .. })
    };
    let lost = events.iter().filter(is_lost_send).count();
    if all.difference(&of_sends).count() > lost {
        return Err(format!(
            "there are more messages than sends ({lost} of which have no reply): {ends:?}"
        ));
    }
    Ok(())
}

/// Every message has one final state, and an allowed one.
fn check_ends(ends: &[Ended], paused: bool) -> Result<(), String> {
    let late = i64::try_from(MAX_LATENESS.as_millis()).expect("seconds");
    let mut seen = BTreeSet::new();
    for end in ends {
        let broken = match end.state.as_str() {
            _ if !seen.insert(&end.message_id) => "was written after its final state",
            // A paused replica started the attempt before.
            "sent" if end.updated_at > end.death() + late && !paused => {
                "was sent long after the end of its code"
            }
            "dropped" if end.code_lived => "was dropped although its code was live",
            "sent" => {
                SENT.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            "dropped" => {
                DROPPED.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            _ => "failed, although the provider never fails",
        };
        return Err(format!("a message {broken}: {end:?} among {ends:?}"));
    }
    Ok(())
}

/// Every message that is stored as sent has its log line, which is written first.
async fn check_lines(
    fleet: &Fleet,
    record: &RecordId,
    key: RecordKey,
    ends: &[Ended],
) -> Result<(), String> {
    let mut sent = BTreeMap::<&[u8], usize>::new();
    for end in ends.iter().filter(|end| end.state == "sent") {
        *sent.entry(&end.challenge).or_default() += 1;
    }
    for (nonce, count) in sent {
        let nonce = nonce.try_into().map_err(|_| "a challenge of 16 bytes")?;
        let nonce = ChallengeNonce(nonce);
        let challenge = ChallengeId { key, nonce }.to_string();
        let arrived = fleet
            .mail
            .arrives(&record.recipient, &challenge, count, MESSAGE_TIMEOUT);
        if !arrived.await {
            return Err(format!(
                "{count} messages of {challenge} are stored as sent, and some have no log line"
            ));
        }
    }
    Ok(())
}

/// A challenge has one code, which is not sent long after a caller knows that it is dead.
fn check_mail(fleet: &Fleet, record: &RecordId, events: &[Event]) -> Result<(), String> {
    let dead = deaths(events);
    let mut codes = BTreeMap::new();
    for message in fleet.mail.of(&record.recipient) {
        let code = codes
            .entry(message.challenge.clone())
            .or_insert_with(|| message.code.clone());
        if *code != message.code {
            return Err(format!("two codes of {}", message.challenge));
        }
        let died = dead.get(message.challenge.as_str());
        if let Some(&died) = died
            && message.seen > died + MAX_LATENESS
            && !was_paused(fleet, &message, died)
        {
            return Err(format!(
                "a message of {} long after the end of its code",
                message.challenge
            ));
        }
    }
    Ok(())
}

/// Returns the challenges of all acknowledged sends with the time of the next allowed send,
/// which is the same in a replayed reply.
fn acknowledged(events: &[Event]) -> BTreeSet<(&str, i64)> {
    let replies = events.iter().filter_map(|event| event.observed.as_ref());
    replies
        .filter_map(|reply| match reply {
            Observed::Sent {
                challenge,
                resend_at,
                ..
            } => Some((challenge.as_str(), *resend_at)),
            _ => None,
        })
        .collect()
}

/// Returns the time from which a caller knew that a code was dead, by challenge.
fn deaths(events: &[Event]) -> BTreeMap<&str, Instant> {
    let mut deaths = BTreeMap::new();
    for event in events {
        if let (Some(challenge), Some(returned)) = (ended_challenge(event), event.returned) {
            let known: &mut Instant = deaths.entry(challenge).or_insert(returned);
            *known = returned.min(*known);
        }
    }
    deaths
}

/// Returns the challenge that was verified, had its last failed attempt, or was cancelled by
/// its id.
fn ended_challenge(event: &Event) -> Option<&str> {
    match (event.observed.as_ref()?, &event.call.command) {
        (
            Observed::Verdict {
                outcome: Outcome::Verified,
                challenge,
                ..
            }
            | Observed::Verdict {
                outcome: Outcome::WrongCode,
                remaining: 0,
                challenge,
                ..
            },
            _,
        )
        | (
            Observed::Cancelled {
                cancelled: true, ..
            },
            Command::Cancel {
                challenge: Some(challenge),
                ..
            },
        ) => Some(challenge),
        _ => None,
    }
}

/// Returns true if the replica that sent a message was paused after `died`.
fn was_paused(fleet: &Fleet, message: &Message, died: Instant) -> bool {
    let pauses = fleet.pauses.lock().expect("lock is not poisoned");
    pauses.iter().any(|&(replica, start, end)| {
        replica == message.replica && start <= message.seen && died <= end + MAX_LATENESS
    })
}

fn parse(challenge: &str) -> Result<ChallengeId, String> {
    ChallengeId::parse(challenge).ok_or_else(|| format!("{challenge} is no challenge id"))
}
