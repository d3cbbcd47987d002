//! The use cases: check a request, have its command decided by the engine, and turn the
//! outcome into a reply.

mod attribution;
mod cancel;
mod error;
mod receipt;
mod request;
mod send;
mod status;
mod verify;

pub use attribution::{ConversionTracker, PendingAttribution};
pub use error::ServiceError;
pub use receipt::{Receipt, ReceiptIssuer, ReceiptResult};
pub use request::{
    CancelOtp, CancelReply, DeliverySummary, OtpSelector, ReceiptRequest, SendOtp, SendReply,
    StatusReply, VerifyOtp, VerifyReply,
};

use crate::{
    engine::{CommandRequest, Engine},
    keys::os_rng,
    outbox::Outbox,
    store::VersionedMessage,
};
use otpd_rules::{
    Caller, ChallengeId, ChallengeSelector, Outcome, Purpose, RecordKey, RequestFingerprint,
    TestRecipient,
};

/// Provider name of deliveries by the caller itself.
pub const SELF_DELIVERY_PROVIDER: &str = "caller";

/// Sends and verifies codes.
#[derive(Debug)]
pub struct OtpService {
    /// Decides commands.
    pub engine: Engine,
    /// Recipients that get a fixed code and no message.
    pub test_recipients: Vec<TestRecipient>,
    /// Delivers the messages of callers that do not deliver by themselves.
    pub outbox: Outbox,
    /// Counts verified codes.
    pub conversions: ConversionTracker,
    /// Issues receipts; `None` if they are not configured.
    pub receipts: Option<ReceiptIssuer>,
}

impl OtpService {
    /// Has a command decided. Returns its outcome, and the messages of its record if it is a
    /// status.
    async fn decide(
        &self,
        request: CommandRequest,
    ) -> Result<(Outcome, Vec<VersionedMessage>), ServiceError> {
        let key = request.key;
        let reply = self.engine.run(request).await?;
        let refused = |refusal| ServiceError::refused(refusal, key);
        Ok((reply.outcome.map_err(refused)?, reply.messages))
    }

    fn identity(&self, rpc: &str, request_id: Option<&str>, fields: &[&str]) -> RequestFingerprint {
        self.engine
            .keys
            .request_fingerprint(rpc, request_id, fields, &mut os_rng())
    }

    /// Returns the record and the challenge that a selector names; `None` if it names none.
    fn locate(
        &self,
        caller: &Caller,
        subject: &OtpSelector,
    ) -> Option<(RecordKey, ChallengeSelector)> {
        let challenge_id = subject.challenge_id.as_deref();
        if let Some(recipient) = &subject.recipient {
            let keys = &self.engine.keys;
            let key = keys.record_key(&caller.name, recipient, &subject.purpose);
            return Some((key, challenge_selector(key, challenge_id)));
        }
        let id = ChallengeId::parse(challenge_id?)?;
        Some((id.key, ChallengeSelector::Only(id.nonce)))
    }
}

fn permit_purpose(caller: &Caller, purpose: &Purpose) -> Result<(), ServiceError> {
    if caller.permits(purpose) {
        return Ok(());
    }
    Err(ServiceError::PurposeNotAllowed(purpose.clone()))
}

/// Checks the purpose of a selector. A challenge id alone names a record of a purpose that was
/// allowed once.
fn permit_subject(caller: &Caller, subject: &OtpSelector) -> Result<(), ServiceError> {
    match subject.recipient {
        Some(_) => permit_purpose(caller, &subject.purpose),
        None => Ok(()),
    }
}

/// Returns the challenges of the record of `key` that a challenge id in a request matches.
fn challenge_selector(key: RecordKey, challenge_id: Option<&str>) -> ChallengeSelector {
    match challenge_id.map(ChallengeId::parse) {
        None => ChallengeSelector::Newest,
        Some(Some(id)) if id.key == key => ChallengeSelector::Only(id.nonce),
        Some(_) => ChallengeSelector::Foreign,
    }
}
