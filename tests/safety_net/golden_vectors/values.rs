//! Values of policies and replies in the file.

use std::collections::BTreeSet;

use otpd_model::{Observed, Outcome, Policy, Reply, TimeRange};
use serde_json::{Value, json};

use super::START;

/// Durations are in milliseconds.
pub(super) fn policy(policy: &Policy) -> Value {
    json!({
        "code_length": policy.code_length,
        "code_ttl": policy.code_ttl,
        "max_attempts": policy.max_attempts,
        "resend_after": policy.resend_after,
        "require_challenge_id": policy.require_challenge_id,
        "failure_delay": policy.failure_delay,
        "failure_limit": policy.failure_limit,
        "failure_memory": policy.failure_memory,
        "sends_per_hour": policy.sends_per_hour,
        "sends_per_day": policy.sends_per_day,
        "ip_sends_per_hour": policy.ip_sends_per_hour,
        "ip_failures_per_hour": policy.ip_failures_per_hour,
        "ip_site_sends_per_hour": policy.ip_site_sends_per_hour,
        "ip_site_failures_per_hour": policy.ip_site_failures_per_hour,
        "request_memory": policy.request_memory,
    })
}

/// Returns a reply of the model as an observed one and as a value. `known` are the challenges
/// of the record, `issued` is the number of all challenges, `code` returns the digits of one.
pub(super) fn observed(
    reply: &Reply,
    (known, issued): (&[String], usize),
    code: impl FnOnce(&str) -> Option<String>,
    code_length: usize,
    results: &mut BTreeSet<&'static str>,
) -> (Observed, Value) {
    let (observed, mut value) = all_values(reply, (known, issued), code, code_length, results);
    // An absent value is left out.
    if let Some(values) = value.as_object_mut() {
        values.retain(|_, value| !value.is_null());
    }
    (observed, value)
}

fn all_values(
    reply: &Reply,
    (known, issued): (&[String], usize),
    code: impl FnOnce(&str) -> Option<String>,
    code_length: usize,
    results: &mut BTreeSet<&'static str>,
) -> (Observed, Value) {
    let id = |number: usize| match known.get(number) {
        Some(id) => id.clone(),
        None => format!("challenge-{}", issued + 1),
    };
    match *reply {
        Reply::Sent {
            challenge,
            expires_at,
            resend_at,
            resent,
            code: is_returned,
        } => {
            results.insert(if resent { "resent" } else { "sent" });
            let challenge = id(challenge);
            let digits = code(&challenge);
            let digits = digits.unwrap_or_else(|| format!("{:0code_length$}", issued + 1));
            let value = json!({
                "challenge_id": challenge,
                "expires_at": relative(expires_at),
                "resend_at": relative(resend_at),
                "resent": resent,
            });
            let observed = Observed::Sent {
                challenge,
                expires_at: expires_at.earliest,
                resend_at: resend_at.earliest,
                resent,
                code: if is_returned { digits } else { String::new() },
            };
            (observed, value)
        }
        Reply::Verdict {
            outcome,
            remaining,
            challenge,
            verified_at,
            receipt: _,
        } => {
            let name = outcome_name(outcome);
            results.insert(name);
            let challenge = challenge.map(id).unwrap_or_default();
            let value = json!({
                "outcome": name,
                "attempts_remaining": remaining,
                "challenge_id": challenge,
                "verified_at": verified_at.map(relative),
            });
            let observed = Observed::Verdict {
                outcome,
                remaining,
                challenge,
                verified_at: verified_at.map(|at| at.earliest),
                receipt: None,
            };
            (observed, value)
        }
        Reply::Cancelled { cancelled, reset } => (
            Observed::Cancelled { cancelled, reset },
            json!({"cancelled": cancelled, "failures_reset": reset}),
        ),
        Reply::Status {
            live,
            resend_at,
            blocked_until,
        } => {
            let live = live.map(|(number, at, remaining)| (id(number), at, remaining));
            status(live, resend_at, blocked_until)
        }
        Reply::Refused {
            reason,
            limit,
            wait,
            live,
        } => {
            results.insert(reason);
            let live = live.map(|(number, at)| (id(number), at.earliest));
            let value = json!({
                "reason": reason,
                "limit": limit,
                "retry_after": wait.map(|wait| wait.earliest),
                "challenge_id": live.as_ref().map(|(id, _)| id),
            });
            let observed = Observed::Refused {
                reason: reason.to_owned(),
                limit: limit.map(str::to_owned),
                wait: wait.map(|wait| wait.earliest),
                live,
            };
            (observed, value)
        }
    }
}

fn status(
    live: Option<(String, TimeRange, u32)>,
    resend_at: Option<TimeRange>,
    blocked_until: Option<TimeRange>,
) -> (Observed, Value) {
    let value = json!({
        "challenge_id": live.as_ref().map_or("", |(id, ..)| id),
        "expires_at": live.as_ref().map(|(_, at, _)| relative(*at)),
        "attempts_remaining": live.as_ref().map_or(0, |(.., remaining)| *remaining),
        "resend_at": resend_at.map(relative),
        "blocked_until": blocked_until.map(relative),
    });
    let observed = Observed::Status {
        live: live.map(|(id, at, remaining)| (id, at.earliest, remaining)),
        resend_at: resend_at.map(|at| at.earliest),
        blocked_until: blocked_until.map(|at| at.earliest),
    };
    (observed, value)
}

const fn relative(at: TimeRange) -> i64 {
    at.earliest - START
}

const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verified => "verified",
        Outcome::WrongCode => "wrong_code",
        Outcome::Expired => "expired",
        Outcome::AttemptsExhausted => "attempts_exhausted",
        Outcome::NotFound => "not_found",
    }
}
