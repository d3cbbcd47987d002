//! The rules with their writes, and requests to them as data.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    time::Duration,
};

use rand::TryRng;

use super::super::*;

/// Draws another word each time, and the same ones in each run.
struct Counter(u64);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unimplemented!("the rules draw words of 64 bits, and bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 += 1;
        Ok(self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0 += 1;
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        Ok(())
    }
}

/// Request without its id.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    Send { voice: bool },
    Verify { digits: String },
    Cancel { reset: bool },
}

/// Response.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Sent {
        challenge: ChallengeNonce,
        expires_at: Timestamp,
        resend_at: Timestamp,
        resent: bool,
        code_length: u32,
    },
    NotSent(Refusal),
    Verdict(VerifyOutcome),
    NotJudged(Refusal),
    Cancelled(CancelOutcome),
    NotCancelled,
}

impl Reply {
    /// Returns the wait of a refusal.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotSent(Refusal::ResendTooSoon { wait, .. }) => Some(*wait),
            Self::NotSent(Refusal::Blocked(block)) | Self::NotJudged(Refusal::Blocked(block)) => {
                Some(block.wait)
            }
            Self::NotSent(Refusal::SendLimit(exceeded))
            | Self::NotJudged(Refusal::VerifyLimit(exceeded)) => Some(exceeded.wait),
            _ => None,
        }
    }

    pub fn says_reused(&self) -> bool {
        matches!(
            self,
            Self::NotSent(Refusal::IdempotencyKeyReused)
                | Self::NotJudged(Refusal::IdempotencyKeyReused)
                | Self::NotCancelled
        )
    }
}

/// Response and effects of a request.
pub(super) struct Done {
    pub reply: Reply,
    pub wrote: bool,
    pub charged: bool,
    /// True if a send wrote a message.
    pub first: bool,
}

/// The rules, and their state.
pub(super) struct Rules {
    pub policy: PurposePolicy,
    pub record: Option<Record>,
    limits: HashMap<RateLimitKind, Timestamp>,
    random: Counter,
}

impl Rules {
    pub fn new(policy: PurposePolicy) -> Self {
        Self {
            policy,
            record: None,
            limits: HashMap::new(),
            random: Counter(0),
        }
    }

    /// Returns the live code, or another one of its length.
    pub fn digits(&self, right: bool, now: Timestamp) -> String {
        let live = self.record.as_ref();
        let live = live.and_then(|record| record.challenge.live_secret(&self.policy, now));
        let code = live.map_or("123456", |secret| secret.code.expose());
        if right {
            return code.to_owned();
        }
        let other = if code.starts_with('0') { "1" } else { "0" };
        format!("{other}{}", &code[1..])
    }

    /// Runs a request, and applies its writes.
    pub fn ask(&mut self, id: Option<u8>, request: &Request, now: Timestamp) -> Done {
        let identity = self.identity(id, request);
        let (policy, record) = (self.policy.clone(), self.record.clone());
        match request {
            Request::Send { voice } => {
                let request = SendRequest {
                    identity,
                    caller: CallerName::new("caller"),
                    recipient: Recipient::from_canonical("+79991234567".to_owned()),
                    purpose: Purpose::default(),
                    channel: if *voice { Channel::Voice } else { Channel::Sms },
                    test: None,
                    barred: None,
                    message: Some(MessageRequest {
                        id: MessageId([0; 16]),
                        lease: None,
                        locale: String::new(),
                        variables: BTreeMap::new(),
                        client_ip: None,
                    }),
                };
                let name = RateLimitKind::IpSendsPerHour;
                let limit = self.limit(name);
                let limits = limit.as_slice();
                let decision = send(record, limits, &request, &policy, now, &mut self.random);
                let first = decision.message.is_some();
                let returned = decision.answer.as_ref().ok();
                let returned = returned.is_some_and(|sent| sent.message.is_some());
                assert_eq!(returned, first, "the returned message is written");
                let decision = decision.map(|answer| match answer {
                    Ok(sent) => Reply::Sent {
                        challenge: sent.challenge,
                        expires_at: sent.expires_at,
                        resend_at: sent.resend_at,
                        resent: sent.resent,
                        code_length: sent.code_length,
                    },
                    Err(refusal) => Reply::NotSent(refusal),
                });
                self.commit(decision, name, first, now)
            }
            Request::Verify { digits } => {
                let request = VerifyRequest {
                    identity,
                    code: SubmittedCode::parse(digits).unwrap(),
                    challenge: ChallengeSelector::Newest,
                };
                let name = RateLimitKind::IpFailuresPerHour;
                let decision = verify(record, self.limit(name).as_slice(), &request, &policy, now);
                let decision = decision.map(|answer| match answer {
                    Ok(verdict) => Reply::Verdict(verdict),
                    Err(refusal) => Reply::NotJudged(refusal),
                });
                self.commit(decision, name, false, now)
            }
            Request::Cancel { reset } => {
                let request = CancelRequest {
                    identity,
                    challenge: ChallengeSelector::Newest,
                    reset_failures: *reset,
                };
                let decision = cancel(record, &request, &policy, now).map(|answer| match answer {
                    Ok(cancelled) => Reply::Cancelled(cancelled),
                    Err(_) => Reply::NotCancelled,
                });
                self.commit(decision, RateLimitKind::IpFailuresPerHour, false, now)
            }
        }
    }

    fn commit(
        &mut self,
        decision: Decision<Reply>,
        name: RateLimitKind,
        first: bool,
        now: Timestamp,
    ) -> Done {
        let wrote = decision.write.is_some();
        self.record = decision.write.or(self.record.take());
        let limit = self.limit(name);
        let update = limit.and_then(|limit| decision.charge.update(&limit, now));
        if let Some(update) = update {
            let full_at = self.limits.entry(name).or_insert(now);
            let mut batched = BatchedLimit::new(*full_at);
            batched.update(update, now);
            *full_at = batched.full_at;
        }
        Done {
            reply: decision.answer,
            wrote,
            charged: update.is_some(),
            first,
        }
    }

    fn limit(&self, name: RateLimitKind) -> Option<RateLimitState> {
        Some(RateLimitState {
            name,
            rate: self.policy.rate(name)?,
            full_at: self.limits.get(&name).copied(),
            paid: false,
        })
    }

    /// Builds the fingerprint as the service does: it depends on the RPC, and is random
    /// without a `request_id`.
    fn identity(&mut self, id: Option<u8>, request: &Request) -> RequestFingerprint {
        let writer = self.random.try_next_u64().unwrap();
        let mut bytes = [0; 16];
        let (rpc, fields) = match request {
            Request::Send { voice } => (1, u8::from(*voice).to_string()),
            Request::Verify { digits } => (2, digits.clone()),
            Request::Cancel { reset } => (3, u8::from(*reset).to_string()),
        };
        match id {
            Some(id) => bytes[..2].copy_from_slice(&[rpc, id]),
            None => bytes[8..].copy_from_slice(&writer.to_le_bytes()),
        }
        let mut field_bytes = [0; 16];
        field_bytes[..fields.len()].copy_from_slice(fields.as_bytes());
        RequestFingerprint {
            id: bytes,
            fields: field_bytes,
            writer,
            named: id.is_some(),
        }
    }
}
