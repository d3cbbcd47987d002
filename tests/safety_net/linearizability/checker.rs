//! Linearizability check of the calls about one record: decides if some order of the calls
//! explains all replies, by the search of Wing and Gong with the memory of Lowe ("Testing
//! for linearizability", 2017).

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use otpd_model::{Call, Codes, Model, Observed, Settings, TimeRange};
use tokio::time::Instant;

/// A call with its result.
#[derive(Clone, Debug)]
pub struct Event {
    pub call: Call,
    pub client: usize,
    pub replica: usize,
    pub invoked: Instant,
    /// Time of the reply; `None` if there was none: the call may take effect at any time, or
    /// never.
    pub returned: Option<Instant>,
    /// Possible times of the decision, by the store's clock.
    pub decided: TimeRange,
    pub observed: Option<Observed>,
    /// Error of a call without a reply.
    pub failure: String,
}

impl Event {
    /// Formats the request and the reply in one line.
    pub fn brief(&self) -> String {
        let Self {
            call,
            decided,
            observed,
            ..
        } = self;
        format!(
            "{:?} {:?} {decided:?} {observed:?}",
            call.request_id, call.command
        )
    }
}

/// Result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Explained,
    /// There is none. The calls of the longest explained order, in that order.
    Violated(Vec<usize>),
    /// The search was abandoned.
    Undecided,
}

/// Maximum number of visited states; no history has come near it.
const MAX_VISITED: usize = 300_000;

/// True once a violation was found, so that other searches stop.
pub static OVER: AtomicBool = AtomicBool::new(false);
/// Largest number of states that a search has visited so far.
pub static LARGEST: AtomicU64 = AtomicU64::new(0);

/// Searches for an order of at most 64 `events` in which the rules allow every reply. It
/// starts from an empty model.
pub fn check(events: &[Event], settings: &Settings, codes: &Codes) -> Verdict {
    assert!(events.len() <= 64, "a set of events is one word");
    let mut search = Search {
        events,
        settings,
        codes,
        answered: (0..events.len())
            .filter(|&index| events[index].observed.is_some())
            .fold(0, |set, index| set | 1 << index),
        visited: HashSet::new(),
        order: Vec::new(),
        longest: Vec::new(),
    };
    let is_explained = search.explains(0, &Model::default());
    let visited = u64::try_from(search.visited.len()).expect("a word");
    LARGEST.fetch_max(visited, Ordering::SeqCst);
    if is_explained {
        Verdict::Explained
    } else if !search.is_abandoned() {
        Verdict::Violated(search.longest)
    } else {
        Verdict::Undecided
    }
}

struct Search<'a> {
    events: &'a [Event],
    settings: &'a Settings,
    codes: &'a Codes,
    /// Set of the events that must be in the order.
    answered: u64,
    /// Visited states of the search: the set of ordered events, and the resulting state.
    visited: HashSet<(u64, Model)>,
    order: Vec<usize>,
    longest: Vec<usize>,
}

impl Search<'_> {
    fn is_abandoned(&self) -> bool {
        self.visited.len() >= MAX_VISITED || OVER.load(Ordering::SeqCst)
    }

    /// Returns true if all other replies can follow from `state`.
    fn explains(&mut self, done: u64, state: &Model) -> bool {
        if done & self.answered == self.answered {
            return true;
        }
        let mut choices = Vec::new();
        for index in self.possible_next(done) {
            let event = &self.events[index];
            let after = state.successors(
                self.settings,
                self.codes,
                &event.call,
                event.decided,
                event.observed.as_ref(),
            );
            if is_passive(event) && after.contains(state) {
                // The event fits here and changes nothing. Any order that has it later is also
                // valid with it here, so that no other choice needs to be tried.
                choices = vec![(index, state.clone())];
                break;
            }
            for after in after {
                // A call without a reply that changes nothing may be left out.
                if event.observed.is_some() || after != *state {
                    choices.push((index, after));
                }
            }
        }
        for (index, state) in choices {
            if self.is_abandoned() {
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

    /// Returns the events that may come next: a call that began after another one had ended
    /// cannot come before it. Calls with a reply are first, in the order of their replies,
    /// which is mostly the right one.
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

/// Returns true if the reply of an event is one that changes nothing.
fn is_passive(event: &Event) -> bool {
    event
        .observed
        .as_ref()
        .is_some_and(|reply| !reply.is_change())
}

#[test]
fn checker_accepts_exactly_linearizable_histories() {
    use crate::settings;
    use otpd_model::{Command, Outcome, RecordId};

    let settings = settings::settings(true);
    let codes = Codes::from([("one".to_owned(), "123456".to_owned())]);
    let start = Instant::now();
    let at = |milliseconds| start + std::time::Duration::from_millis(milliseconds);
    let event = |from, to, command: &Command, observed: &Observed| Event {
        call: Call {
            record: RecordId {
                caller: settings::CRM,
                purpose: settings::DEFAULT,
                recipient: "a@example.com".to_owned(),
            },
            request_id: None,
            command: command.clone(),
        },
        client: 0,
        replica: 0,
        invoked: at(from),
        returned: Some(at(to)),
        decided: TimeRange {
            earliest: 1_000_000,
            latest: 1_001_000,
        },
        observed: Some(observed.clone()),
        failure: String::new(),
    };
    let send = Command::Send {
        content: 0,
        channel: 0,
        network: None,
    };
    let new_code = Observed::Sent {
        challenge: "one".to_owned(),
        expires_at: 1_300_500,
        resend_at: 1_060_500,
        resent: false,
        code: String::new(),
    };
    let verify = Command::Verify {
        code: "123456".to_owned(),
        challenge: None,
        network: None,
        receipt: None,
    };
    let verdict = |outcome, challenge: &str, verified_at| Observed::Verdict {
        outcome,
        remaining: 0,
        challenge: challenge.to_owned(),
        verified_at,
        receipt: None,
    };
    let verified = verdict(Outcome::Verified, "one", Some(1_000_600));
    let not_found = verdict(Outcome::NotFound, "", None);
    let judge = |events: &[Event]| check(events, &settings, &codes);

    // A call that began before the send had ended may come first.
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
    // No code is verified twice, or before it was sent.
    let twice = [sending.clone(), right.clone(), right.clone()];
    assert!(matches!(judge(&twice), Verdict::Violated(_)));
    let late_send = event(10, 12, &send, &new_code);
    assert!(matches!(
        judge(&[late_send, right.clone()]),
        Verdict::Violated(_)
    ));
    // A send without a reply explains a verdict.
    let lost = Event {
        returned: None,
        observed: None,
        ..sending
    };
    assert_eq!(judge(&[lost, right]), Verdict::Explained);
}
