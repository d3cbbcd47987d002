//! Decides whether some order of calls explains what callers were told: linearizability
//! of a record, by the search of Wing and Gong with the memory of Lowe ("Testing for
//! linearizability", 2017).

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::time::Instant;

use crate::model::{Call, Codes, Model, Moment, Outcome, Settings, Told};

/// A call, and what came of it.
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
    /// What a call without an answer failed with.
    pub failure: String,
}

impl Event {
    /// What was asked and told, in a line.
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

/// What the search found.
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
    /// What was tried before: which events had happened, and what state they left.
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
