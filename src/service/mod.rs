//! The use cases: load, decide, write, and only then answer.

mod decide;
mod error;
mod request;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub use error::ServiceError;
pub use request::{
    Cancel, CancelReply, Send, SendReply, StatusReply, Subject, Verify, VerifyReply,
};

use crate::{
    delivery::{Message, Provider},
    domain::{
        self, Caller, CancelRequest, ChallengeFilter, ChallengeId, Decision, Policy, Purpose,
        Record, RecordKey, RequestIdentity, SendRefusal, SendRequest, Status, TestRecipient,
        VerifyRefusal, VerifyRequest,
    },
    keys::{KeyRing, system_random},
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
    /// Who gets a fixed code and no message.
    pub test_recipients: Vec<TestRecipient>,
    /// What takes messages of callers that do not deliver by themselves.
    pub provider: Provider,
    /// How long one statement of the store may take.
    pub store_timeout: Duration,
}

impl OtpService {
    /// Sends the live code again, or a new one.
    ///
    /// # Errors
    /// A purpose or destination that is not the caller's, what [`domain::send`] refuses,
    /// and the store's failures.
    pub async fn send(
        &self,
        caller: &Caller,
        request: &Send,
        deadline: Instant,
    ) -> Result<SendReply, ServiceError> {
        let Send {
            recipient,
            purpose,
            channel,
            ..
        } = request;
        permit_purpose(caller, purpose)?;
        let is_test = |test: &&TestRecipient| test.is(&caller.name, recipient, purpose);
        let test = self.test_recipients.iter().find(is_test);
        let blocked = !caller.destinations.permit(recipient);
        if blocked && test.is_none() {
            return Err(ServiceError::DestinationBlocked);
        }
        let policy = caller.policies.of(purpose);
        let key = self.keys.record_key(&caller.name, recipient, purpose);
        let limits = request.limits(&self.keys, caller, policy);
        let identity = self.identity("SendOtp", request.request_id.as_deref(), &request.fields());
        let rule = |record, limits: &[_], now, random: &mut _| {
            let test = test.and_then(|test| test.at(now));
            if blocked && test.is_none() {
                return Decision::answer(Err(ServiceError::DestinationBlocked));
            }
            let identity = &identity;
            let caller = &caller.name;
            let wish = SendRequest {
                identity,
                caller,
                recipient,
                purpose,
                channel: *channel,
                test,
            };
            domain::send(record, limits, &wish, policy, now, random).map(|sent| {
                sent.map(|sent| (sent, test.is_some()))
                    .map_err(|refusal| refused_send(key, refusal))
            })
        };
        let decided = self.decide(caller, key, &limits, deadline, rule).await?;
        let (sent, is_test) = decided?;
        let challenge_id = ChallengeId {
            key,
            nonce: sent.challenge,
        };
        if let Some(code) = &sent.code
            && sent.first
            && !is_test
            && !caller.delivers
        {
            self.provider.deliver(&Message {
                challenge_id,
                recipient,
                code,
            });
        }
        Ok(SendReply {
            challenge_id,
            expires_at: sent.expires_at,
            resend_at: sent.resend_at,
            resent: sent.resent,
            code_length: sent.code_length,
            code: sent.code.filter(|_| caller.delivers),
        })
    }

    /// Judges a typed code.
    ///
    /// # Errors
    /// A purpose that is not the caller's, a challenge that the purpose requires and the
    /// request lacks, what [`domain::verify`] refuses, and the store's failures.
    pub async fn verify(
        &self,
        caller: &Caller,
        request: &Verify,
        deadline: Instant,
    ) -> Result<VerifyReply, ServiceError> {
        let Verify {
            recipient,
            purpose,
            code,
            challenge_id,
            ..
        } = request;
        permit_purpose(caller, purpose)?;
        let policy = caller.policies.of(purpose);
        if policy.require_challenge_id && challenge_id.is_none() {
            let problem = "required for this purpose; give the one that SendOtp returned";
            return Err(ServiceError::request("challenge_id", problem));
        }
        let key = self.keys.record_key(&caller.name, recipient, purpose);
        let limits = request.limits(&self.keys, caller, policy);
        let challenge = filter_within(key, challenge_id.as_deref());
        let identity = self.identity(
            "VerifyOtp",
            request.request_id.as_deref(),
            &request.fields(),
        );
        let typed = VerifyRequest {
            identity: &identity,
            code,
            challenge,
        };
        let rule = |record, limits: &[_], now, _: &mut _| {
            domain::verify(record, limits, &typed, policy, now)
        };
        let decided = self.decide(caller, key, &limits, deadline, rule).await?;
        let verdict = decided.map_err(|refusal| match refusal {
            VerifyRefusal::Code(error) => ServiceError::Code(error),
            VerifyRefusal::Blocked(block) => ServiceError::blocked(block),
            VerifyRefusal::Limit(exceeded) => ServiceError::VerifyLimit(exceeded),
            VerifyRefusal::Reused => ServiceError::reused(),
        })?;
        let challenge_id = verdict.challenge().map(|nonce| ChallengeId { key, nonce });
        Ok(VerifyReply {
            verdict,
            challenge_id,
        })
    }

    /// Ends a live code, and forgets wrong answers if asked to.
    ///
    /// # Errors
    /// A purpose that is not the caller's, a reset that it may not ask for, and the
    /// store's failures.
    pub async fn cancel(
        &self,
        caller: &Caller,
        request: &Cancel,
        deadline: Instant,
    ) -> Result<CancelReply, ServiceError> {
        let Cancel {
            subject,
            reset_failures,
            request_id,
        } = request;
        permit_subject(caller, subject)?;
        if *reset_failures && !caller.may_reset_failures {
            return Err(ServiceError::ResetNotAllowed);
        }
        let Some((key, challenge)) = self.locate(caller, subject) else {
            return Ok(CancelReply::default());
        };
        let identity = self.identity("CancelOtp", request_id.as_deref(), &request.fields());
        let wish = CancelRequest {
            identity: &identity,
            challenge,
            reset_failures: *reset_failures,
        };
        let rule = |record: Option<Record>, _: &[_], now, _: &mut _| {
            let policy = policy_of(caller, record.as_ref());
            domain::cancel(record, &wish, policy, now)
        };
        let decided = self.decide(caller, key, &[], deadline, rule).await?;
        let done = decided.map_err(|_| ServiceError::reused())?;
        Ok(CancelReply {
            challenge_id: done.challenge.map(|nonce| ChallengeId { key, nonce }),
            failures_reset: done.failures_reset,
        })
    }

    /// Tells what is known of a code.
    ///
    /// # Errors
    /// A purpose that is not the caller's, and the store's failures.
    pub async fn status(
        &self,
        caller: &Caller,
        subject: &Subject,
        deadline: Instant,
    ) -> Result<StatusReply, ServiceError> {
        permit_subject(caller, subject)?;
        let recipient = subject.recipient.clone();
        let Some((key, challenge)) = self.locate(caller, subject) else {
            return Ok(StatusReply {
                status: Status::default(),
                challenge_id: None,
                recipient,
            });
        };
        let rule = |record: Option<Record>, _: &[_], now, _: &mut _| {
            let policy = policy_of(caller, record.as_ref());
            domain::status(record, challenge, policy, now)
        };
        let status = self.decide(caller, key, &[], deadline, rule).await?;
        let live = status.live.as_ref();
        Ok(StatusReply {
            challenge_id: live.map(|code| ChallengeId {
                key,
                nonce: code.challenge,
            }),
            recipient: recipient.or_else(|| live.map(|code| code.recipient.clone())),
            status,
        })
    }

    fn identity(&self, rpc: &str, request_id: Option<&str>, fields: &[String]) -> RequestIdentity {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        self.keys
            .request_identity(rpc, request_id, &fields, &mut system_random())
    }

    /// The record that a subject names, and which of its challenges; `None` where it
    /// can name none.
    fn locate(&self, caller: &Caller, subject: &Subject) -> Option<(RecordKey, ChallengeFilter)> {
        if let Some(recipient) = &subject.recipient {
            let key = self
                .keys
                .record_key(&caller.name, recipient, &subject.purpose);
            return Some((key, filter_within(key, subject.challenge_id.as_deref())));
        }
        let id = ChallengeId::parse(subject.challenge_id.as_deref()?)?;
        Some((id.key, ChallengeFilter::Only(id.nonce)))
    }
}

/// Why nothing is sent, for the record of `key`.
fn refused_send(key: RecordKey, refusal: SendRefusal) -> ServiceError {
    match refusal {
        SendRefusal::TooSoon { wait, live } => ServiceError::ResendTooSoon {
            wait,
            live: live.map(|(nonce, expires_at)| (ChallengeId { key, nonce }, expires_at)),
        },
        SendRefusal::Blocked(block) => ServiceError::blocked(block),
        SendRefusal::Limit(exceeded) => ServiceError::SendLimit(exceeded),
        SendRefusal::Reused => ServiceError::reused(),
    }
}

/// The policy that a caller's record is under; any does where there is none.
fn policy_of<'a>(caller: &'a Caller, record: Option<&Record>) -> &'a Policy {
    record.map_or(&caller.policies.general, |record| {
        caller.policies.of(&record.purpose)
    })
}

fn permit_purpose(caller: &Caller, purpose: &Purpose) -> Result<(), ServiceError> {
    if caller.permits(purpose) {
        return Ok(());
    }
    Err(ServiceError::PurposeNotAllowed(purpose.clone()))
}

/// A challenge id alone names a record of a purpose that was allowed once.
fn permit_subject(caller: &Caller, subject: &Subject) -> Result<(), ServiceError> {
    match subject.recipient {
        Some(_) => permit_purpose(caller, &subject.purpose),
        None => Ok(()),
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
