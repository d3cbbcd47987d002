//! Development log, a provider for tests by hand. It shows the code to all its readers.

use super::OutgoingMessage;
use otpd_base::log_targets::CODE;

/// Writes the log line of a message.
pub fn deliver(message: &OutgoingMessage<'_>) {
    // No other place may log a code with its recipient.
    tracing::info!(
        target: CODE,
        challenge_id = %message.challenge_id,
        recipient = %message.recipient.as_str(),
        "[OTP] Generated OTP: {}",
        message.code.expose(),
    );
}
