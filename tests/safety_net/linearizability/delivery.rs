//! Invariants of delivery: every acknowledged send has a message, which is handed over
//! unless its code dies first, and no message of a code known to be dead is handed over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use otpd_rules::{ChallengeId, ChallengeNonce, RecordKey};
use tokio::time::Instant;

use super::{
    checker::Event,
    delivery_log::{self, Ended},
    fleet::{Fleet, Message},
};
use crate::model::{Ask, Name, Outcome, Told};

/// How long after a code's end a message may still be on its way into the log: an
/// attempt may start 2 s after a load that saw the code alive, and then takes a while.
const LATE: Duration = Duration::from_secs(5);

/// How long the line of a message that was handed over may be on its way to here.
const MAIL_PATIENCE: Duration = Duration::from_secs(15);

/// How many messages ended so.
pub static HANDED_OVER: AtomicU64 = AtomicU64::new(0);
pub static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Checks the messages of one recipient, whose calls began at `start`, and waits for
/// those that are under way.
///
/// # Errors
/// What does not hold.
pub async fn check(
    fleet: &Fleet,
    name: &Name,
    events: &[Event],
    start: Instant,
) -> Result<(), String> {
    let sends = acknowledged(events);
    if let Some((challenge, _)) = sends.first() {
        let RecordKey(key) = parse(challenge)?.key;
        let ends = delivery_log::ends(fleet.database_url(), &fleet.up, &key).await?;
        let resend_after = fleet.settings.policies[name.purpose].resend_after;
        check_sends(&sends, &ends, events, resend_after)?;
        check_ends(&ends, fleet.paused_since(start))?;
        check_lines(fleet, name, RecordKey(key), &ends).await?;
    }
    check_mail(fleet, name, events)
}

/// Every send that was acknowledged has a message, and no message came of nothing.
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
    let is_lost_send =
        |event: &&Event| event.told.is_none() && matches!(event.call.ask, Ask::Send { .. });
    let lost = events.iter().filter(is_lost_send).count();
    if all.difference(&of_sends).count() > lost {
        return Err(format!(
            "there are more messages than sends ({lost} of which have no answer): {ends:?}"
        ));
    }
    Ok(())
}

/// Every message ended once, and as it may.
fn check_ends(ends: &[Ended], paused: bool) -> Result<(), String> {
    let late = i64::try_from(LATE.as_millis()).expect("seconds");
    let mut seen = BTreeSet::new();
    for end in ends {
        let broken = match end.state.as_str() {
            _ if !seen.insert(&end.message_id) => "was written after its end",
            // A replica that stood still meant to send it before.
            "sent" if end.updated_at > end.death() + late && !paused => {
                "was handed over long after its code's end"
            }
            "dropped" if end.code_lived => "was dropped though its code lived",
            "sent" => {
                HANDED_OVER.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            "dropped" => {
                DROPPED.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            _ => "was given up, and nothing ever fails for good",
        };
        return Err(format!("a message {broken}: {end:?} among {ends:?}"));
    }
    Ok(())
}

/// What is said to be handed over was: the line comes before that is written.
async fn check_lines(
    fleet: &Fleet,
    name: &Name,
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
            .arrives(&name.recipient, &challenge, count, MAIL_PATIENCE);
        if !arrived.await {
            return Err(format!(
                "{count} messages of {challenge} are said to be handed over, and not all were"
            ));
        }
    }
    Ok(())
}

/// A challenge has one code, which is not delivered long after its end is known to callers.
fn check_mail(fleet: &Fleet, name: &Name, events: &[Event]) -> Result<(), String> {
    let dead = deaths(events);
    let mut codes = BTreeMap::new();
    for message in fleet.mail.of(&name.recipient) {
        let code = codes
            .entry(message.challenge.clone())
            .or_insert_with(|| message.code.clone());
        if *code != message.code {
            return Err(format!("two codes of {}", message.challenge));
        }
        let died = dead.get(message.challenge.as_str());
        if let Some(&died) = died
            && message.seen > died + LATE
            && !was_paused(fleet, &message, died)
        {
            return Err(format!(
                "a message of {} long after its end",
                message.challenge
            ));
        }
    }
    Ok(())
}

/// The sends that were acknowledged: their challenges, and when the next one was allowed,
/// which is the same where one is told again.
fn acknowledged(events: &[Event]) -> BTreeSet<(&str, i64)> {
    let told = events.iter().filter_map(|event| event.told.as_ref());
    told.filter_map(|told| match told {
        Told::Sent {
            challenge,
            resend_at,
            ..
        } => Some((challenge.as_str(), *resend_at)),
        _ => None,
    })
    .collect()
}

/// When a caller knew of a code that it was dead.
fn deaths(events: &[Event]) -> BTreeMap<&str, Instant> {
    let mut deaths = BTreeMap::new();
    for event in events {
        if let (Some(challenge), Some(returned)) = (killed(event), event.returned) {
            let known: &mut Instant = deaths.entry(challenge).or_insert(returned);
            *known = returned.min(*known);
        }
    }
    deaths
}

/// The code that was verified, had its last wrong answer, or was cancelled by its name.
fn killed(event: &Event) -> Option<&str> {
    match (event.told.as_ref()?, &event.call.ask) {
        (
            Told::Verdict {
                outcome: Outcome::Verified,
                challenge,
                ..
            }
            | Told::Verdict {
                outcome: Outcome::WrongCode,
                remaining: 0,
                challenge,
                ..
            },
            _,
        )
        | (
            Told::Cancelled {
                cancelled: true, ..
            },
            Ask::Cancel {
                challenge: Some(challenge),
                ..
            },
        ) => Some(challenge),
        _ => None,
    }
}

/// Whether the replica that wrote a message stood still since `died`.
fn was_paused(fleet: &Fleet, message: &Message, died: Instant) -> bool {
    let pauses = fleet.pauses.lock().expect("lock is not poisoned");
    pauses.iter().any(|&(replica, start, end)| {
        replica == message.replica && start <= message.seen && died <= end + LATE
    })
}

fn parse(challenge: &str) -> Result<ChallengeId, String> {
    ChallengeId::parse(challenge).ok_or_else(|| format!("{challenge} names no challenge"))
}
