//! The rules of a code, as the design states them, in their shortest executable form.
//! Written apart from `crates/otpd-rules` and from nothing but the design: no optimisation, no
//! storage, one record after the other in a map.
//!
//! The model is told what it cannot know: when a call was decided ([`Moment`]), and the
//! random choices of the server, which are the names and the digits of codes.

mod policy;
mod record;
mod time;
mod types;

use std::collections::{BTreeMap, HashMap};

pub use policy::{Caller, DAY, HOUR, Policy, Settings};
pub use record::Record;
pub use time::{Doubt, Moment};
pub use types::{Ask, Call, Name, Outcome, Reply, Told};

/// The digits of challenges, by name, as far as they were delivered.
pub type Codes = HashMap<String, String>;

/// The rates that records share, of a caller and a client's network: what is counted,
/// and when the burst will be full again.
pub type Limits = BTreeMap<(usize, &'static str, String), Moment>;

/// All state of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Model {
    records: BTreeMap<Name, Record>,
    limits: Limits,
}

/// Context of the decision about a call.
pub struct Case<'a> {
    pub policy: &'a Policy,
    pub call: &'a Call,
    pub now: Moment,
    /// When it may have paid the limits that records share: under races also before it
    /// was decided for the last time.
    pub paid: Moment,
    pub codes: &'a Codes,
    pub doubt: &'a mut Doubt,
    pub clock_steps_back: bool,
}

impl Model {
    /// The states that there may be after `call` was decided at `now` and answered as
    /// `told`; none, if the rules do not allow that answer. Without an answer every
    /// outcome is possible.
    pub fn after(
        &self,
        settings: &Settings,
        codes: &Codes,
        call: &Call,
        now: Moment,
        told: Option<&Told>,
    ) -> Vec<Self> {
        // A resend repeats the code.
        if let Some(Told::Sent {
            challenge, code, ..
        }) = told
            && !code.is_empty()
            && codes.get(challenge).is_some_and(|known| known != code)
        {
            return Vec::new();
        }
        // Under races a limit that records share may for a moment be poorer than any order
        // explains: one that is refused in the end gives back what it took. Who sees it
        // meanwhile is refused, and nothing is changed.
        if settings.concurrent
            && let Some(Told::Refused {
                limit: Some(limit), ..
            }) = told
            && limit.starts_with("ip_")
        {
            return vec![self.clone()];
        }
        let policy = &settings.policies[call.name.purpose];
        // Some replies contain the time of their decision.
        let decided_at = match told {
            Some(Told::Sent { resend_at, .. }) => Some(resend_at - policy.resend_after),
            Some(Told::Verdict { verified_at, .. }) => *verified_at,
            _ => None,
        };
        if let Some(at) = decided_at.filter(|&at| now.contains(at)) {
            let states = self.after_decision(settings, codes, call, (Moment::exact(at), now), told);
            if !states.is_empty() {
                return states;
            }
            // A replayed reply contains an older instant.
        }
        self.after_decision(settings, codes, call, (now, now), told)
    }

    /// Likewise for a call that was made in the second instant, and decided in the first.
    fn after_decision(
        &self,
        settings: &Settings,
        codes: &Codes,
        call: &Call,
        (now, called): (Moment, Moment),
        told: Option<&Told>,
    ) -> Vec<Self> {
        let paid = Moment {
            earliest: if settings.concurrent {
                called.earliest
            } else {
                now.earliest
            },
            ..now
        };
        let mut states = Vec::new();
        for (mut state, reply) in Doubt::every_way(|doubt| {
            let mut state = self.clone();
            if let (Some(told), Some(record)) = (told, state.records.get_mut(&call.name)) {
                record.learn(told, doubt);
            }
            let mut reply = state.answer(settings, codes, call, (now, paid), doubt);
            if let Reply::Sent { code, .. } = &mut reply {
                *code &= settings.callers[call.name.caller].delivers;
            }
            (state, reply)
        }) {
            let explained = told.is_none_or(|told| {
                reply.is_told_by(told, |challenge, name| {
                    // Every reply that names a challenge is about this record.
                    let record = state.records.get_mut(&call.name);
                    record.is_some_and(|record| record.is_named(challenge, name))
                })
            });
            if explained && !states.contains(&state) {
                states.push(state);
            }
        }
        states
    }

    /// Returns the reply to a call under one choice of the unknowns.
    fn answer(
        &mut self,
        settings: &Settings,
        codes: &Codes,
        call: &Call,
        (now, paid): (Moment, Moment),
        doubt: &mut Doubt,
    ) -> Reply {
        let caller = &settings.callers[call.name.caller];
        let policy = &settings.policies[call.name.purpose];
        let by_challenge = match call.ask {
            Ask::Cancel { by_challenge, .. } | Ask::Status { by_challenge, .. } => by_challenge,
            _ => false,
        };
        if !caller.known {
            return Reply::refused("CALLER_UNKNOWN");
        }
        if let Ask::Verify { typed, .. } = &call.ask
            && !typed.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Reply::refused("CODE_MALFORMED");
        }
        if !by_challenge && !caller.purposes.contains(&call.name.purpose) {
            return Reply::refused("PURPOSE_NOT_ALLOWED");
        }
        match &call.ask {
            Ask::Verify {
                challenge: None, ..
            } if policy.require_challenge_id => {
                return Reply::refused("REQUEST_INVALID");
            }
            Ask::Cancel { reset: true, .. } if !caller.may_reset_failures => {
                return Reply::refused("RESET_NOT_ALLOWED");
            }
            _ => {}
        }
        let mut case = Case {
            policy,
            call,
            now,
            paid,
            codes,
            doubt,
            clock_steps_back: !settings.concurrent,
        };
        let record = self.records.get_mut(&call.name);
        if let Some(record) = record {
            return record.answer(&mut case, &mut self.limits);
        }
        match call.ask {
            Ask::Send { .. } => match Record::first(&mut case, &mut self.limits) {
                Ok((record, reply)) => {
                    self.records.insert(call.name.clone(), record);
                    reply
                }
                Err(refusal) => refusal,
            },
            Ask::Verify { .. } => record::verdict(Outcome::NotFound, None),
            Ask::Cancel { .. } => record::NOTHING_CANCELLED,
            Ask::Status { .. } => record::NOTHING_KNOWN,
        }
    }

    /// The record that holds a challenge of this name, for tests that look for one.
    pub fn record(&self, name: &Name) -> Option<&Record> {
        self.records.get(name)
    }
}
