//! Opens and seals the record of a command.

use super::{BatchError, CommandRequest};
use crate::{
    keys::{KeyRing, OpenError, SystemRandom},
    store::{MessageWrite, RowVersion, SealedBytes},
};
use otpd_base::log_targets::AUDIT;
use otpd_rules::{ChallengeState, OutboxMessage, Record, Timestamp};

impl CommandRequest {
    /// Opens the record, if it is of this caller and purpose. A record that was altered in
    /// the database counts as absent, so that nothing of it is shown or checked.
    ///
    /// # Errors
    /// [`BatchError::SealingKeyMissing`] if the code does not open and has not expired: another
    /// replica may have its sealing key, so nothing may be decided about it here. Once it has
    /// expired, that makes no difference.
    pub(super) fn open(
        &self,
        keys: &KeyRing,
        record: &Record<SealedBytes>,
        now: Timestamp,
    ) -> Result<Option<Record>, BatchError> {
        let opened = match keys.open_record(&self.key, record.clone()) {
            Ok(opened) => opened,
            Err(OpenError::Unreadable) if record.is_dead(record.challenge.nonce, now) => {
                record.clone().map_secret(|_| ChallengeState::Cancelled)
            }
            Err(OpenError::Unreadable) => {
                tracing::error!(
                    "[OTP] A code cannot be opened: its sealing key is not in the key ring"
                );
                return Err(BatchError::SealingKeyMissing);
            }
            Err(OpenError::Altered) => {
                log_altered_record(record);
                return Ok(None);
            }
        };
        let is_callers = record.caller == self.caller.name;
        match &self.purpose {
            None => Ok(is_callers.then_some(opened)),
            Some(purpose) if is_callers && record.purpose == *purpose => Ok(Some(opened)),
            // The key was computed for this caller and purpose, so its record has both.
            Some(_) => {
                log_altered_record(record);
                Ok(None)
            }
        }
    }

    /// Seals a record, and returns it with the earliest instant at which a purge may remove it.
    pub(super) fn seal(
        &self,
        keys: &KeyRing,
        record: Record,
        random: &mut SystemRandom,
    ) -> (Record<SealedBytes>, Timestamp) {
        let nonce = record.challenge.nonce;
        let removable_at = record.purge_at(self.caller.policies.of(&record.purpose));
        let record = record.map_secret(|secret| {
            ChallengeState::Live(keys.seal(&self.key, &nonce, &secret, random))
        });
        (record, removable_at)
    }

    /// Seals a new message.
    pub(super) fn seal_message(
        &self,
        keys: &KeyRing,
        message: OutboxMessage,
        version: RowVersion,
        random: &mut SystemRandom,
    ) -> MessageWrite {
        MessageWrite {
            key: self.key,
            expected: None,
            version,
            message: keys.seal_message(&self.key, message, random),
        }
    }
}

fn log_altered_record(record: &Record<SealedBytes>) {
    tracing::error!(
        target: AUDIT,
        caller = %record.caller,
        purpose = %record.purpose,
        "[OTP AUDIT] Record ignored: it was altered in the database"
    );
}
