//! Load, decide, write if unchanged; and again, where another request was faster.

use std::future::Future;

use rand::Rng as _;
use tokio::time::{Instant, timeout_at};

use super::{OtpService, ServiceError};
use crate::{
    domain::{CallerName, ChallengeState, Decision, Record, RecordKey, Timestamp},
    keys::{SystemRandom, system_random},
    store::{Change, RecordStore as _, Sealed, StoreError, Version, Versioned},
};

/// How often a request that lost its race is decided again. Each loss is another
/// request's success, and a code has few of those to give.
const MAX_TRIES: u32 = 32;

impl OtpService {
    /// Decides by `rule` about the record of `key`, and does what was decided. A
    /// record of another caller is as if there were none.
    pub(super) async fn decide<Answer>(
        &self,
        caller: &CallerName,
        key: RecordKey,
        deadline: Instant,
        rule: impl Fn(Option<Record>, Timestamp, &mut SystemRandom) -> Decision<Answer>,
    ) -> Result<Answer, ServiceError> {
        if !self.availability.answers() {
            return Err(ServiceError::StoreUnavailable);
        }
        let mut random = system_random();
        for _ in 0..MAX_TRIES {
            let mut snapshot = self.in_time(deadline, self.store.load(&[key])).await?;
            let (expected, record) = match snapshot.records.remove(&key) {
                Some(Versioned { version, record }) if record.caller == *caller => {
                    (Some(version), Some(self.open(key, record)))
                }
                _ => (None, None),
            };
            let decision = rule(record, snapshot.clock.now(), &mut random);
            let Some(record) = decision.write else {
                return Ok(decision.answer);
            };
            let nonce = record.challenge.nonce;
            let change = Change {
                key,
                expected,
                version: Version(random.next_u64().cast_signed()),
                removable_at: record.removable_at(self.policies.of(&record.purpose)),
                record: record.map_secret(|secret| {
                    ChallengeState::Live(self.keys.seal(&key, &nonce, &secret, &mut random))
                }),
            };
            match self.in_time(deadline, self.store.write(&[change])).await {
                Ok(written) if written.contains(&key) => return Ok(decision.answer),
                Ok(_) | Err(ServiceError::Overloaded) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ServiceError::Overloaded)
    }

    /// A loaded record with its secret opened. One that does not open was sealed
    /// under a key that is gone, or is not otpd's work: its code is dead.
    fn open(&self, key: RecordKey, record: Record<Sealed>) -> Record {
        let nonce = record.challenge.nonce;
        record.map_secret(|sealed| if let Some(secret) = self.keys.open(&key, &nonce, &sealed) { ChallengeState::Live(secret) } else {
            tracing::error!(
                "[OTP] A code cannot be opened and is lost: its sealing key is not in the key ring"
            );
            ChallengeState::Cancelled
        })
    }

    /// Awaits the store, but not beyond the deadline or the configured time-out.
    async fn in_time<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ServiceError> {
        let deadline = deadline.min(Instant::now() + self.store_timeout);
        match timeout_at(deadline, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(StoreError::Conflict(_))) => Err(ServiceError::Overloaded),
            Ok(Err(StoreError::Unavailable(cause))) => {
                tracing::debug!(%cause, "[OTP] Store did not answer a request");
                self.availability.doubt();
                Err(ServiceError::StoreUnavailable)
            }
            Ok(Err(error)) => Err(ServiceError::Internal(error.to_string())),
            Err(_) => {
                tracing::debug!("[OTP] Store did not answer a request in time");
                self.availability.doubt();
                Err(ServiceError::StoreUnavailable)
            }
        }
    }
}
