//! Invariants of a history that hold for any order of calls. They are counted, not
//! searched, so that a fault of the search cannot hide one of otpd.

use std::collections::BTreeMap;

use super::checker::Event;
use crate::model::{Ask, DAY, HOUR, Moment, Outcome, Policy, Told};

/// Checks the calls about one recipient.
///
/// # Errors
/// What does not hold.
pub fn check(events: &[Event], policy: &Policy) -> Result<(), String> {
    let verified = verdicts(events, Outcome::Verified);
    if let Some((challenge, _)) = verified.iter().find(|(_, times)| times.len() > 1) {
        return Err(format!("{challenge} was verified more than once"));
    }
    let wrong = verdicts(events, Outcome::WrongCode);
    let most = usize::try_from(policy.max_attempts).expect("few");
    if let Some((challenge, times)) = wrong.iter().find(|(_, times)| times.len() > most) {
        return Err(format!(
            "{} wrong answers to {challenge} were judged",
            times.len()
        ));
    }
    let (all, by_network) = sends(events, policy);
    within(&all, policy.sends_per_hour, HOUR, "sends_per_hour")?;
    within(&all, policy.sends_per_day, DAY, "sends_per_day")?;
    within(
        &by_network,
        policy.ip_sends_per_hour,
        HOUR,
        "ip_sends_per_hour",
    )?;
    within(
        &by_network,
        policy.ip_site_sends_per_hour,
        HOUR,
        "ip_site_sends_per_hour",
    )?;
    let failures = failures(events);
    within(
        &failures,
        policy.ip_failures_per_hour,
        HOUR,
        "ip_failures_per_hour",
    )?;
    within(
        &failures,
        policy.ip_site_failures_per_hour,
        HOUR,
        "ip_site_failures_per_hour",
    )?;
    caused(events, policy)
}

/// The verdicts on each challenge; one that was given again counts once.
fn verdicts(events: &[Event], wanted: Outcome) -> BTreeMap<&str, Vec<String>> {
    let mut found = BTreeMap::<&str, Vec<String>>::new();
    for (index, event) in events.iter().enumerate() {
        if let Some(Told::Verdict {
            outcome, challenge, ..
        }) = &event.told
            && *outcome == wanted
        {
            let request = event
                .call
                .id
                .clone()
                .unwrap_or_else(|| format!("unnamed {index}"));
            let requests = found.entry(challenge).or_default();
            if !requests.contains(&request) {
                requests.push(request);
            }
        }
    }
    found
}

/// When codes were sent; and when those paid a client network's limit, which may have
/// been a while before, by a try that lost its race.
fn sends(events: &[Event], policy: &Policy) -> (Vec<Moment>, Vec<Moment>) {
    let mut sends = BTreeMap::new();
    for event in events {
        if let (
            Some(Told::Sent {
                challenge,
                resend_at,
                ..
            }),
            Ask::Send { network, .. },
        ) = (&event.told, &event.call.ask)
        {
            let at = resend_at - policy.resend_after;
            let earliest = event.decided.earliest.min(at);
            let paid = network.as_ref().map(|_| Moment {
                earliest,
                latest: at,
            });
            // A repeated reply is the same.
            sends.entry((at, challenge)).or_insert(paid);
        }
    }
    let all = sends.keys().map(|(at, _)| Moment::exact(*at)).collect();
    (all, sends.into_values().flatten().collect())
}

/// When wrong answers from a client's network were judged.
fn failures(events: &[Event]) -> Vec<Moment> {
    let mut failures = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let (
            Some(Told::Verdict {
                outcome: Outcome::WrongCode,
                ..
            }),
            Ask::Verify {
                network: Some(_), ..
            },
        ) = (&event.told, &event.call.ask)
        else {
            continue;
        };
        let request = event
            .call
            .id
            .clone()
            .unwrap_or_else(|| format!("unnamed {index}"));
        let known = failures.entry(request).or_insert(event.decided);
        known.earliest = known.earliest.min(event.decided.earliest);
        known.latest = known.latest.max(event.decided.latest);
    }
    failures.into_values().collect()
}

/// No window holds more than a burst and what is refilled meanwhile, whenever in its time
/// each was taken.
fn within(times: &[Moment], count: i64, period: i64, limit: &str) -> Result<(), String> {
    let interval = (period + count - 1) / count;
    for first in times {
        for last in times {
            let (start, end) = (first.earliest, last.latest);
            let inside = times
                .iter()
                .filter(|at| start <= at.earliest && at.latest <= end);
            let taken = i64::try_from(inside.count()).expect("few");
            if start <= end && taken > count + (end - start) / interval {
                return Err(format!("{limit} was exceeded: {times:?}"));
            }
        }
    }
    Ok(())
}

/// A limit of a client's network is refused only where enough calls can have used it up.
fn caused(events: &[Event], policy: &Policy) -> Result<(), String> {
    for refused in events {
        let Some(Told::Refused {
            limit: Some(limit), ..
        }) = &refused.told
        else {
            continue;
        };
        let (most, sends) = match limit.as_str() {
            "ip_sends_per_hour" => (policy.ip_sends_per_hour, true),
            "ip_failures_per_hour" => (policy.ip_failures_per_hour, false),
            "ip_site_sends_per_hour" => (policy.ip_site_sends_per_hour, true),
            "ip_site_failures_per_hour" => (policy.ip_site_failures_per_hour, false),
            _ => continue,
        };
        let earlier = events.iter().filter(|event| {
            let right_kind = matches!(event.call.ask, Ask::Send { .. }) == sends;
            right_kind
                && refused
                    .returned
                    .is_some_and(|returned| event.invoked < returned)
        });
        // Itself among them.
        if i64::try_from(earlier.count()).expect("few") <= most {
            return Err(format!("{limit} was refused without a cause"));
        }
    }
    Ok(())
}
