//! Invariants of a history that hold for any order of calls. They are counted, not searched,
//! so that a fault of the search cannot hide one of otpd.

use std::collections::BTreeMap;

use otpd_model::{Command, DAY, HOUR, Observed, Outcome, Policy, TimeRange, check_window};

use super::checker::Event;
/// Checks the calls about one recipient.
///
/// # Errors
/// The broken invariant.
pub fn check(events: &[Event], policy: &Policy) -> Result<(), String> {
    let verified = verdicts(events, Outcome::Verified);
    if let Some((challenge, _)) = verified.iter().find(|(_, times)| times.len() > 1) {
        return Err(format!("{challenge} was verified more than once"));
    }
    let wrong = verdicts(events, Outcome::WrongCode);
    let max_attempts = usize::try_from(policy.max_attempts).expect("few");
    if let Some((challenge, times)) = wrong.iter().find(|(_, times)| times.len() > max_attempts) {
        return Err(format!(
            "{} wrong codes were checked against {challenge}",
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

/// Returns the requests with the wanted outcome, by challenge; a replayed one counts once.
fn verdicts(events: &[Event], wanted: Outcome) -> BTreeMap<&str, Vec<String>> {
    let mut found = BTreeMap::<&str, Vec<String>>::new();
    for (index, event) in events.iter().enumerate() {
        if let Some(Observed::Verdict {
            outcome, challenge, ..
        }) = &event.observed
            && *outcome == wanted
        {
            let request = event
                .call
                .request_id
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

/// Returns the times of all sends; and the times at which they charged the limits of a client
/// network, which may be earlier: a request that lost its race does not pay again.
fn sends(events: &[Event], policy: &Policy) -> (Vec<TimeRange>, Vec<TimeRange>) {
    let mut sends = BTreeMap::new();
    for event in events {
        if let (
            Some(Observed::Sent {
                challenge,
                resend_at,
                ..
            }),
            Command::Send { network, .. },
        ) = (&event.observed, &event.call.command)
        {
            let at = resend_at - policy.resend_after;
            let earliest = event.decided.earliest.min(at);
            let charged = network.as_ref().map(|_| TimeRange {
                earliest,
                latest: at,
            });
            // A replayed reply is the same.
            sends.entry((at, challenge)).or_insert(charged);
        }
    }
    let all = sends.keys().map(|(at, _)| TimeRange::exact(*at)).collect();
    (all, sends.into_values().flatten().collect())
}

/// Returns the times at which failed attempts charged the limits of a client network.
fn failures(events: &[Event]) -> Vec<TimeRange> {
    let mut failures = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let (
            Some(Observed::Verdict {
                outcome: Outcome::WrongCode,
                ..
            }),
            Command::Verify {
                network: Some(_), ..
            },
        ) = (&event.observed, &event.call.command)
        else {
            continue;
        };
        let request = event
            .call
            .request_id
            .clone()
            .unwrap_or_else(|| format!("unnamed {index}"));
        let known = failures.entry(request).or_insert(event.decided);
        known.earliest = known.earliest.min(event.decided.earliest);
        known.latest = known.latest.max(event.decided.latest);
    }
    failures.into_values().collect()
}

/// Checks that no window of time has more calls than the limit allows.
fn within(times: &[TimeRange], count: i64, period: i64, limit: &str) -> Result<(), String> {
    check_window(times, count, period).map_err(|window| format!("{limit} was exceeded: {window}"))
}

/// Checks that a limit of a client network refuses only after enough calls to use it up.
fn caused(events: &[Event], policy: &Policy) -> Result<(), String> {
    for refused in events {
        let Some(Observed::Refused {
            limit: Some(limit), ..
        }) = &refused.observed
        else {
            continue;
        };
        let (count, of_sends) = match limit.as_str() {
            "ip_sends_per_hour" => (policy.ip_sends_per_hour, true),
            "ip_failures_per_hour" => (policy.ip_failures_per_hour, false),
            "ip_site_sends_per_hour" => (policy.ip_site_sends_per_hour, true),
            "ip_site_failures_per_hour" => (policy.ip_site_failures_per_hour, false),
            _ => continue,
        };
        let earlier = events.iter().filter(|event| {
            let is_same_kind = matches!(event.call.command, Command::Send { .. }) == of_sends;
            is_same_kind
                && refused
                    .returned
                    .is_some_and(|returned| event.invoked < returned)
        });
        // The refused call is one of them.
        if i64::try_from(earlier.count()).expect("few") <= count {
            return Err(format!("{limit} refused without a cause"));
        }
    }
    Ok(())
}
