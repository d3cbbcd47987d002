//! Rules 1 and 4: when a code is made, when it is sent again, when neither.

use std::time::Duration;

use rand::Rng;

use super::{
    CallerName, Challenge, ChallengeNonce, ChallengeState, Channel, Code, Decision, Policy,
    Purpose, Recipient, Record, Secret, Timestamp, record::decide,
};

/// What is asked of [`send`].
#[derive(Debug)]
pub struct SendRequest<'a> {
    /// The back end that asks.
    pub caller: &'a CallerName,
    /// Whom to send to.
    pub recipient: &'a Recipient,
    /// What the code is for.
    pub purpose: &'a Purpose,
    /// The way to send it by.
    pub channel: Channel,
}

/// A code to be sent.
#[derive(Debug)]
pub struct Sent {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// The code.
    pub code: Code,
    /// When it dies.
    pub expires_at: Timestamp,
    /// Whether it is the same code again.
    pub resent: bool,
    /// When the next send is allowed.
    pub resend_at: Timestamp,
}

/// The cool-down since the last send is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSoon {
    /// How long it still lasts.
    pub wait: Duration,
    /// The code that lives meanwhile, and when it dies.
    pub live: Option<(ChallengeNonce, Timestamp)>,
}

/// Sends a code: the live one again, or a new one where there is none that is
/// worth sending. A [`Sent`] is always written.
pub fn send(
    record: Option<Record>,
    request: &SendRequest<'_>,
    policy: &Policy,
    now: Timestamp,
    random: &mut impl Rng,
) -> Decision<Result<Sent, TooSoon>> {
    decide(record, now, |record| {
        if let Some(too_soon) = record
            .as_ref()
            .and_then(|record| too_soon(record, policy, now))
        {
            return Decision::answer(Err(too_soon));
        }
        let repeated = record.and_then(|record| {
            let code = code_worth_repeating(&record.challenge, policy, now)?;
            Some((
                Challenge {
                    channel: request.channel,
                    ..record.challenge
                },
                code,
            ))
        });
        let resent = repeated.is_some();
        let (challenge, code) = repeated.unwrap_or_else(|| {
            let code = Code::generate(policy.code_length, random);
            (
                Challenge::start(code.clone(), request, policy, now, random),
                code,
            )
        });
        let (nonce, expires_at) = (challenge.nonce, challenge.expires_at);
        let record = Record {
            caller: request.caller.clone(),
            purpose: request.purpose.clone(),
            challenge,
            sent_at: now,
            written_at: now,
        };
        let resend_at = record.resend_at(policy);
        let sent = Sent {
            challenge: nonce,
            code,
            expires_at,
            resend_at,
            resent,
        };
        Decision::write(Ok(sent), record)
    })
}

fn too_soon(record: &Record, policy: &Policy, now: Timestamp) -> Option<TooSoon> {
    let wait = now.until(record.resend_at(policy));
    (!wait.is_zero()).then(|| TooSoon {
        wait,
        live: record
            .challenge
            .live_secret(policy, now)
            .map(|_| (record.challenge.nonce, record.challenge.expires_at)),
    })
}

/// The code, if it lives and will live at least as long as the next wait.
fn code_worth_repeating(challenge: &Challenge, policy: &Policy, now: Timestamp) -> Option<Code> {
    let secret = challenge.live_secret(policy, now)?;
    (now.until(challenge.expires_at) >= policy.resend_after).then(|| secret.code.clone())
}

impl Challenge {
    /// A new challenge for a new code.
    fn start(
        code: Code,
        request: &SendRequest<'_>,
        policy: &Policy,
        now: Timestamp,
        random: &mut impl Rng,
    ) -> Self {
        let secret = Secret {
            code,
            recipient: request.recipient.clone(),
        };
        Self {
            nonce: ChallengeNonce::generate(random),
            state: ChallengeState::Live(secret),
            channel: request.channel,
            created_at: now,
            expires_at: now.plus(policy.code_ttl),
            attempts: 0,
        }
    }
}
