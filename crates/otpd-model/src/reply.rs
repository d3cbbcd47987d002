//! Replies of the model, and their comparison with observed ones.

use std::collections::BTreeSet;

use crate::{Observed, Outcome, TimeRange};

/// Reply of the model. Challenges are numbered within their record, because their ids are
/// the server's choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Reply of `SendOtp`.
    Sent {
        /// Number of the challenge.
        challenge: usize,
        /// Time at which the code expires.
        expires_at: TimeRange,
        /// Time of the next allowed send.
        resend_at: TimeRange,
        /// True if it is the same code again.
        resent: bool,
        /// True if a self-delivering caller receives the code.
        code: bool,
    },
    /// Reply of `VerifyOtp`.
    Verdict {
        /// Outcome.
        outcome: Outcome,
        /// Number of attempts that are left.
        remaining: u32,
        /// Number of the challenge.
        challenge: Option<usize>,
        /// Time of a successful verification.
        verified_at: Option<TimeRange>,
        /// Receipt of a successful verification: its time, and the numbers of the channels that
        /// it names.
        receipt: Option<(TimeRange, BTreeSet<u8>)>,
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
        /// Number, expiry and remaining attempts of the live challenge.
        live: Option<(usize, TimeRange, u32)>,
        /// Time of the next allowed send.
        resend_at: Option<TimeRange>,
        /// End of the lockout.
        blocked_until: Option<TimeRange>,
    },
    /// Refusal.
    Refused {
        /// Reason.
        reason: &'static str,
        /// Exceeded limit.
        limit: Option<&'static str>,
        /// Time until the request may succeed, in milliseconds.
        wait: Option<TimeRange>,
        /// Number and expiry of the live challenge.
        live: Option<(usize, TimeRange)>,
    },
}

impl Reply {
    pub(crate) const fn refused(reason: &'static str) -> Self {
        Self::Refused {
            reason,
            limit: None,
            wait: None,
            live: None,
        }
    }

    pub(crate) const fn wait(reason: &'static str, wait: TimeRange) -> Self {
        Self::Refused {
            reason,
            limit: None,
            wait: Some(wait),
            live: None,
        }
    }

    /// Returns true if it is the observed reply. `is_same` compares a challenge with an id,
    /// and gives it that id if it has none.
    pub(crate) fn matches(
        &self,
        observed: &Observed,
        mut is_same: impl FnMut(usize, &str) -> bool,
    ) -> bool {
        match (self, observed) {
            (
                Self::Sent {
                    challenge,
                    expires_at,
                    resend_at,
                    resent,
                    code,
                },
                Observed::Sent {
                    challenge: id,
                    expires_at: seen_expires_at,
                    resend_at: seen_resend_at,
                    resent: seen_resent,
                    code: digits,
                },
            ) => {
                expires_at.contains(*seen_expires_at)
                    && resend_at.contains(*seen_resend_at)
                    && resent == seen_resent
                    && *code != digits.is_empty()
                    && is_same(*challenge, id)
            }
            (
                Self::Verdict {
                    outcome,
                    remaining,
                    challenge,
                    verified_at,
                    receipt,
                },
                Observed::Verdict {
                    outcome: seen_outcome,
                    remaining: seen_remaining,
                    challenge: id,
                    verified_at: seen_verified_at,
                    receipt: seen_receipt,
                },
            ) => {
                outcome == seen_outcome
                    && remaining == seen_remaining
                    && is_in(*verified_at, *seen_verified_at)
                    && is_receipt_same(receipt.as_ref(), seen_receipt.as_ref())
                    && challenge.map_or(id.is_empty(), |challenge| is_same(challenge, id))
            }
            (
                Self::Cancelled { cancelled, reset },
                Observed::Cancelled {
                    cancelled: seen_cancelled,
                    reset: seen_reset,
                },
            ) => cancelled == seen_cancelled && reset == seen_reset,
            (
                Self::Status {
                    live,
                    resend_at,
                    blocked_until,
                },
                Observed::Status {
                    live: seen_live,
                    resend_at: seen_resend_at,
                    blocked_until: seen_blocked_until,
                },
            ) => {
                let is_remaining_same =
                    live.map(|(.., left)| left) == seen_live.as_ref().map(|(.., left)| *left);
                let live = live.map(|(challenge, expires_at, _)| (challenge, expires_at));
                let seen_live = seen_live.as_ref().map(|(id, at, _)| (id.as_str(), *at));
                is_remaining_same
                    && is_live_same(live, seen_live, is_same)
                    && is_in(*resend_at, *seen_resend_at)
                    && is_in(*blocked_until, *seen_blocked_until)
            }
            (
                Self::Refused {
                    reason,
                    limit,
                    wait,
                    live,
                },
                Observed::Refused {
                    reason: seen_reason,
                    limit: seen_limit,
                    wait: seen_wait,
                    live: seen_live,
                },
            ) => {
                let seen_live = seen_live.as_ref().map(|(id, at)| (id.as_str(), *at));
                *reason == seen_reason
                    && *limit == seen_limit.as_deref()
                    && is_in(*wait, *seen_wait)
                    && is_live_same(*live, seen_live, is_same)
            }
            _ => false,
        }
    }
}

/// Returns true if the live challenges of two replies are the same, or if neither has one.
fn is_live_same(
    live: Option<(usize, TimeRange)>,
    observed: Option<(&str, i64)>,
    mut is_same: impl FnMut(usize, &str) -> bool,
) -> bool {
    match (live, observed) {
        (None, None) => true,
        (Some((challenge, expires_at)), Some((id, at))) => {
            expires_at.contains(at) && is_same(challenge, id)
        }
        _ => false,
    }
}

/// Returns true if two replies have the same receipt, or if neither has one.
fn is_receipt_same(
    receipt: Option<&(TimeRange, BTreeSet<u8>)>,
    observed: Option<&(i64, BTreeSet<u8>)>,
) -> bool {
    match (receipt, observed) {
        (None, None) => true,
        (Some((at, channels)), Some((seen_at, seen_channels))) => {
            at.contains(*seen_at) && channels == seen_channels
        }
        _ => false,
    }
}

/// Returns true if an observed time is one that the model allows, or if neither has a time.
fn is_in(range: Option<TimeRange>, observed: Option<i64>) -> bool {
    match (range, observed) {
        (None, None) => true,
        (Some(range), Some(observed)) => range.contains(observed),
        _ => false,
    }
}
