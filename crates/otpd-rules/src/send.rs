//! Rules 1 and 4, and their part in the other rules: a send issues a new code, sends the
//! live one again, or is refused.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use rand::Rng;

use super::{
    AttemptLog, CallerName, Challenge, ChallengeNonce, ChallengeSecret, ChallengeState, Channel,
    ChannelSet, Decision, FailureCounter, IdempotencyLog, IdempotencyLookup, LimitCharge,
    MessageId, MessagePayload, MessageState, OtpCode, OutboxMessage, Purpose, PurposePolicy,
    RateLimitState, Recipient, Record, RecordedOutcome, Refusal, RequestFingerprint, SendLimits,
    TestRecipient, Timestamp, rate_limit::consume_all, record::with_clock_repair,
};

/// Input of [`send`].
#[derive(Debug)]
pub struct SendRequest {
    /// Fingerprint of the request.
    pub identity: RequestFingerprint,
    /// Caller that makes the request.
    pub caller: CallerName,
    /// Recipient of the code.
    pub recipient: Recipient,
    /// Purpose of the code.
    pub purpose: Purpose,
    /// Channel of the message.
    pub channel: Channel,
    /// Entry that makes the recipient a test recipient: no message is sent and no limit
    /// on sends counts.
    pub test: Option<TestRecipient>,
    /// Reason for which no message can reach the recipient, if any; ignored for a test
    /// recipient.
    pub barred: Option<Undeliverable>,
    /// Message that is to carry the code; `None` if none is sent.
    pub message: Option<MessageRequest>,
    /// True if the caller may get receipts, so that the channels of the code are kept with it.
    pub keeps_channels: bool,
}

/// Reason for which no message can reach a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeliverable {
    /// The caller may not send to this destination.
    Destination,
    /// No provider serves such messages.
    NoRoute(Channel),
}

/// Message that is to carry a code.
#[derive(Debug)]
pub struct MessageRequest {
    /// Identifier of the message.
    pub id: MessageId,
    /// Duration of the lease of the replica that writes it, to send it at once; `None`
    /// leaves it to any dispatcher.
    pub lease: Option<Duration>,
    /// Requested language; empty if none was requested.
    pub locale: String,
    /// Further variables of the text.
    pub variables: BTreeMap<String, String>,
    /// IP address of the end user.
    pub client_ip: Option<IpAddr>,
}

/// Code to be sent.
#[derive(Clone, Debug)]
pub struct SendOutcome {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// The code; `None` if the outcome is a replay and the code is no longer live.
    pub code: Option<OtpCode>,
    /// Number of digits of the code.
    pub code_length: u32,
    /// Time at which the code expires.
    pub expires_at: Timestamp,
    /// True if it is the same code again.
    pub resent: bool,
    /// Time of the next allowed send.
    pub resend_at: Timestamp,
    /// Message that this request wrote and that must be sent; `None` if the outcome is a
    /// replay, or if no message is sent.
    pub message: Option<OutboxMessage>,
}

/// Sends a code: the live one again, or a new one if none is live for long enough. A
/// first [`SendOutcome`] is always written.
///
/// # Errors
/// [`Refusal`] if no code is sent.
pub fn send(
    record: Option<Record>,
    limits: &[RateLimitState],
    request: &SendRequest,
    policy: &PurposePolicy,
    now: Timestamp,
    random: &mut impl Rng,
) -> Decision<Result<SendOutcome, Refusal>> {
    with_clock_repair(record, policy, now, |record| {
        let recalled = record
            .as_ref()
            .and_then(|record| Some((record, record.memory.lookup(&request.identity, now)?)));
        match recalled {
            Some((record, IdempotencyLookup::Replay { outcome, own })) => {
                return Decision::new(replay(record, outcome, own, request, policy, now));
            }
            Some((_, IdempotencyLookup::KeyReused)) => {
                return Decision::new(Err(Refusal::IdempotencyKeyReused));
            }
            None => {}
        }
        match check_send(record.as_ref(), limits, request, policy, now) {
            Err(refusal) => Decision::new(Err(refusal)).with_rate_limits(LimitCharge::Clamp),
            Ok((send_limits, charge)) => {
                let (sent, record) = issue_code(record, send_limits, request, policy, now, random);
                let message = sent.message.clone();
                Decision::new(Ok(sent))
                    .with_record(record)
                    .with_message(message)
                    .with_rate_limits(charge)
            }
        }
    })
}

/// Returns the recorded outcome of the same request. A writer that only missed the
/// acknowledgement also gets the message that it wrote.
fn replay(
    record: &Record,
    outcome: RecordedOutcome,
    own: bool,
    request: &SendRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Result<SendOutcome, Refusal> {
    let RecordedOutcome::Sent {
        challenge,
        expires_at,
        resend_at,
        resent,
        code_length,
    } = outcome
    else {
        // The recorded id is that of another RPC. Ids depend on the RPC, so only a
        // forgery gets here.
        return Err(Refusal::IdempotencyKeyReused);
    };
    let live = Some(&record.challenge).filter(|live| live.nonce == challenge);
    let secret = live.and_then(|live| live.live_secret(policy, now));
    let code = secret.map(|secret| secret.code.clone());
    let written_at = resend_at.saturating_sub(policy.resend_after);
    let message = live
        .filter(|_| own)
        .zip(secret.filter(|secret| !secret.is_test))
        .and_then(|(live, secret)| request.message_with(&secret.code, live, written_at));
    Ok(SendOutcome {
        challenge,
        code,
        code_length,
        expires_at,
        resent,
        resend_at,
        message,
    })
}

/// Returns the state of the limits after the send, or the reason for which it is refused.
fn check_send(
    record: Option<&Record>,
    limits: &[RateLimitState],
    request: &SendRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Result<(SendLimits, LimitCharge), Refusal> {
    if let (None, Some(barred)) = (request.test_at(now), request.barred) {
        return Err(Refusal::Undeliverable(barred));
    }
    if let Some(record) = record {
        // A code that expires as the lockout ends is as useless as one that expires
        // before.
        if let Some(block) = record.failures.lockout_at(policy, now)
            && now.saturating_add(policy.code_ttl) <= block.until
        {
            return Err(Refusal::Blocked(block));
        }
        let wait = now.duration_until(record.resend_at(policy));
        if !wait.is_zero() {
            let live = record.challenge.live_secret(policy, now);
            let live = live.map(|_| (record.challenge.nonce, record.challenge.expires_at));
            return Err(Refusal::ResendTooSoon { wait, live });
        }
    }
    let own = record.map(|record| record.send_limits).unwrap_or_default();
    if request.test_at(now).is_some() {
        return Ok((own, LimitCharge::Nothing));
    }
    let own_limits = own.shared(policy);
    let taken = consume_all(&own_limits, now).and_then(|own| Ok((own, consume_all(limits, now)?)));
    let (taken_own, _) = taken.map_err(|first| {
        // A client that waits for the longest time is not refused by another limit then.
        let others = consume_all(limits, now).err();
        let longest = others
            .filter(|other| first.wait < other.wait)
            .unwrap_or(first);
        Refusal::SendLimit(longest)
    })?;
    Ok((own.taken(&own_limits, &taken_own), LimitCharge::Consume))
}

/// Returns the code to send, and the record with it.
fn issue_code(
    record: Option<Record>,
    send_limits: SendLimits,
    request: &SendRequest,
    policy: &PurposePolicy,
    now: Timestamp,
    random: &mut impl Rng,
) -> (SendOutcome, Record) {
    let (failures, memory) = record.as_ref().map_or(
        (FailureCounter::NONE, IdempotencyLog::default()),
        |record| (record.failures, record.memory.clone()),
    );
    let repeated = record.and_then(|record| {
        let code = reusable_code(&record.challenge, request, policy, now)?;
        Some((
            Challenge {
                channel: request.channel,
                sends: record.challenge.sends.saturating_add(1),
                ..record.challenge
            },
            code,
        ))
    });
    let resent = repeated.is_some();
    let (mut challenge, code) = repeated.unwrap_or_else(|| {
        let code = match request.test_at(now) {
            Some(test) => test.code.clone(),
            None => OtpCode::generate(policy.code_length, random),
        };
        (
            Challenge::start(code.clone(), request, policy, now, random),
            code,
        )
    });
    if let ChallengeState::Live(secret) = &mut challenge.state {
        secret.channels = request.channels_after(secret.channels, resent, now);
    }
    let sent = SendOutcome {
        challenge: challenge.nonce,
        code_length: code.length(),
        message: request.message_with(&code, &challenge, now),
        code: Some(code),
        expires_at: challenge.expires_at,
        resent,
        resend_at: now.saturating_add(policy.resend_after),
    };
    let outcome = RecordedOutcome::Sent {
        challenge: sent.challenge,
        expires_at: sent.expires_at,
        resend_at: sent.resend_at,
        resent,
        code_length: sent.code_length,
    };
    let record = Record {
        caller: request.caller.clone(),
        purpose: request.purpose.clone(),
        challenge,
        sent_at: now,
        failures,
        send_limits,
        memory: memory.record(&request.identity, outcome, policy, now),
        written_at: now,
    };
    (sent, record)
}

/// Returns the live code, if it lives at least as long as the next cool-down and is the
/// code that a test recipient must have. The fixed code of a test recipient is never
/// reused for a real one: it would be sent, also by a replica that does not know the
/// entry.
fn reusable_code(
    challenge: &Challenge,
    request: &SendRequest,
    policy: &PurposePolicy,
    now: Timestamp,
) -> Option<OtpCode> {
    let secret = challenge.live_secret(policy, now)?;
    let lasts = now.duration_until(challenge.expires_at) >= policy.resend_after;
    let right = match request.test_at(now) {
        Some(test) => secret.is_test && test.code.ct_eq(&secret.code),
        None => !secret.is_test,
    };
    (lasts && right).then(|| secret.code.clone())
}

impl Challenge {
    /// Starts a challenge with a new code.
    fn start(
        code: OtpCode,
        request: &SendRequest,
        policy: &PurposePolicy,
        now: Timestamp,
        random: &mut impl Rng,
    ) -> Self {
        let secret = ChallengeSecret {
            code,
            recipient: request.recipient.clone(),
            is_test: request.test_at(now).is_some(),
            channels: ChannelSet::EMPTY,
        };
        let expires_at = now.saturating_add(policy.code_ttl);
        Self {
            nonce: ChallengeNonce::generate(random),
            state: ChallengeState::Live(secret),
            channel: request.channel,
            created_at: now,
            expires_at: request
                .test_at(now)
                .map_or(expires_at, |test| expires_at.min(test.expires_at)),
            attempts: 0,
            sends: 1,
        }
    }
}

impl SendRequest {
    /// The test recipient, while it is one.
    fn test_at(&self, now: Timestamp) -> Option<&TestRecipient> {
        self.test.as_ref()?.active_at(now)
    }

    /// Returns the channels that have carried the code after this send, given those before.
    /// They are unknown for ever once a single message was sent without keeping its channel.
    fn channels_after(&self, before: ChannelSet, resent: bool, now: Timestamp) -> ChannelSet {
        let is_kept = self.keeps_channels && self.message.is_some() && self.test_at(now).is_none();
        if is_kept && !(resent && before.is_empty()) {
            before.with(self.channel)
        } else {
            ChannelSet::EMPTY
        }
    }

    /// Returns the message that carries `code`, as it is written `now`, if one is to be
    /// sent.
    fn message_with<S>(
        &self,
        code: &OtpCode,
        challenge: &Challenge<S>,
        now: Timestamp,
    ) -> Option<OutboxMessage> {
        // The code of a test recipient is not sent.
        let request = self.message.as_ref()?;
        if self.test_at(now).is_some() {
            return None;
        }
        let content = MessagePayload {
            recipient: self.recipient.clone(),
            code: code.clone(),
            locale: request.locale.clone(),
            variables: request.variables.clone(),
            client_ip: request.client_ip,
        };
        let predecessors = challenge.sends.saturating_sub(1);
        let state = match request.lease {
            Some(_) => MessageState::Sending(content),
            None => MessageState::Queued(content),
        };
        Some(OutboxMessage {
            id: request.id,
            challenge: challenge.nonce,
            channel: self.channel,
            predecessors,
            state,
            provider: String::new(),
            // A replica that writes it with a lease makes the first attempt without a
            // further write.
            history: AttemptLog {
                attempt_open: request.lease.is_some(),
                ..AttemptLog::default()
            },
            created_at: now,
            updated_at: now,
            expires_at: challenge.expires_at,
            due_at: Some(now.saturating_add(request.lease.unwrap_or_default())),
        })
    }
}
