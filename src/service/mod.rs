//! The use cases: load, decide, write, and only then answer.

mod decide;
mod error;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub use error::ServiceError;

use crate::{
    delivery::{Message, Provider},
    domain::{
        self, CallerName, ChallengeFilter, ChallengeId, Channel, Policies, Policy, Purpose,
        Recipient, Record, RecordKey, SendRequest, Timestamp, TypedCode, Verdict, VerifyRequest,
    },
    keys::KeyRing,
    store::{Store, availability::Availability},
};

/// Sends codes and checks them.
#[derive(Debug)]
pub struct OtpService {
    /// Where records are.
    pub store: Arc<Store>,
    /// Whether it answers.
    pub availability: Availability,
    /// What records are found and sealed with.
    pub keys: KeyRing,
    /// How codes behave.
    pub policies: Policies,
    /// What takes messages.
    pub provider: Provider,
    /// How long one statement of the store may take.
    pub store_timeout: Duration,
}

/// A code that is asked for.
#[derive(Debug)]
pub struct Send {
    /// Whom to send to.
    pub recipient: Recipient,
    /// What it is for.
    pub purpose: Purpose,
    /// How it travels.
    pub channel: Channel,
}

/// A code that was sent.
#[derive(Debug)]
pub struct SendReply {
    /// Its challenge.
    pub challenge_id: ChallengeId,
    /// When it dies.
    pub expires_at: Timestamp,
    /// When the next send is allowed.
    pub resend_at: Timestamp,
    /// Whether it was the same code again.
    pub resent: bool,
    /// How many digits it has.
    pub code_length: u32,
}

/// A code that was typed.
#[derive(Debug)]
pub struct Verify {
    /// Who typed it.
    pub recipient: Recipient,
    /// What it is for.
    pub purpose: Purpose,
    /// What was typed.
    pub code: TypedCode,
    /// The challenge that it must belong to, as the caller wrote it.
    pub challenge_id: Option<String>,
}

/// The verdict on a typed code.
#[derive(Debug)]
pub struct VerifyReply {
    /// The verdict.
    pub verdict: Verdict,
    /// The challenge that it is about.
    pub challenge_id: Option<ChallengeId>,
}

/// Whose code a request is about: a recipient's, a challenge's, or both.
#[derive(Debug)]
pub struct Subject {
    /// Whose it is; `None`: the challenge tells.
    pub recipient: Option<Recipient>,
    /// What it is for.
    pub purpose: Purpose,
    /// Its challenge, as the caller wrote it.
    pub challenge_id: Option<String>,
}

/// What is known of a code.
#[derive(Debug)]
pub struct StatusReply {
    /// What is known.
    pub status: domain::Status,
    /// The live code's challenge.
    pub challenge_id: Option<ChallengeId>,
    /// The recipient, where it is known.
    pub recipient: Option<Recipient>,
}

impl OtpService {
    /// Sends the live code again, or a new one.
    ///
    /// # Errors
    /// [`ServiceError::ResendTooSoon`] within the cool-down, and the store's failures.
    pub async fn send(
        &self,
        caller: &CallerName,
        request: &Send,
        deadline: Instant,
    ) -> Result<SendReply, ServiceError> {
        let Send {
            recipient,
            purpose,
            channel,
        } = request;
        let policy = self.policies.of(purpose);
        let key = self.keys.record_key(caller, recipient, purpose);
        let wish = SendRequest {
            caller,
            recipient,
            purpose,
            channel: *channel,
        };
        let rule = |record, now, random: &mut _| domain::send(record, &wish, policy, now, random);
        let answer = self.decide(caller, key, deadline, rule).await?;

        let challenge_id = |nonce| ChallengeId { key, nonce };
        let sent = answer.map_err(|too_soon| ServiceError::ResendTooSoon {
            wait: too_soon.wait,
            live: too_soon
                .live
                .map(|(nonce, expires_at)| (challenge_id(nonce), expires_at)),
        })?;
        let challenge_id = challenge_id(sent.challenge);
        self.provider.deliver(&Message {
            challenge_id,
            recipient,
            code: &sent.code,
        });
        Ok(SendReply {
            challenge_id,
            expires_at: sent.expires_at,
            resend_at: sent.resend_at,
            resent: sent.resent,
            code_length: sent.code.length(),
        })
    }

    /// Judges a typed code.
    ///
    /// # Errors
    /// A code of another length than the live one's, a challenge that the purpose
    /// requires and the request lacks, and the store's failures.
    pub async fn verify(
        &self,
        caller: &CallerName,
        request: &Verify,
        deadline: Instant,
    ) -> Result<VerifyReply, ServiceError> {
        let Verify {
            recipient,
            purpose,
            code,
            challenge_id,
        } = request;
        let policy = self.policies.of(purpose);
        if policy.require_challenge_id && challenge_id.is_none() {
            let problem = "required for this purpose; give the one that SendOtp returned";
            return Err(ServiceError::request("challenge_id", problem));
        }
        let key = self.keys.record_key(caller, recipient, purpose);
        let challenge = filter_within(key, challenge_id.as_deref());
        let typed = VerifyRequest { code, challenge };
        let rule = |record, now, _: &mut _| domain::verify(record, &typed, policy, now);
        let verdict = self.decide(caller, key, deadline, rule).await??;
        let challenge_id = verdict.challenge().map(|nonce| ChallengeId { key, nonce });
        Ok(VerifyReply {
            verdict,
            challenge_id,
        })
    }

    /// Ends a live code, and says which.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn cancel(
        &self,
        caller: &CallerName,
        subject: &Subject,
        deadline: Instant,
    ) -> Result<Option<ChallengeId>, ServiceError> {
        let Some((key, challenge)) = self.locate(caller, subject) else {
            return Ok(None);
        };
        let rule = |record: Option<Record>, now, _: &mut _| {
            let policy = self.policy_of(record.as_ref());
            domain::cancel(record, challenge, policy, now)
        };
        let cancelled = self.decide(caller, key, deadline, rule).await?;
        Ok(cancelled.challenge.map(|nonce| ChallengeId { key, nonce }))
    }

    /// Tells what is known of a code.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn status(
        &self,
        caller: &CallerName,
        subject: &Subject,
        deadline: Instant,
    ) -> Result<StatusReply, ServiceError> {
        let Some((key, challenge)) = self.locate(caller, subject) else {
            return Ok(StatusReply {
                status: domain::Status::default(),
                challenge_id: None,
                recipient: None,
            });
        };
        let rule = |record: Option<Record>, now, _: &mut _| {
            let policy = self.policy_of(record.as_ref());
            domain::status(record, challenge, policy, now)
        };
        let status = self.decide(caller, key, deadline, rule).await?;
        let live = status.live.as_ref();
        Ok(StatusReply {
            challenge_id: live.map(|code| ChallengeId {
                key,
                nonce: code.challenge,
            }),
            recipient: live
                .map(|code| code.recipient.clone())
                .or_else(|| subject.recipient.clone()),
            status,
        })
    }

    /// The record that a subject names, and which of its challenges; `None` where it
    /// can name none.
    fn locate(
        &self,
        caller: &CallerName,
        subject: &Subject,
    ) -> Option<(RecordKey, ChallengeFilter)> {
        if let Some(recipient) = &subject.recipient {
            let key = self.keys.record_key(caller, recipient, &subject.purpose);
            Some((key, filter_within(key, subject.challenge_id.as_deref())))
        } else {
            let id = ChallengeId::parse(subject.challenge_id.as_deref()?)?;
            Some((id.key, ChallengeFilter::Only(id.nonce)))
        }
    }

    /// The policy that a record is under; any does where there is none.
    fn policy_of(&self, record: Option<&Record>) -> &Policy {
        record.map_or(self.policies.of(&Purpose::default()), |record| {
            self.policies.of(&record.purpose)
        })
    }
}

/// What a challenge id that a caller wrote admits in the record of `key`.
fn filter_within(key: RecordKey, challenge_id: Option<&str>) -> ChallengeFilter {
    match challenge_id.map(ChallengeId::parse) {
        None => ChallengeFilter::Newest,
        Some(Some(id)) if id.key == key => ChallengeFilter::Only(id.nonce),
        Some(_) => ChallengeFilter::Foreign,
    }
}
