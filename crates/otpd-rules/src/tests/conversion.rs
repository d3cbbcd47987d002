//! Conversion between the rules and the model: policies, calls and replies.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use otpd_model as model;
use otpd_model::{Call, Observed};
use rand::TryRng as _;

use super::steps::SplitMix;
use crate::*;

/// Returns settings of one caller, which receives the codes, and one policy.
pub(super) fn settings(policy: &PurposePolicy) -> model::Settings {
    let policy = model::Policy {
        name: "default",
        code_length: policy.code_length.into(),
        code_ttl: milliseconds(policy.code_ttl),
        max_attempts: policy.max_attempts,
        resend_after: milliseconds(policy.resend_after),
        require_challenge_id: policy.require_challenge_id,
        failure_delay: milliseconds(policy.failure_delay),
        failure_limit: policy.failure_limit,
        failure_memory: milliseconds(policy.failure_memory),
        sends_per_hour: policy.sends_per_hour.into(),
        sends_per_day: policy.sends_per_day.into(),
        ip_sends_per_hour: policy.ip_sends_per_hour.into(),
        ip_failures_per_hour: policy.ip_failures_per_hour.into(),
        ip_site_sends_per_hour: policy.ip_site_sends_per_hour.into(),
        ip_site_failures_per_hour: policy.ip_site_failures_per_hour.into(),
        request_memory: milliseconds(policy.request_memory),
    };
    let caller = model::Caller {
        name: "crm",
        is_configured: true,
        may_reset_failures: true,
        self_delivery: true,
        receipts: true,
        purposes: &[0],
    };
    model::Settings {
        callers: vec![caller],
        policies: vec![policy],
        concurrent: false,
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("durations of a policy are short")
}

/// Returns the challenge id of the model.
pub(super) fn challenge_id(nonce: ChallengeNonce) -> String {
    format!("{:032x}", u128::from_be_bytes(nonce.0))
}

fn selector(challenge: Option<&String>) -> ChallengeSelector {
    let Some(id) = challenge else {
        return ChallengeSelector::Newest;
    };
    match u128::from_str_radix(id, 16) {
        Ok(nonce) => ChallengeSelector::Only(ChallengeNonce(nonce.to_be_bytes())),
        Err(_) => ChallengeSelector::Foreign,
    }
}

/// Returns the command of a call.
pub(super) fn command(call: &Call, random: &mut SplitMix) -> Command {
    let identity = fingerprint(call, random);
    match &call.command {
        model::Command::Send { channel, .. } => Command::Send(Box::new(SendRequest {
            identity,
            caller: CallerName::new("crm"),
            recipient: Recipient::from_canonical(call.record.recipient.clone()),
            purpose: Purpose::default(),
            channel: Channel::ALL[usize::from(*channel)],
            test: None,
            barred: None,
            message: Some(MessageRequest {
                id: MessageId([0; 16]),
                lease: None,
                locale: String::new(),
                variables: BTreeMap::new(),
                client_ip: None,
            }),
            keeps_channels: true,
        })),
        model::Command::Verify {
            code,
            challenge,
            receipt,
            ..
        } => Command::Verify(VerifyRequest {
            identity,
            code: SubmittedCode::parse(code).unwrap(),
            challenge: selector(challenge.as_ref()),
            receipt: receipt.is_some(),
        }),
        model::Command::Cancel {
            challenge,
            reset_failures,
            ..
        } => Command::Cancel(CancelRequest {
            identity,
            challenge: selector(challenge.as_ref()),
            reset_failures: *reset_failures,
        }),
        model::Command::Status { challenge, .. } => Command::Status(selector(challenge.as_ref())),
    }
}

/// Builds the fingerprint as the service does: its id depends on the RPC, and is random without
/// a `request_id`; its fields exclude the client's address.
fn fingerprint(call: &Call, random: &mut SplitMix) -> RequestFingerprint {
    let Ok(writer) = random.try_next_u64();
    let hash = |value: String| {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        u128::from(hasher.finish()).to_be_bytes()
    };
    let rpc = std::mem::discriminant(&call.command);
    let id = match &call.request_id {
        Some(id) => format!("{rpc:?} {id}"),
        None => format!("random {writer}"),
    };
    let mut fields = call.command.clone();
    if let model::Command::Send { network, .. } | model::Command::Verify { network, .. } =
        &mut fields
    {
        *network = None;
    }
    RequestFingerprint {
        id: hash(id),
        fields: hash(format!("{fields:?}")),
        writer,
        named: call.request_id.is_some(),
    }
}

/// Returns the kinds of the shared limits of a call and their subjects: the client's network
/// and its site.
pub(super) fn shared_limits(call: &Call) -> Vec<(RateLimitKind, String)> {
    let (kinds, network) = match &call.command {
        model::Command::Send { network, .. } => (
            [
                RateLimitKind::IpSendsPerHour,
                RateLimitKind::IpSiteSendsPerHour,
            ],
            network,
        ),
        model::Command::Verify { network, .. } => (
            [
                RateLimitKind::IpFailuresPerHour,
                RateLimitKind::IpSiteFailuresPerHour,
            ],
            network,
        ),
        _ => return Vec::new(),
    };
    let Some(network) = network else {
        return Vec::new();
    };
    let (site, _) = network.rsplit_once(':').unwrap();
    kinds
        .into_iter()
        .zip([network.clone(), site.to_owned()])
        .collect()
}

/// Returns the reply of a decision.
pub(super) fn observed(answer: &Result<Outcome, Refusal>) -> Observed {
    match answer {
        Ok(Outcome::Sent(sent)) => Observed::Sent {
            challenge: challenge_id(sent.challenge),
            expires_at: sent.expires_at.milliseconds(),
            resend_at: sent.resend_at.milliseconds(),
            resent: sent.resent,
            code: sent
                .code
                .as_ref()
                .map(|code| code.expose().to_owned())
                .unwrap_or_default(),
        },
        Ok(Outcome::Verdict(verdict, _)) => verification(*verdict),
        Ok(Outcome::Cancelled(cancelled)) => Observed::Cancelled {
            cancelled: cancelled.challenge.is_some(),
            reset: cancelled.failures_reset,
        },
        Ok(Outcome::Status(status)) => Observed::Status {
            live: status.live.as_ref().map(|live| {
                let expires_at = live.expires_at.milliseconds();
                (
                    challenge_id(live.challenge),
                    expires_at,
                    live.attempts_remaining,
                )
            }),
            resend_at: status.resend_at.map(Timestamp::milliseconds),
            blocked_until: status.block.map(|block| block.until.milliseconds()),
        },
        Err(refusal) => refused(*refusal),
    }
}

fn verification(verdict: VerifyOutcome) -> Observed {
    let mut granted = None;
    let (outcome, remaining, verified_at) = match verdict {
        VerifyOutcome::Verified { at, receipt, .. } => {
            granted = receipt;
            (model::Outcome::Verified, 0, Some(at.milliseconds()))
        }
        VerifyOutcome::WrongCode {
            attempts_remaining, ..
        } => (model::Outcome::WrongCode, attempts_remaining, None),
        VerifyOutcome::Expired { .. } => (model::Outcome::Expired, 0, None),
        VerifyOutcome::AttemptsExhausted { .. } => (model::Outcome::AttemptsExhausted, 0, None),
        VerifyOutcome::NotFound => (model::Outcome::NotFound, 0, None),
    };
    Observed::Verdict {
        outcome,
        remaining,
        challenge: verdict.challenge().map(challenge_id).unwrap_or_default(),
        verified_at,
        receipt: granted.map(|grant| {
            let number = |channel| Channel::ALL.iter().position(|other| *other == channel);
            let channels = grant.channels.iter().filter_map(number);
            let channels = channels.filter_map(|number| u8::try_from(number).ok());
            (grant.issued_at.milliseconds(), channels.collect())
        }),
    }
}

fn refused(refusal: Refusal) -> Observed {
    let mut limited = None;
    let mut live_code = None;
    let (reason, wait) = match refusal {
        Refusal::ResendTooSoon { wait, live } => {
            live_code = live.map(|(nonce, at)| (challenge_id(nonce), at.milliseconds()));
            ("RESEND_TOO_SOON", Some(wait))
        }
        Refusal::Blocked(lockout) if lockout.locked => ("VERIFY_LOCKED", Some(lockout.wait)),
        Refusal::Blocked(lockout) => ("VERIFY_DELAYED", Some(lockout.wait)),
        Refusal::SendLimit(RateLimited { limit, wait }) => {
            limited = Some(limit);
            ("SEND_LIMIT", Some(wait))
        }
        Refusal::VerifyLimit(RateLimited { limit, wait }) => {
            limited = Some(limit);
            ("VERIFY_LIMIT", Some(wait))
        }
        Refusal::Code(_) => ("CODE_MALFORMED", None),
        Refusal::IdempotencyKeyReused => ("REQUEST_INVALID", None),
        Refusal::Undeliverable(_) => unreachable!("every recipient can be reached"),
    };
    Observed::Refused {
        reason: reason.to_owned(),
        limit: limited.map(|limit| limit.key().to_owned()),
        wait: wait.map(milliseconds),
        live: live_code,
    }
}
