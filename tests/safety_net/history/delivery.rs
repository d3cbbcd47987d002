//! What must hold of messages: every acknowledged send has one, and none is sent of a
//! code that is known to be dead.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    checker::Event,
    fleet::{Fleet, Message},
};
use crate::model::{Name, Outcome, Told};

/// How long after a code's end a message may still be on its way into the log: an
/// attempt may start 2 s after a load that saw the code alive, and then takes a while.
const LATE: Duration = Duration::from_secs(5);

/// How long after the last call a message that was acknowledged may still come.
const MAIL_PATIENCE: Duration = Duration::from_secs(15);

/// Checks the messages of one recipient, and waits for those that must still come.
///
/// # Errors
/// What does not hold.
pub async fn check(fleet: &Fleet, name: &Name, events: &[Event]) -> Result<(), String> {
    for (challenge, sends) in acknowledged(events) {
        let arrived = fleet
            .mail
            .arrives(&name.recipient, challenge, sends, MAIL_PATIENCE);
        if !arrived.await {
            return Err(format!(
                "{sends} sends of {challenge} were acknowledged, and not all have a message"
            ));
        }
    }
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

/// How many sends of each challenge were acknowledged; one told again counts once.
///
/// Not those whose first answer was lost: a replica hands its message over after the
/// commit, and may be gone by then.
fn acknowledged(events: &[Event]) -> BTreeMap<&str, usize> {
    let mut sends = BTreeMap::<&str, Vec<i64>>::new();
    let lost = |event: &Event| {
        let same = |other: &&Event| other.told.is_none() && other.call.id == event.call.id;
        event.call.id.is_some() && events.iter().any(|other| same(&other))
    };
    for event in events {
        if let Some(Told::Sent {
            challenge,
            resend_at,
            ..
        }) = &event.told
            && !lost(event)
        {
            let known = sends.entry(challenge).or_default();
            if !known.contains(resend_at) {
                known.push(*resend_at);
            }
        }
    }
    sends
        .into_iter()
        .map(|(challenge, known)| (challenge, known.len()))
        .collect()
}

/// When a caller knew of a code that it was spent.
fn deaths(events: &[Event]) -> BTreeMap<&str, Instant> {
    let mut deaths = BTreeMap::new();
    for event in events {
        if let (
            Some(Told::Verdict {
                outcome: Outcome::Verified,
                challenge,
                ..
            }),
            Some(returned),
        ) = (&event.told, event.returned)
        {
            let known: &mut Instant = deaths.entry(challenge.as_str()).or_insert(returned);
            *known = returned.min(*known);
        }
    }
    deaths
}

/// Whether the replica that wrote a message stood still since `died`.
fn was_paused(fleet: &Fleet, message: &Message, died: Instant) -> bool {
    let pauses = fleet.pauses.lock().expect("nobody panics holding it");
    pauses.iter().any(|&(replica, start, end)| {
        replica == message.replica && start <= message.seen && died <= end + LATE
    })
}
