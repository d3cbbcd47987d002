//! Requests, observed replies and expected replies.

use super::time::Moment;

/// Whose codes a call is about: an index into the settings' callers and purposes, and a
/// recipient in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub caller: usize,
    pub purpose: usize,
    pub recipient: String,
}

/// One call of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub name: Name,
    /// The `request_id`, if any.
    pub id: Option<String>,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Send {
        /// Stands for all fields that the answer does not depend on otherwise.
        wording: u8,
        network: Option<String>,
    },
    Verify {
        typed: String,
        challenge: Option<String>,
        network: Option<String>,
    },
    Cancel {
        challenge: Option<String>,
        reset: bool,
        /// Whether the challenge alone selects the code.
        by_challenge: bool,
    },
    Status {
        challenge: Option<String>,
        by_challenge: bool,
    },
}

/// A reply of the server, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Sent {
        challenge: String,
        expires_at: i64,
        resend_at: i64,
        resent: bool,
        code: String,
    },
    Verdict {
        outcome: Outcome,
        remaining: u32,
        challenge: String,
        verified_at: Option<i64>,
    },
    Cancelled {
        cancelled: bool,
        reset: bool,
    },
    Status {
        live: Option<(String, i64, u32)>,
        resend_at: Option<i64>,
        blocked_until: Option<i64>,
    },
    Refused {
        reason: String,
        limit: Option<String>,
        wait: Option<i64>,
        live: Option<(String, i64)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Verified,
    WrongCode,
    Expired,
    AttemptsExhausted,
    NotFound,
}

/// A reply of the model. It tells challenges apart by their number within the record,
/// because their names are the server's choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Sent {
        challenge: usize,
        expires_at: Moment,
        resend_at: Moment,
        resent: bool,
        /// Whether a self-delivering caller receives the code.
        code: bool,
    },
    Verdict {
        outcome: Outcome,
        remaining: u32,
        challenge: Option<usize>,
        verified_at: Option<Moment>,
    },
    Cancelled {
        cancelled: bool,
        reset: bool,
    },
    Status {
        live: Option<(usize, Moment, u32)>,
        resend_at: Option<Moment>,
        blocked_until: Option<Moment>,
    },
    Refused {
        reason: &'static str,
        limit: Option<&'static str>,
        wait: Option<Moment>,
        live: Option<(usize, Moment)>,
    },
}

impl Reply {
    pub const fn refused(reason: &'static str) -> Self {
        Self::Refused {
            reason,
            limit: None,
            wait: None,
            live: None,
        }
    }

    pub const fn wait(reason: &'static str, wait: Moment) -> Self {
        Self::Refused {
            reason,
            limit: None,
            wait: Some(wait),
            live: None,
        }
    }

    /// Whether it is what the server told. `named` holds a challenge of the model to
    /// its name, or gives it that one where it has none.
    pub fn is_told_by(&self, told: &Told, mut named: impl FnMut(usize, &str) -> bool) -> bool {
        match (self, told) {
            (
                Self::Sent {
                    challenge,
                    expires_at,
                    resend_at,
                    resent,
                    code,
                },
                Told::Sent {
                    challenge: name,
                    expires_at: dies,
                    resend_at: next,
                    resent: again,
                    code: digits,
                },
            ) => {
                expires_at.contains(*dies)
                    && resend_at.contains(*next)
                    && resent == again
                    && *code != digits.is_empty()
                    && named(*challenge, name)
            }
            (
                Self::Verdict {
                    outcome,
                    remaining,
                    challenge,
                    verified_at,
                },
                Told::Verdict {
                    outcome: told,
                    remaining: left,
                    challenge: name,
                    verified_at: then,
                },
            ) => {
                outcome == told
                    && remaining == left
                    && at(*verified_at, *then)
                    && challenge.map_or(name.is_empty(), |challenge| named(challenge, name))
            }
            (
                Self::Cancelled { cancelled, reset },
                Told::Cancelled {
                    cancelled: ended,
                    reset: forgot,
                },
            ) => cancelled == ended && reset == forgot,
            (
                Self::Status {
                    live,
                    resend_at,
                    blocked_until,
                },
                Told::Status {
                    live: other,
                    resend_at: next,
                    blocked_until: until,
                },
            ) => {
                let lives = match (live, other) {
                    (None, None) => true,
                    (Some((number, dies, left)), Some((name, told, remaining))) => {
                        dies.contains(*told) && left == remaining && named(*number, name)
                    }
                    _ => false,
                };
                lives && at(*resend_at, *next) && at(*blocked_until, *until)
            }
            (
                Self::Refused {
                    reason,
                    limit,
                    wait,
                    live,
                },
                Told::Refused {
                    reason: told,
                    limit: which,
                    wait: pause,
                    live: other,
                },
            ) => {
                let lives = match (live, other) {
                    (None, None) => true,
                    (Some((number, dies)), Some((name, told))) => {
                        dies.contains(*told) && named(*number, name)
                    }
                    _ => false,
                };
                *reason == told && *limit == which.as_deref() && at(*wait, *pause) && lives
            }
            _ => false,
        }
    }
}

/// Checks that the returned instant is one that the model allows, or that none was returned.
fn at(moment: Option<Moment>, told: Option<i64>) -> bool {
    match (moment, told) {
        (None, None) => true,
        (Some(moment), Some(told)) => moment.contains(told),
        _ => false,
    }
}
