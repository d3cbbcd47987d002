//! Callers of several replicas record requests, replies and times while processes, the
//! database, networks and clocks fail. Some order of the calls must explain every reply under
//! the model.

mod checker;
mod delivery;
mod delivery_log;
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

use otpd_model::{Observed, RecordId};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    dice::Dice,
    long_run,
    support::{Figures, asked},
};
use checker::{Event, Verdict};
use fleet::Fleet;
use nemesis::Faults;
use scenario::Scenario;

/// Number of histories whose search was abandoned. One is allowed, or one in
/// `DECIDED_FOR_EACH_UNDECIDED`.
static UNDECIDED: AtomicU64 = AtomicU64::new(0);
const DECIDED_FOR_EACH_UNDECIDED: u64 = 500;

/// Maximum number of log lines of one replica about one fault of the database: five causes and
/// the end of the outage, twice for a repeated fault.
const MAX_LINES: u64 = 12;

/// Number of recipients with concurrent calls.
const CONCURRENT_SCENARIOS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn history_is_linearizable() {
    let long = asked("SAFETY_NET_CALLS");
    let max_calls: u64 = long.unwrap_or(5_000);
    let faults_every = if long.is_some() { 400 } else { 100 };
    let seed = long_run::seed();
    let mut figures = Figures::new("history", Some(seed));
    let fleet = Arc::new(Fleet::start().await);
    let dice = Dice::new(seed);
    let faults = Mutex::new(Faults::new());
    let mut counts = BTreeMap::new();
    tokio::select! {
        () = nemesis::inject_faults(Arc::clone(&fleet), dice.part(1), faults_every, &faults) => {}
        () = nemesis::pass_time(Arc::clone(&fleet), dice.part(2), 150) => {}
        () = record(&fleet, &dice, max_calls, |calls| calls >= max_calls, &mut counts) => {}
    }
    for (fault, number) in faults.into_inner().expect("lock is not poisoned") {
        figures.count(fault.name(), number);
    }
    write_results(figures, &fleet, counts);
}

/// The database is killed repeatedly, and fails in every other way.
#[tokio::test(flavor = "multi_thread")]
async fn database_faults_lose_no_response_or_code() {
    let long = asked("SAFETY_NET_DATABASE_KILLS");
    let (kills, every) = (long.unwrap_or(2), if long.is_some() { 400 } else { 100 });
    let seed = long_run::seed();
    let fleet = Arc::new(Fleet::start().await);
    let name = if fleet.is_pooled() {
        "pooler"
    } else {
        "database"
    };
    let mut figures = Figures::new(name, Some(seed));
    let dice = Dice::new(seed);
    let mut counts = BTreeMap::new();
    let injected = OnceLock::new();
    let expected_calls = outages::calls(kills, every);
    let inject = async {
        let counts = outages::inject_outages(&fleet, dice.part(1), kills, every).await;
        injected.set(counts).expect("the outages end once");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = inject => {}
        () = nemesis::pass_time(Arc::clone(&fleet), dice.part(2), 150) => {}
        () = record(&fleet, &dice, expected_calls, |_| injected.get().is_some(), &mut counts) => {}
    }
    let mut faults = 0;
    for (what, number) in injected.into_inner().expect("the recording ended after it") {
        figures.count(what, number);
        faults += number;
    }
    let lines = fleet.system_lines.about_the_store.load(Ordering::SeqCst);
    let others = fleet.system_lines.other_errors.load(Ordering::SeqCst);
    figures.count("lines of log about the store, of three replicas", lines);
    figures.count("lines of log with another error", others);
    // An outage may be noticed several times, such as at each of twenty repetitions; but no
    // log has a line for each request.
    let replicas = u64::try_from(fleet::REPLICAS).expect("few");
    let max_lines = replicas * (1 + faults * MAX_LINES);
    assert!(lines <= max_lines, "{lines} lines about {faults} faults");
    assert_eq!(others, 0, "faults of the database cause no other errors");
    write_results(figures, &fleet, counts);
}

/// Stores the counts of a run.
fn write_results(mut figures: Figures, fleet: &Fleet, counts: BTreeMap<&'static str, u64>) {
    let of = |what: &str| counts.get(what).copied().unwrap_or_default();
    let (calls, unanswered) = (of("calls"), of("calls without an answer"));
    let histories = of("histories");
    // Any order explains a history without replies.
    assert!(
        calls <= 4 * (calls - unanswered),
        "{unanswered} of {calls} calls had no reply, so that the history shows nothing"
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
        ("messages handed over", &delivery::SENT),
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

/// Runs scenarios and checks each, until `enough` calls were made, about `max_calls`.
async fn record(
    fleet: &Arc<Fleet>,
    dice: &Dice,
    max_calls: u64,
    enough: impl Fn(u64) -> bool,
    counts: &mut BTreeMap<&'static str, u64>,
) {
    let mut running = JoinSet::new();
    let max_calls = u32::try_from(max_calls).expect("some millions");
    let mut progress = long_run::Progress::new("history: calls".to_owned(), max_calls);
    for number in 0.. {
        let enough = enough(*fleet.calls.borrow());
        while running.len() >= CONCURRENT_SCENARIOS || enough && !running.is_empty() {
            let events: Vec<Event> = running
                .join_next()
                .await
                .expect("a scenario runs")
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            progress.steps(events.len());
            count(&events, counts);
        }
        if enough {
            return;
        }
        let fleet = Arc::clone(fleet);
        let dice = dice.part(1_000 + number);
        running.spawn(async move {
            let start = Instant::now();
            let (record, events) = Scenario::run(Arc::clone(&fleet), number, dice).await;
            check(&fleet, &record, events, start).await
        });
    }
}

/// Checks the calls about one recipient.
async fn check(
    fleet: &Arc<Fleet>,
    record: &RecordId,
    events: Vec<Event>,
    start: Instant,
) -> Vec<Event> {
    let policy = &fleet.settings.policies[record.purpose];
    let fail = |violation: &str| -> ! {
        checker::OVER.store(true, Ordering::SeqCst);
        fleet.stop_postgres();
        let history = format_history(&events, start, &fleet.mail.of(&record.recipient));
        let file = std::env::temp_dir().join("otpd-history.txt");
        // The panic message has the same text.
        let _ = fs::write(file, &history);
        panic!("{violation}\n{history}\n{}", fleet.last_lines())
    };
    if let Err(broken) = invariants::check(&events, policy) {
        fail(&broken);
    }
    if let Err(broken) = delivery::check(fleet, record, &events, start).await {
        fail(&broken);
    }
    let codes = fleet.mail.codes(&record.recipient);
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
                "no order of the calls explains these replies; the longest is\n{}\nwithout\n{}\nall:",
                calls.join("\n"),
                rest.join("\n"),
            ))
        }
        // Too many calls had no reply, so that there are too many orders. It is counted.
        Verdict::Undecided => {
            UNDECIDED.fetch_add(1, Ordering::SeqCst);
        }
    }
    fleet.mail.forget(&record.recipient);
    events
}

fn count(events: &[Event], counts: &mut BTreeMap<&'static str, u64>) {
    *counts.entry("histories").or_default() += 1;
    for event in events {
        *counts.entry("calls").or_default() += 1;
        let kind = match &event.observed {
            None => "calls without an answer",
            Some(Observed::Sent { .. }) => "codes sent",
            Some(Observed::Verdict { .. }) => "verdicts",
            Some(Observed::Refused { .. }) => "refusals",
            Some(Observed::Cancelled { .. }) => "cancellations",
            Some(Observed::Status { .. }) => "statuses",
        };
        *counts.entry(kind).or_default() += 1;
    }
}

/// Formats a history for the message of a failed test.
fn format_history(events: &[Event], start: Instant, mail: &[fleet::Message]) -> String {
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
            event.call.request_id,
            event.call.command,
            event.observed,
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
