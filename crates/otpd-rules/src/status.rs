//! Status of a code, readable without an attempt.

use super::{
    ChallengeNonce, ChallengeSelector, Channel, Decision, Lockout, Purpose, PurposePolicy,
    Recipient, Record, Timestamp, record::with_clock_repair,
};

/// Status of a recipient's code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeStatus {
    /// Code that could still verify.
    pub live: Option<LiveCode>,
    /// Last send of the newest challenge, live or not, unless its retention is over.
    pub last_send: Option<LastSend>,
    /// Time of the next send that the cool-down allows, if not now.
    pub resend_at: Option<Timestamp>,
    /// Lockout that is in force, if any.
    pub block: Option<Lockout>,
}

/// Code that could still verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCode {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// Recipient of the code.
    pub recipient: Recipient,
    /// Time at which it expires.
    pub expires_at: Timestamp,
    /// Number of attempts that are left.
    pub attempts_remaining: u32,
}

/// Last send of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSend {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// Purpose of its code.
    pub purpose: Purpose,
    /// Requested channel.
    pub channel: Channel,
    /// Time of the send.
    pub at: Timestamp,
}

/// Returns the status of the challenge that `challenge` selects. It writes only if the
/// clock stepped back: else the returned wait would start again each time.
pub fn status(
    record: Option<Record>,
    challenge: ChallengeSelector,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<CodeStatus> {
    with_clock_repair(record, policy, now, |record| {
        let admitted = record.filter(|record| challenge.matches(record.challenge.nonce));
        Decision::new(
            admitted
                .map(|record| snapshot(&record, policy, now))
                .unwrap_or_default(),
        )
    })
}

fn snapshot(record: &Record, policy: &PurposePolicy, now: Timestamp) -> CodeStatus {
    let challenge = &record.challenge;
    let live = challenge.live_secret(policy, now).map(|secret| LiveCode {
        challenge: challenge.nonce,
        recipient: secret.recipient.clone(),
        expires_at: challenge.expires_at,
        attempts_remaining: challenge.attempts_remaining(policy),
    });
    let resend_at = Some(record.resend_at(policy)).filter(|&resend_at| now < resend_at);
    let told_until = challenge
        .expires_at
        .saturating_add(PurposePolicy::EXPIRED_RETENTION);
    let last_send = (now < told_until).then_some(LastSend {
        challenge: challenge.nonce,
        purpose: record.purpose.clone(),
        channel: challenge.channel,
        at: record.sent_at,
    });
    CodeStatus {
        live,
        last_send,
        resend_at,
        block: record.failures.lockout_at(policy, now),
    }
}
