//! Callers of several replicas record requests, replies and times while processes,
//! database, networks and clocks fail. Some order of the calls must explain every reply
//! under the model.

mod checker;
mod delivery;
mod delivery_log;
mod dice;
mod fleet;
mod invariants;
mod nemesis;
mod outages;
mod scenario;
mod wall_clock;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    long_run,
    model::{Name, Told},
    support::{Figures, asked},
};
use checker::{Event, Verdict};
use dice::Dice;
use fleet::Fleet;
use nemesis::Faults;
use scenario::Scenario;

/// Histories whose search was given up, and how many of them are borne with: one, or one
/// in so many.
static UNDECIDED: AtomicU64 = AtomicU64::new(0);
const DECIDED_FOR_EACH_UNDECIDED: u64 = 500;

/// How many lines each replica writes about one fault of the database at most: five
/// causes and the end of an outage, and that several times where it strikes over and over.
const MOST_LINES: u64 = 12;

/// Number of recipients with concurrent calls.
const AT_ONCE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn history_is_linearizable() {
    let long = asked("SAFETY_NET_CALLS");
    let most_calls: u64 = long.unwrap_or(5_000);
    let faults_every = if long.is_some() { 400 } else { 100 };
    let seed = long_run::seed();
    let mut figures = Figures::new("history", Some(seed));
    let fleet = Arc::new(Fleet::start().await);
    let dice = Dice::new(seed);
    let faults = Mutex::new(Faults::new());
    let mut counts = BTreeMap::new();
    tokio::select! {
        () = nemesis::rage(Arc::clone(&fleet), dice.part(1), faults_every, &faults) => {}
        () = nemesis::pass_time(Arc::clone(&fleet), dice.part(2), 150) => {}
        () = record(&fleet, &dice, most_calls, |calls| calls >= most_calls, &mut counts) => {}
    }
    for (fault, number) in faults.into_inner().expect("lock is not poisoned") {
        figures.count(fault.name(), number);
    }
    write_down(figures, &fleet, counts);
}

/// The database is killed, over and over, and fails in every other way.
#[tokio::test(flavor = "multi_thread")]
async fn database_faults_lose_no_response_or_code() {
    let long = asked("SAFETY_NET_DATABASE_KILLS");
    let (kills, every) = (long.unwrap_or(2), if long.is_some() { 400 } else { 100 });
    let seed = long_run::seed();
    let mut figures = Figures::new("database", Some(seed));
    let fleet = Arc::new(Fleet::start().await);
    let dice = Dice::new(seed);
    let mut counts = BTreeMap::new();
    let over = OnceLock::new();
    let about = outages::calls(kills, every);
    let befall = async {
        let befallen = outages::befall(&fleet, dice.part(1), kills, every).await;
        over.set(befallen).expect("it is over once");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = befall => {}
        () = nemesis::pass_time(Arc::clone(&fleet), dice.part(2), 150) => {}
        () = record(&fleet, &dice, about, |_| over.get().is_some(), &mut counts) => {}
    }
    let mut faults = 0;
    for (what, number) in over.into_inner().expect("the recording ended after it") {
        figures.count(what, number);
        faults += number;
    }
    let lines = fleet.remarks.about_the_store.load(Ordering::SeqCst);
    let others = fleet.remarks.other_errors.load(Ordering::SeqCst);
    figures.count("lines of log about the store, of three replicas", lines);
    figures.count("lines of log with another error", others);
    // An outage may be noticed several times, such as at each of twenty blows; but no
    // log has a line for each request.
    let replicas = u64::try_from(fleet::REPLICAS).expect("few");
    let most = replicas * (1 + faults * MOST_LINES);
    assert!(lines <= most, "{lines} lines about {faults} faults");
    assert_eq!(
        others, 0,
        "an error of otpd's own is no fault of the database"
    );
    write_down(figures, &fleet, counts);
}

/// Stores the counts of a run.
fn write_down(mut figures: Figures, fleet: &Fleet, counts: BTreeMap<&'static str, u64>) {
    let of = |what: &str| counts.get(what).copied().unwrap_or_default();
    let (calls, silent) = (of("calls"), of("calls without an answer"));
    let histories = of("histories");
    // Everything explains a history without answers.
    assert!(
        calls <= 4 * (calls - silent),
        "{silent} of {calls} calls had no answer: that shows nothing"
    );
    for (what, number) in counts {
        figures.count(what, number);
    }
    let undecided = UNDECIDED.load(Ordering::SeqCst);
    figures.count("histories with too many orders to search", undecided);
    let jumps = fleet.clock.jumps.load(Ordering::SeqCst);
    let largest = checker::LARGEST.load(Ordering::SeqCst);
    figures.count("states in the largest search", largest);
    for (what, number) in [
        ("messages handed over", &delivery::HANDED_OVER),
        (
            "messages dropped, because their code died first",
            &delivery::DROPPED,
        ),
    ] {
        figures.count(what, number.load(Ordering::SeqCst));
    }
    figures.count("jumps of the store's clock", jumps);
    assert!(undecided <= 1 + histories / DECIDED_FOR_EACH_UNDECIDED);
    figures.write();
}

/// Has scenarios run and judges each, until `enough` calls were made: about `most_calls`.
async fn record(
    fleet: &Arc<Fleet>,
    dice: &Dice,
    most_calls: u64,
    enough: impl Fn(u64) -> bool,
    counts: &mut BTreeMap<&'static str, u64>,
) {
    let mut running = JoinSet::new();
    let most_calls = u32::try_from(most_calls).expect("some millions");
    let mut progress = long_run::Progress::new("history: calls".to_owned(), most_calls);
    for number in 0.. {
        let enough = enough(*fleet.calls.borrow());
        while running.len() >= AT_ONCE || enough && !running.is_empty() {
            let judged: Vec<Event> = running
                .join_next()
                .await
                .expect("one runs")
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            progress.steps(judged.len());
            count(&judged, counts);
        }
        if enough {
            return;
        }
        let fleet = Arc::clone(fleet);
        let dice = dice.part(1_000 + number);
        running.spawn(async move {
            let start = Instant::now();
            let (name, events) = Scenario::play(Arc::clone(&fleet), number, dice).await;
            judge(&fleet, &name, events, start).await
        });
    }
}

/// Judges the calls about one recipient.
async fn judge(fleet: &Arc<Fleet>, name: &Name, events: Vec<Event>, start: Instant) -> Vec<Event> {
    let policy = &fleet.settings.policies[name.purpose];
    let fail = |what: &str| -> ! {
        checker::OVER.store(true, Ordering::SeqCst);
        fleet.give_up();
        let history = written(&events, start, &fleet.mail.of(&name.recipient));
        let file = std::env::temp_dir().join("otpd-history.txt");
        // The message says all as well.
        let _ = fs::write(file, &history);
        panic!("{what}\n{history}\n{}", fleet.last_lines())
    };
    if let Err(broken) = invariants::check(&events, policy) {
        fail(&broken);
    }
    if let Err(broken) = delivery::check(fleet, name, &events, start).await {
        fail(&broken);
    }
    let codes = fleet.mail.codes(&name.recipient);
    let settings = &fleet.settings;
    match tokio::task::block_in_place(|| checker::check(&events, settings, &codes)) {
        Verdict::Explained => {}
        Verdict::Violated(longest) => {
            let calls: Vec<String> = longest.iter().map(|&index| events[index].brief()).collect();
            let rest: Vec<String> = (0..events.len())
                .filter(|index| !longest.contains(index))
                .map(|index| events[index].brief())
                .collect();
            fail(&format!(
                "no order of calls explains these answers; the longest is\n{}\nwithout\n{}\nall:",
                calls.join("\n"),
                rest.join("\n"),
            ))
        }
        // So many calls were lost that there are too many orders. It is counted.
        Verdict::Undecided => {
            UNDECIDED.fetch_add(1, Ordering::SeqCst);
        }
    }
    fleet.mail.forget(&name.recipient);
    events
}

fn count(events: &[Event], counts: &mut BTreeMap<&'static str, u64>) {
    *counts.entry("histories").or_default() += 1;
    for event in events {
        *counts.entry("calls").or_default() += 1;
        let what = match &event.told {
            None => "calls without an answer",
            Some(Told::Sent { .. }) => "codes sent",
            Some(Told::Verdict { .. }) => "verdicts",
            Some(Told::Refused { .. }) => "refusals",
            Some(Told::Cancelled { .. }) => "cancellations",
            Some(Told::Status { .. }) => "statuses",
        };
        *counts.entry(what).or_default() += 1;
    }
}

/// A history for people.
fn written(events: &[Event], start: Instant, mail: &[fleet::Message]) -> String {
    let mut text = String::new();
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by_key(|event| event.invoked);
    for event in events {
        let at = |instant: Instant| (instant - start).as_millis();
        let end = event
            .returned
            .map_or("…".to_owned(), |end| at(end).to_string());
        writeln!(
            text,
            "{}–{end} ms, {:?}, caller {}, replica {}: {:?} {:?}\n    {:?} {}",
            at(event.invoked),
            event.decided,
            event.client,
            event.replica,
            event.call.id,
            event.call.ask,
            event.told,
            event.failure,
        )
        .expect("writing to a string cannot fail");
    }
    for message in mail {
        writeln!(
            text,
            "{} ms: {message:?}",
            (message.seen - start).as_millis()
        )
        .expect("writing to a string cannot fail");
    }
    text
}
