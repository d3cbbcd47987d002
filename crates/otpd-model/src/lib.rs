//! Model of the rules of one-time passwords: the oracle of all tests that compare replies.
//!
//! It was written separately from `otpd-rules`, from the design alone, in the shortest
//! executable form: no optimisation, no storage, all records in one map.
//!
//! Two inputs are unknown to a model: the time at which the server decided about a call
//! ([`TimeRange`]), and the random values that it drew (ids and digits of codes). The
//! observed reply contains part of them; every other possibility is tried
//! ([`Nondeterminism`]).

mod context;
mod observed;
mod policy;
mod record;
mod reply;
mod time;
mod types;
mod window;

use std::collections::{BTreeMap, HashMap};

pub use context::Context;
pub use observed::Observed;
pub use policy::{Caller, DAY, HOUR, Policy, SECOND, Settings};
pub use record::Record;
pub use reply::Reply;
pub use time::{Nondeterminism, TimeRange};
pub use types::{Call, Command, Outcome, RecordId};
pub use window::check_window;

/// Digits of delivered codes, by challenge id.
pub type Codes = HashMap<String, String>;

/// State of the rate limits that records share, by caller, limit and client network: the
/// time at which the burst is full again.
pub type SharedLimits = BTreeMap<(usize, &'static str, String), TimeRange>;

/// State of the whole service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Model {
    records: BTreeMap<RecordId, Record>,
    limits: SharedLimits,
}

impl Model {
    /// Returns the states that are possible after `call` was decided at `now` and answered
    /// by `observed`; none if the rules do not allow that reply. Without a reply (`None`)
    /// every outcome is possible.
    pub fn successors(
        &self,
        settings: &Settings,
        codes: &Codes,
        call: &Call,
        now: TimeRange,
        observed: Option<&Observed>,
    ) -> Vec<Self> {
        // A resend repeats the code.
        if let Some(Observed::Sent {
            challenge, code, ..
        }) = observed
            && !code.is_empty()
            && codes.get(challenge).is_some_and(|known| known != code)
        {
            return Vec::new();
        }
        // Under races a shared limit may for a moment have less room than any order of the
        // calls explains, because a request that is refused in the end refunds its charge.
        // A request that meets the limit in that moment is refused and changes nothing.
        if settings.concurrent
            && let Some(Observed::Refused {
                limit: Some(limit), ..
            }) = observed
            && limit.starts_with("ip_")
        {
            return vec![self.clone()];
        }
        let policy = &settings.policies[call.record.purpose];
        // Some replies contain the time of their decision.
        let decided_at = match observed {
            Some(Observed::Sent { resend_at, .. }) => Some(resend_at - policy.resend_after),
            Some(Observed::Verdict { verified_at, .. }) => *verified_at,
            _ => None,
        };
        if let Some(at) = decided_at.filter(|&at| now.contains(at)) {
            let decided = (TimeRange::exact(at), now);
            let states = self.successors_at(settings, codes, call, decided, observed);
            if !states.is_empty() {
                return states;
            }
            // The time in a replayed reply is older.
        }
        self.successors_at(settings, codes, call, (now, now), observed)
    }

    /// Returns the reply to `call` at `now`, if nothing is unknown: all challenges have an
    /// id and a code, and all earlier times were exact.
    pub fn reply(&self, settings: &Settings, codes: &Codes, call: &Call, now: i64) -> Reply {
        let now = TimeRange::exact(now);
        let mut replies = Nondeterminism::explore(|choices| {
            self.clone()
                .decide(settings, codes, call, (now, now), choices)
        });
        assert_eq!(replies.len(), 1, "the reply is not determined: {replies:?}");
        replies.remove(0)
    }

    /// Like [`successors`](Self::successors), for a call that was made in the second time
    /// range and decided in the first.
    fn successors_at(
        &self,
        settings: &Settings,
        codes: &Codes,
        call: &Call,
        (now, called): (TimeRange, TimeRange),
        observed: Option<&Observed>,
    ) -> Vec<Self> {
        let charged = TimeRange {
            earliest: if settings.concurrent {
                called.earliest
            } else {
                now.earliest
            },
            ..now
        };
        let mut states = Vec::new();
        for (mut state, reply) in Nondeterminism::explore(|choices| {
            let mut state = self.clone();
            if let (Some(observed), Some(record)) = (observed, state.records.get_mut(&call.record))
            {
                record.assume_newest(observed, choices);
            }
            let mut reply = state.decide(settings, codes, call, (now, charged), choices);
            if let Reply::Sent { code, .. } = &mut reply {
                *code &= settings.callers[call.record.caller].self_delivery;
            }
            (state, reply)
        }) {
            let is_explained = observed.is_none_or(|observed| {
                reply.matches(observed, |challenge, id| {
                    // Every reply with a challenge id is about this record.
                    let record = state.records.get_mut(&call.record);
                    record.is_some_and(|record| record.bind_challenge(challenge, id))
                })
            });
            if is_explained && !states.contains(&state) {
                states.push(state);
            }
        }
        states
    }

    /// Returns the reply to a call under one combination of choices, and applies its
    /// effects.
    fn decide(
        &mut self,
        settings: &Settings,
        codes: &Codes,
        call: &Call,
        (now, charged): (TimeRange, TimeRange),
        choices: &mut Nondeterminism,
    ) -> Reply {
        let caller = &settings.callers[call.record.caller];
        let policy = &settings.policies[call.record.purpose];
        let by_challenge = match call.command {
            Command::Cancel { by_challenge, .. } | Command::Status { by_challenge, .. } => {
                by_challenge
            }
            _ => false,
        };
        if !caller.is_configured {
            return Reply::refused("CALLER_UNKNOWN");
        }
        if let Command::Verify { code, .. } = &call.command
            && !code.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Reply::refused("CODE_MALFORMED");
        }
        if !by_challenge && !caller.purposes.contains(&call.record.purpose) {
            return Reply::refused("PURPOSE_NOT_ALLOWED");
        }
        match &call.command {
            Command::Verify {
                challenge: None, ..
            } if policy.require_challenge_id => {
                return Reply::refused("REQUEST_INVALID");
            }
            Command::Verify {
                receipt: Some(_), ..
            } if !caller.receipts => {
                return Reply::refused("REQUEST_INVALID");
            }
            Command::Cancel {
                reset_failures: true,
                ..
            } if !caller.may_reset_failures => {
                return Reply::refused("RESET_NOT_ALLOWED");
            }
            _ => {}
        }
        let mut context = Context {
            policy,
            call,
            now,
            charged,
            codes,
            choices,
            may_step_back: !settings.concurrent,
        };
        let record = self.records.get_mut(&call.record);
        if let Some(record) = record {
            return record.decide(&mut context, &mut self.limits);
        }
        match call.command {
            Command::Send { .. } => match Record::first(&mut context, &mut self.limits) {
                Ok((record, reply)) => {
                    self.records.insert(call.record.clone(), record);
                    reply
                }
                Err(refusal) => refusal,
            },
            Command::Verify { .. } => record::verdict(Outcome::NotFound, None),
            Command::Cancel { .. } => record::NOTHING_CANCELLED,
            Command::Status { .. } => record::EMPTY_STATUS,
        }
    }

    /// Returns a record, for tests that look at its state.
    pub fn record(&self, id: &RecordId) -> Option<&Record> {
        self.records.get(id)
    }

    /// Returns the state of the shared limits.
    pub fn limits(&self) -> &SharedLimits {
        &self.limits
    }
}
