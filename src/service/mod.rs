//! The use cases: load, decide, write, and only then answer.

mod attribution;
mod decide;
mod error;
mod request;
mod send;
mod status;

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use attribution::{ConversionTracker, PendingAttribution};
pub use error::ServiceError;
pub use request::{
    CancelOtp, CancelReply, DeliveryState, DeliverySummary, OtpSelector, SendOtp, SendReply,
    StatusReply, VerifyOtp, VerifyReply,
};

use attribution::VerifyEffects;
use decide::DecisionInput;

use crate::{
    keys::{KeyRing, os_rng},
    outbox::Outbox,
    store::{batcher::BatchClient, health::StoreHealth},
};
use otpd_rules::{
    self, Caller, CancelRequest, ChallengeId, ChallengeSelector, Purpose, PurposePolicy, Record,
    RecordKey, RequestFingerprint, TestRecipient, VerifyError, VerifyRequest,
};

/// What stands for a provider where the caller delivers by itself.
pub const SELF_DELIVERY_PROVIDER: &str = "caller";

/// Sends codes and checks them.
#[derive(Debug)]
pub struct OtpService {
    /// The only way of requests to the store.
    pub batcher: BatchClient,
    /// Whether the store answers.
    pub availability: StoreHealth,
    /// What records are found and sealed with.
    pub keys: Arc<KeyRing>,
    /// Who gets a fixed code and no message.
    pub test_recipients: Vec<TestRecipient>,
    /// What carries messages of callers that do not deliver by themselves.
    pub outbox: Outbox,
    /// What runs: requests, and decisions whose caller has gone.
    pub running: TaskTracker,
    /// Where verified codes are counted.
    pub conversions: ConversionTracker,
}

impl OtpService {
    /// Judges a typed code.
    ///
    /// # Errors
    /// A purpose that is not the caller's, a challenge that the purpose requires and the
    /// request lacks, what [`otpd_rules::verify`] refuses, and the store's failures.
    pub async fn verify(
        &self,
        caller: &Arc<Caller>,
        request: &VerifyOtp,
        deadline: Instant,
    ) -> Result<VerifyReply, ServiceError> {
        let VerifyOtp {
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
        let challenge = challenge_selector(key, challenge_id.as_deref());
        let identity = self.identity(
            "VerifyOtp",
            request.request_id.as_deref(),
            &request.fields(),
        );
        let matter = DecisionInput {
            caller: Arc::clone(caller),
            key,
            purpose: Some(purpose.clone()),
            limits,
            deadline,
            reads_messages: false,
        };
        let (owner, purpose, code) = (Arc::clone(caller), purpose.clone(), code.clone());
        let rule = move |record, limits: &[_], now, _: &mut _| {
            let typed = VerifyRequest {
                identity: &identity,
                code: &code,
                challenge,
            };
            let policy = owner.policies.of(&purpose);
            let decision = otpd_rules::verify(record, limits, &typed, policy, now);
            let judged = VerifyEffects::of(&decision, policy, now);
            decision.map(|answer| (answer, judged))
        };
        let decided = self.decide(matter, rule, |_, _| {}).await?;
        let (decided, judged) = decided;
        let verdict = decided.map_err(|refusal| match refusal {
            VerifyError::Code(error) => ServiceError::Code(error),
            VerifyError::Blocked(block) => ServiceError::blocked(block),
            VerifyError::Limit(exceeded) => ServiceError::VerifyLimit(exceeded),
            VerifyError::Reused => ServiceError::idempotency_key_reused(),
        })?;
        let challenge_id = verdict.challenge().map(|nonce| ChallengeId { key, nonce });
        if let Some((challenge, channel)) = challenge_id.zip(judged.verified) {
            self.conversions
                .verified(caller, challenge, channel, recipient);
        }
        Ok(VerifyReply {
            verdict,
            challenge_id,
            shut: judged.shut,
        })
    }

    /// Ends a live code, and forgets wrong answers if asked to.
    ///
    /// # Errors
    /// A purpose that is not the caller's, a reset that it may not ask for, and the
    /// store's failures.
    pub async fn cancel(
        &self,
        caller: &Arc<Caller>,
        request: &CancelOtp,
        deadline: Instant,
    ) -> Result<CancelReply, ServiceError> {
        let CancelOtp {
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
        let matter = DecisionInput {
            caller: Arc::clone(caller),
            key,
            purpose: subject.named_purpose(),
            limits: Vec::new(),
            deadline,
            reads_messages: false,
        };
        let (caller, reset_failures) = (Arc::clone(caller), *reset_failures);
        let rule = move |record: Option<Record>, _: &[_], now, _: &mut _| {
            let wish = CancelRequest {
                identity: &identity,
                challenge,
                reset_failures,
            };
            let policy = policy_of(&caller, record.as_ref());
            otpd_rules::cancel(record, &wish, policy, now)
        };
        let decided = self.decide(matter, rule, |_, _| {}).await?;
        let done = decided.map_err(|_| ServiceError::idempotency_key_reused())?;
        Ok(CancelReply {
            challenge_id: done.challenge.map(|nonce| ChallengeId { key, nonce }),
            failures_reset: done.failures_reset,
        })
    }

    fn identity(&self, rpc: &str, request_id: Option<&str>, fields: &[&str]) -> RequestFingerprint {
        self.keys
            .request_identity(rpc, request_id, fields, &mut os_rng())
    }

    /// The record that a subject names, and which of its challenges; `None` where it
    /// can name none.
    fn locate(
        &self,
        caller: &Caller,
        subject: &OtpSelector,
    ) -> Option<(RecordKey, ChallengeSelector)> {
        if let Some(recipient) = &subject.recipient {
            let key = self
                .keys
                .record_key(&caller.name, recipient, &subject.purpose);
            return Some((
                key,
                challenge_selector(key, subject.challenge_id.as_deref()),
            ));
        }
        let id = ChallengeId::parse(subject.challenge_id.as_deref()?)?;
        Some((id.key, ChallengeSelector::Only(id.nonce)))
    }
}

/// The policy that a caller's record is under; any does where there is none.
fn policy_of<'a>(caller: &'a Caller, record: Option<&Record>) -> &'a PurposePolicy {
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
fn permit_subject(caller: &Caller, subject: &OtpSelector) -> Result<(), ServiceError> {
    match subject.recipient {
        Some(_) => permit_purpose(caller, &subject.purpose),
        None => Ok(()),
    }
}

/// What a challenge id that a caller wrote admits in the record of `key`.
fn challenge_selector(key: RecordKey, challenge_id: Option<&str>) -> ChallengeSelector {
    match challenge_id.map(ChallengeId::parse) {
        None => ChallengeSelector::Newest,
        Some(Some(id)) if id.key == key => ChallengeSelector::Only(id.nonce),
        Some(_) => ChallengeSelector::Foreign,
    }
}
