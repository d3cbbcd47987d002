//! Rules 1 and 4, and what the others have to say about a send: when a code is made,
//! when it is sent again, when neither.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use rand::Rng;

use super::{
    Answer, Block, CallerName, Challenge, ChallengeNonce, ChallengeState, Channel, Code, Content,
    Decision, Exceeded, Failures, History, LimitCharge, LimitName, Memory, Message, MessageId,
    MessageState, Policy, Purpose, Recalled, Recipient, Record, RequestIdentity, Secret,
    SharedLimit, TestRecipient, Timestamp,
    limit::{settle_all, take_all},
    record::{SendLimits, decide},
};

/// What is asked of [`send`].
#[derive(Debug)]
pub struct SendRequest<'a> {
    /// Which request it is.
    pub identity: &'a RequestIdentity,
    /// The back end that asks.
    pub caller: &'a CallerName,
    /// Whom to send to.
    pub recipient: &'a Recipient,
    /// What the code is for.
    pub purpose: &'a Purpose,
    /// The way to send it by.
    pub channel: Channel,
    /// What makes the recipient a test recipient, to whom nothing is sent, and for
    /// whom no limit on sends counts.
    pub test: Option<&'a TestRecipient>,
    /// Why no message can go to the recipient, if so; of no matter for a test recipient.
    pub barred: Option<Barred>,
    /// The message that is to carry the code; `None` where nobody is sent one.
    pub message: Option<&'a MessageRequest<'a>>,
}

/// Why no message can go to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The caller may not send there.
    Destination,
    /// No provider is for such messages.
    NoRoute(Channel),
}

/// A message that is to carry a code.
#[derive(Debug)]
pub struct MessageRequest<'a> {
    /// Which message.
    pub id: MessageId,
    /// How long the replica that writes it holds it, to send it at once; `None`:
    /// whoever comes first may.
    pub lease: Option<Duration>,
    /// The language that was asked for; empty where none was.
    pub locale: &'a str,
    /// What its text says besides.
    pub variables: &'a BTreeMap<String, String>,
    /// Where the end user is.
    pub client_ip: Option<IpAddr>,
}

/// A code to be sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its challenge.
    pub challenge: ChallengeNonce,
    /// The code; `None` where an old answer is repeated and the code is dead.
    pub code: Option<Code>,
    /// How many digits it has.
    pub code_length: u32,
    /// When it dies.
    pub expires_at: Timestamp,
    /// Whether it is the same code again.
    pub resent: bool,
    /// When the next send is allowed.
    pub resend_at: Timestamp,
    /// The message that this very request wrote, and that must go out; `None` where an
    /// old answer is repeated, or nobody is sent one.
    pub message: Option<Message>,
}

/// Why no code is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefusal {
    /// The cool-down since the last send is not over.
    TooSoon {
        /// How long it still lasts.
        wait: Duration,
        /// The code that lives meanwhile, and when it dies.
        live: Option<(ChallengeNonce, Timestamp)>,
    },
    /// Answers are refused for longer than a new code would live.
    Blocked(Block),
    /// A limit leaves no room.
    Limit(Exceeded),
    /// The request id was used for another request.
    Reused,
    /// No message can go there.
    Barred(Barred),
}

/// Sends a code: the live one again, or a new one where there is none that is worth
/// sending. A first [`Sent`] is always written.
///
/// # Errors
/// Why not; a refused request leaves everything as it was.
pub fn send(
    record: Option<Record>,
    limits: &[SharedLimit],
    request: &SendRequest<'_>,
    policy: &Policy,
    now: Timestamp,
    random: &mut impl Rng,
) -> Decision<Result<Sent, SendRefusal>> {
    decide(record, policy, now, |record| {
        let recalled = record
            .as_ref()
            .and_then(|record| Some((record, record.memory.recall(request.identity, now)?)));
        match recalled {
            Some((record, Recalled::Answer { answer, own })) => {
                return Decision::answer(repeat(record, answer, own, request, policy, now));
            }
            Some((_, Recalled::Reused)) => return Decision::answer(Err(SendRefusal::Reused)),
            None => {}
        }
        match permit(record.as_ref(), limits, request, policy, now) {
            Err(refusal) => Decision::answer(Err(refusal)).charging(LimitCharge::Clamp),
            Ok((send_limits, charge)) => {
                let (sent, record) = make(record, send_limits, request, policy, now, random);
                let message = sent.message.clone();
                Decision::write(Ok(sent), record)
                    .sending(message)
                    .charging(charge)
            }
        }
    })
}

/// Gives the answer to the same request again. A writer that only missed the
/// acknowledgement is given its message as it wrote it.
fn repeat(
    record: &Record,
    answer: Answer,
    own: bool,
    request: &SendRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Result<Sent, SendRefusal> {
    let Answer::Sent {
        challenge,
        expires_at,
        resend_at,
        resent,
        code_length,
    } = answer
    else {
        // Another RPC's: the id of a request tells the RPC too, so only a forgery.
        return Err(SendRefusal::Reused);
    };
    let live = Some(&record.challenge).filter(|live| live.nonce == challenge);
    let secret = live.and_then(|live| live.live_secret(policy, now));
    let code = secret.map(|secret| secret.code.clone());
    let written_at = resend_at.minus(policy.resend_after);
    let message = live
        .filter(|_| own)
        .zip(secret.filter(|secret| !secret.is_test))
        .and_then(|(live, secret)| request.message_with(&secret.code, live, written_at));
    Ok(Sent {
        challenge,
        code,
        code_length,
        expires_at,
        resent,
        resend_at,
        message,
    })
}

/// Whether a message may be sent now, and what is left of the limits if so.
fn permit(
    record: Option<&Record>,
    limits: &[SharedLimit],
    request: &SendRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Result<(SendLimits, LimitCharge), SendRefusal> {
    if let (None, Some(barred)) = (request.test, request.barred) {
        return Err(SendRefusal::Barred(barred));
    }
    if let Some(record) = record {
        // A code that dies as the wait ends is as useless as one that dies before.
        if let Some(block) = record.failures.block(policy, now)
            && now.plus(policy.code_ttl) <= block.until
        {
            return Err(SendRefusal::Blocked(block));
        }
        let wait = now.until(record.resend_at(policy));
        if !wait.is_zero() {
            let live = record.challenge.live_secret(policy, now);
            let live = live.map(|_| (record.challenge.nonce, record.challenge.expires_at));
            return Err(SendRefusal::TooSoon { wait, live });
        }
    }
    let own = record.map(|record| record.send_limits).unwrap_or_default();
    if request.test.is_some() {
        return Ok((own, LimitCharge::Nothing));
    }
    let own_limits = own.shared(policy);
    let taken = take_all(&own_limits, now).and_then(|own| Ok((own, take_all(limits, now)?)));
    let (taken_own, _) = taken.map_err(|first| {
        // Who comes back after the longest wait is not refused by another limit.
        let others = take_all(limits, now).err();
        let longest = others
            .filter(|other| first.wait < other.wait)
            .unwrap_or(first);
        SendRefusal::Limit(longest)
    })?;
    Ok((own.taken(&own_limits, &taken_own), LimitCharge::Consume))
}

/// The code to send, and the record with it.
fn make(
    record: Option<Record>,
    send_limits: SendLimits,
    request: &SendRequest<'_>,
    policy: &Policy,
    now: Timestamp,
    random: &mut impl Rng,
) -> (Sent, Record) {
    let (failures, memory) = record
        .as_ref()
        .map_or((Failures::NONE, Memory::default()), |record| {
            (record.failures, record.memory.clone())
        });
    let repeated = record.and_then(|record| {
        let code = code_worth_repeating(&record.challenge, request, policy, now)?;
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
    let (challenge, code) = repeated.unwrap_or_else(|| {
        let code = match request.test {
            Some(test) => test.code.clone(),
            None => Code::generate(policy.code_length, random),
        };
        (
            Challenge::start(code.clone(), request, policy, now, random),
            code,
        )
    });
    let sent = Sent {
        challenge: challenge.nonce,
        code_length: code.length(),
        message: request.message_with(&code, &challenge, now),
        code: Some(code),
        expires_at: challenge.expires_at,
        resent,
        resend_at: now.plus(policy.resend_after),
    };
    let answer = Answer::Sent {
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
        memory: memory.and(request.identity, answer, policy, now),
        written_at: now,
    };
    (sent, record)
}

/// The code, if it lives and will live at least as long as the next wait, and is the
/// one that a test recipient must have. The fixed code of one is never that of a recipient
/// like any other: it would be sent, also by a replica that knows no test recipients.
fn code_worth_repeating(
    challenge: &Challenge,
    request: &SendRequest<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Option<Code> {
    let secret = challenge.live_secret(policy, now)?;
    let lasts = now.until(challenge.expires_at) >= policy.resend_after;
    let right = match request.test {
        Some(test) => secret.is_test && test.code.same_as(&secret.code),
        None => !secret.is_test,
    };
    (lasts && right).then(|| secret.code.clone())
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
            is_test: request.test.is_some(),
        };
        let expires_at = now.plus(policy.code_ttl);
        Self {
            nonce: ChallengeNonce::generate(random),
            state: ChallengeState::Live(secret),
            channel: request.channel,
            created_at: now,
            expires_at: request
                .test
                .map_or(expires_at, |test| expires_at.min(test.expires_at)),
            attempts: 0,
            sends: 1,
        }
    }
}

impl SendRequest<'_> {
    /// The message that carries `code`, if one is to, as it is written `now`.
    fn message_with<S>(
        &self,
        code: &Code,
        challenge: &Challenge<S>,
        now: Timestamp,
    ) -> Option<Message> {
        // Nobody is sent the code of a test recipient.
        let request = self.message.filter(|_| self.test.is_none())?;
        let content = Content {
            recipient: self.recipient.clone(),
            code: code.clone(),
            locale: request.locale.to_owned(),
            variables: request.variables.clone(),
            client_ip: request.client_ip,
        };
        let predecessors = challenge.sends.saturating_sub(1);
        let state = match request.lease {
            Some(_) => MessageState::Sending(content),
            None => MessageState::Queued(content),
        };
        Some(Message {
            id: request.id,
            challenge: challenge.nonce,
            channel: self.channel,
            predecessors,
            state,
            provider: String::new(),
            // Who writes it with a lease sends it without a further note.
            history: History {
                attempt_open: request.lease.is_some(),
                ..History::default()
            },
            created_at: now,
            updated_at: now,
            expires_at: challenge.expires_at,
            due_at: Some(now.plus(request.lease.unwrap_or_default())),
        })
    }
}

impl SendLimits {
    /// The limits that are on, as such.
    fn shared(self, policy: &Policy) -> Vec<SharedLimit> {
        let hour = (LimitName::SendsPerHour, self.hour_full_at);
        let day = (LimitName::SendsPerDay, self.day_full_at);
        [hour, day]
            .into_iter()
            .filter_map(|(name, full_at)| {
                let rate = policy.rate(name)?;
                Some(SharedLimit {
                    name,
                    rate,
                    full_at: Some(full_at),
                    paid: false,
                })
            })
            .collect()
    }

    /// With these charges on these limits.
    fn taken(mut self, limits: &[SharedLimit], charges: &[Option<Timestamp>]) -> Self {
        for (limit, charge) in limits.iter().zip(charges) {
            let full_at = match limit.name {
                LimitName::SendsPerHour => &mut self.hour_full_at,
                _ => &mut self.day_full_at,
            };
            *full_at = charge.unwrap_or(*full_at);
        }
        self
    }

    /// The limits after the clock stepped back to `now`.
    pub(super) fn stepped_back_to(self, policy: &Policy, now: Timestamp) -> Self {
        let limits = self.shared(policy);
        self.taken(&limits, &settle_all(&limits, now))
    }
}
