//! Observed replies.

use std::collections::BTreeSet;

use crate::Outcome;

/// Reply of the code under test. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Reply of `SendOtp`.
    Sent {
        /// Challenge id.
        challenge: String,
        /// Time at which the code expires.
        expires_at: i64,
        /// Time of the next allowed send.
        resend_at: i64,
        /// True if it is the same code again.
        resent: bool,
        /// The code; empty unless the caller delivers it itself.
        code: String,
    },
    /// Reply of `VerifyOtp`.
    Verdict {
        /// Outcome.
        outcome: Outcome,
        /// Number of attempts that are left.
        remaining: u32,
        /// Challenge id; empty if there is no code.
        challenge: String,
        /// Time of a successful verification.
        verified_at: Option<i64>,
        /// Receipt of a successful verification: its time, and the numbers of the channels that
        /// it names.
        receipt: Option<(i64, BTreeSet<u8>)>,
    },
    /// Reply of `CancelOtp`.
    Cancelled {
        /// True if a live code was cancelled.
        cancelled: bool,
        /// True if failed attempts were reset.
        reset: bool,
    },
    /// Reply of `GetOtpStatus`.
    Status {
        /// Challenge id, expiry and remaining attempts of the live code.
        live: Option<(String, i64, u32)>,
        /// Time of the next allowed send.
        resend_at: Option<i64>,
        /// End of the lockout.
        blocked_until: Option<i64>,
    },
    /// Refusal by the rules.
    Refused {
        /// Reason.
        reason: String,
        /// Exceeded limit.
        limit: Option<String>,
        /// Time until the request may succeed, in milliseconds.
        wait: Option<i64>,
        /// Challenge id and expiry of the live code.
        live: Option<(String, i64)>,
    },
}

impl Observed {
    /// Returns true if a first reply of this kind changes the record. Any other reply
    /// leaves it unchanged.
    pub fn is_change(&self) -> bool {
        match self {
            Self::Sent { .. } => true,
            Self::Verdict { outcome, .. } => {
                matches!(outcome, Outcome::Verified | Outcome::WrongCode)
            }
            Self::Cancelled { cancelled, reset } => *cancelled || *reset,
            Self::Status { .. } | Self::Refused { .. } => false,
        }
    }
}
