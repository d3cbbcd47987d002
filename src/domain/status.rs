//! What a caller may know of a code without trying one.

use super::{
    ChallengeNonce, ChallengeSelector, Channel, Decision, Lockout, Purpose, PurposePolicy,
    Recipient, Record, Timestamp, record::with_clock_repair,
};

/// What is known of a recipient's code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeStatus {
    /// The code that could still verify.
    pub live: Option<LiveCode>,
    /// The last send of the newest challenge, live or not, unless it is forgotten.
    pub last_send: Option<LastSend>,
    /// When the next send is allowed by the cool-down, if not now.
    pub resend_at: Option<Timestamp>,
    /// Why answers are refused, and until when, if they are.
    pub block: Option<Lockout>,
}

/// A code that could still verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCode {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// Whom it was sent to.
    pub recipient: Recipient,
    /// When it dies.
    pub expires_at: Timestamp,
    /// How many more answers are judged.
    pub attempts_remaining: u32,
}

/// When and how a code was last sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSend {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// What its code is for.
    pub purpose: Purpose,
    /// The channel that was asked for.
    pub channel: Channel,
    /// When.
    pub at: Timestamp,
}

/// Tells what is known of the challenge that `challenge` admits. It writes only where
/// the clock stepped back: else the wait that it tells would start anew each time.
pub fn status(
    record: Option<Record>,
    challenge: ChallengeSelector,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Decision<CodeStatus> {
    with_clock_repair(record, policy, now, |record| {
        let admitted = record.filter(|record| challenge.matches(record.challenge.nonce));
        Decision::answer(
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
