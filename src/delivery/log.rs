//! The development log: whoever can read it has the code.

use super::OutgoingMessage;
use crate::log_targets::CODE;

/// Writes the line of a message.
pub fn deliver(envelope: &OutgoingMessage<'_>) {
    // The one place where a code and its recipient may be logged.
    tracing::info!(
        target: CODE,
        challenge_id = %envelope.challenge_id,
        recipient = %envelope.recipient.as_str(),
        "[OTP] Generated OTP: {}",
        envelope.code.expose(),
    );
}
