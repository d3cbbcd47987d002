//! VerifyOtp: checks a submitted code.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    OtpService, ServiceError, VerifyOtp, VerifyReply, challenge_selector, permit_purpose,
    receipt::VerifiedRequest,
};
use crate::engine::CommandRequest;
use otpd_rules::{Caller, ChallengeId, Command, Outcome, VerifyOutcome, VerifyRequest};

impl OtpService {
    /// Verifies a submitted code.
    ///
    /// # Errors
    /// A purpose that the caller may not use, a challenge id that the purpose requires and the
    /// request lacks, the refusals of the rules, and the failures of the store.
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
            request_id,
            receipt,
            ..
        } = request;
        permit_purpose(caller, purpose)?;
        if let Some(receipt) = receipt {
            receipt.permit(caller)?;
        }
        let policy = caller.policies.of(purpose);
        if policy.require_challenge_id && challenge_id.is_none() {
            let problem = "required for this purpose; give the one that SendOtp returned";
            return Err(ServiceError::request("challenge_id", problem));
        }
        let keys = &self.engine.keys;
        let key = keys.record_key(&caller.name, recipient, purpose);
        let identity = self.identity("VerifyOtp", request_id.as_deref(), &request.fields());
        let command = Command::Verify(VerifyRequest {
            identity,
            code: code.clone(),
            challenge: challenge_selector(key, challenge_id.as_deref()),
            receipt: receipt.is_some(),
        });
        let command = CommandRequest {
            command,
            caller: Arc::clone(caller),
            key,
            purpose: Some(purpose.clone()),
            limits: request.limits(keys, caller, policy),
            deadline,
            outbox: None,
        };
        let (Outcome::Verdict(verdict, effects), _) = self.decide(command).await? else {
            return Err(ServiceError::foreign_outcome());
        };
        let challenge_id = verdict.challenge().map(|nonce| ChallengeId { key, nonce });
        if let Some((challenge, channel)) = challenge_id.zip(effects.verified) {
            self.conversions
                .verified(caller, challenge, channel, recipient);
        }
        let receipt = match (verdict, receipt, challenge_id) {
            (VerifyOutcome::Verified { receipt, .. }, Some(asked), Some(challenge_id)) => {
                let verified = VerifiedRequest {
                    caller,
                    request,
                    asked,
                    identity,
                    challenge_id,
                };
                Some(self.issue_receipt(receipt, &verified))
            }
            _ => None,
        };
        Ok(VerifyReply {
            verdict,
            challenge_id,
            lockout: effects.lockout,
            receipt,
        })
    }
}
