//! Linearizability check of a record: decides whether some order of the calls explains
//! all replies, by the search of Wing and Gong with the memory of Lowe ("Testing for
//! linearizability", 2017).

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::time::Instant;

use crate::model::{Call, Codes, Model, Moment, Outcome, Settings, Told};

/// A call with its result.
#[derive(Clone, Debug)]
pub struct Event {
    pub call: Call,
    pub client: usize,
    pub replica: usize,
    pub invoked: Instant,
    /// When its answer came; `None`: it may take effect at any time, or never.
    pub returned: Option<Instant>,
    /// When, by the store's clock, it may have been decided.
    pub decided: Moment,
    pub told: Option<Told>,
    /// Error of a call without a reply.
    pub failure: String,
}

impl Event {
    /// Formats the request and the reply in one line.
    pub fn brief(&self) -> String {
        let Self {
            call,
            decided,
            told,
            ..
        } = self;
        format!("{:?} {:?} {decided:?} {told:?}", call.id, call.ask)
    }
}

/// Result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Explained,
    /// There is none. Those calls stand in the longest one that was found, in their order.
    Violated(Vec<usize>),
    /// The search was given up.
    Undecided,
}

/// More states than this are not visited; no history has come near it.
const MOST_VISITED: usize = 300_000;

/// Whether a violation was found, and other searches may be given up.
pub static OVER: AtomicBool = AtomicBool::new(false);
/// The most states that a search has visited so far.
pub static LARGEST: AtomicU64 = AtomicU64::new(0);

/// Searches for an order of `events`, of which there may be 64, that starts from nothing
/// and in which the rules allow every answer.
pub fn check(events: &[Event], settings: &Settings, codes: &Codes) -> Verdict {
    assert!(events.len() <= 64, "a set of events is one word");
    let mut search = Search {
        events,
        settings,
        codes,
        answered: (0..events.len())
            .filter(|&index| events[index].told.is_some())
            .fold(0, |set, index| set | 1 << index),
        visited: HashSet::new(),
        order: Vec::new(),
        longest: Vec::new(),
    };
    let explained = search.explains(0, &Model::default());
    let visited = u64::try_from(search.visited.len()).expect("a word");
    LARGEST.fetch_max(visited, Ordering::SeqCst);
    if explained {
        Verdict::Explained
    } else if !search.given_up() {
        Verdict::Violated(search.longest)
    } else {
        Verdict::Undecided
    }
}

struct Search<'a> {
    events: &'a [Event],
    settings: &'a Settings,
    codes: &'a Codes,
    /// The events that must be in the order.
    answered: u64,
    /// Visited states of the search: the events that had happened, and the resulting state.
    visited: HashSet<(u64, Model)>,
    order: Vec<usize>,
    longest: Vec<usize>,
}

impl Search<'_> {
    fn given_up(&self) -> bool {
        self.visited.len() >= MOST_VISITED || OVER.load(Ordering::SeqCst)
    }

    /// Whether all answers that are still to come can follow from `state`.
    fn explains(&mut self, done: u64, state: &Model) -> bool {
        if done & self.answered == self.answered {
            return true;
        }
        let mut choices = Vec::new();
        for index in self.possible_next(done) {
            let event = &self.events[index];
            let after = state.after(
                self.settings,
                self.codes,
                &event.call,
                event.decided,
                event.told.as_ref(),
            );
            if is_passive(event) && after.contains(state) {
                // It fits here and changes nothing, so an order that has it later would
                // do as well with it here: there is no need for another choice.
                choices = vec![(index, state.clone())];
                break;
            }
            for after in after {
                // A call without an answer that changes nothing need not have happened.
                if event.told.is_some() || after != *state {
                    choices.push((index, after));
                }
            }
        }
        for (index, state) in choices {
            if self.given_up() {
                return false;
            }
            let done = done | 1 << index;
            if !self.visited.insert((done, state.clone())) {
                continue;
            }
            self.order.push(index);
            if self.order.len() > self.longest.len() {
                self.longest.clone_from(&self.order);
            }
            if self.explains(done, &state) {
                return true;
            }
            self.order.pop();
        }
        false
    }

    /// The events that may come next: nothing that began after another one had ended can
    /// have happened before it. Those with an answer come first, in the order of their
    /// ends, which is mostly right.
    fn possible_next(&self, done: u64) -> Vec<usize> {
        let open = (0..self.events.len()).filter(|index| done & 1 << index == 0);
        let first_end = open
            .clone()
            .filter_map(|index| self.events[index].returned)
            .min();
        let mut next: Vec<usize> = open
            .filter(|&index| first_end.is_none_or(|end| self.events[index].invoked <= end))
            .collect();
        next.sort_by_key(|&index| {
            let returned = self.events[index].returned;
            (returned.is_none(), returned)
        });
        next
    }
}

/// Whether an answer is one of those that come without a change.
fn is_passive(event: &Event) -> bool {
    match &event.told {
        Some(Told::Verdict { outcome, .. }) => {
            !matches!(outcome, Outcome::Verified | Outcome::WrongCode)
        }
        Some(Told::Cancelled { cancelled, reset }) => !cancelled && !reset,
        Some(Told::Status { .. } | Told::Refused { .. }) => true,
        Some(Told::Sent { .. }) | None => false,
    }
}

#[test]
fn checker_accepts_exactly_linearizable_histories() {
    use crate::{model::Ask, model::Name, settings};

    let settings = settings::settings(true);
    let codes = Codes::from([("one".to_owned(), "123456".to_owned())]);
    let start = Instant::now();
    let at = |milliseconds| start + std::time::Duration::from_millis(milliseconds);
    let event = |from, to, ask: &Ask, told: &Told| Event {
        call: Call {
            name: Name {
                caller: settings::CRM,
                purpose: settings::DEFAULT,
                recipient: "a@example.com".to_owned(),
            },
            id: None,
            ask: ask.clone(),
        },
        client: 0,
        replica: 0,
        invoked: at(from),
        returned: Some(at(to)),
        decided: Moment {
            earliest: 1_000_000,
            latest: 1_001_000,
        },
        told: Some(told.clone()),
        failure: String::new(),
    };
    let send = Ask::Send {
        wording: 0,
        network: None,
    };
    let new_code = Told::Sent {
        challenge: "one".to_owned(),
        expires_at: 1_300_500,
        resend_at: 1_060_500,
        resent: false,
        code: String::new(),
    };
    let verify = Ask::Verify {
        typed: "123456".to_owned(),
        challenge: None,
        network: None,
    };
    let verdict = |outcome, challenge: &str, verified_at| Told::Verdict {
        outcome,
        remaining: 0,
        challenge: challenge.to_owned(),
        verified_at,
    };
    let verified = verdict(Outcome::Verified, "one", Some(1_000_600));
    let not_found = verdict(Outcome::NotFound, "", None);
    let judge = |events: &[Event]| check(events, &settings, &codes);

    // One that began before the send had ended may have come first.
    let early = event(0, 9, &verify, &not_found);
    let sending = event(1, 5, &send, &new_code);
    let right = event(6, 9, &verify, &verified);
    let after = event(6, 9, &verify, &not_found);
    let all = [early, sending.clone(), right.clone(), after.clone()];
    assert_eq!(judge(&all), Verdict::Explained);
    // An unverified code is found.
    assert!(matches!(
        judge(&[sending.clone(), after]),
        Verdict::Violated(_)
    ));
    // None is verified twice, and none before it was sent.
    let twice = [sending.clone(), right.clone(), right.clone()];
    assert!(matches!(judge(&twice), Verdict::Violated(_)));
    let late_send = event(10, 12, &send, &new_code);
    assert!(matches!(
        judge(&[late_send, right.clone()]),
        Verdict::Violated(_)
    ));
    // A send without an answer explains a verdict.
    let lost = Event {
        returned: None,
        told: None,
        ..sending
    };
    assert_eq!(judge(&[lost, right]), Verdict::Explained);
}
