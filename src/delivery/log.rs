//! The development log: whoever can read it has the code.

use super::Envelope;

/// Writes the message into the log; the one place where a code and its recipient may
/// stand there.
pub(super) fn deliver(envelope: &Envelope<'_>) {
    tracing::info!(
        challenge_id = %envelope.challenge_id,
        recipient = %envelope.recipient.as_str(),
        "[OTP] Generated OTP: {}",
        envelope.code.expose(),
    );
}
