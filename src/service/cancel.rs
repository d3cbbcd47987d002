//! CancelOtp: cancels the live code, and resets the failed attempts.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CancelOtp, CancelReply, OtpService, ServiceError, permit_subject};
use otpd_rules::{Caller, CancelRequest, ChallengeId, Command, Outcome};

impl OtpService {
    /// Cancels a live code, and resets the failed attempts if requested.
    ///
    /// # Errors
    /// A purpose that the caller may not use, a reset that it may not request, and the failures
    /// of the store.
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
        let command = Command::Cancel(CancelRequest {
            identity: self.identity("CancelOtp", request_id.as_deref(), &request.fields()),
            challenge,
            reset_failures: *reset_failures,
        });
        let request = subject.command_request(command, caller, key, deadline);
        let (Outcome::Cancelled(done), _) = self.decide(request).await? else {
            return Err(ServiceError::foreign_outcome());
        };
        Ok(CancelReply {
            challenge_id: done.challenge.map(|nonce| ChallengeId { key, nonce }),
            failures_reset: done.failures_reset,
        })
    }
}
