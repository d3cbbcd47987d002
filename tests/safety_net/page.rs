//! docs/reliability.md: every promise beside what tries to break it, and the figures that
//! the runs themselves wrote.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf};

use serde::Deserialize;

use crate::figures::Figures;

const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test safety_net page";

const STATEFUL: &[&str] = &[
    "every_answer_on_postgres_is_the_models",
    "every_answer_on_sqlite_is_the_models",
];
const HISTORY: &str = "some_order_of_calls_explains_every_answer";

/// What is promised, and the tests that try to break it besides the safety net; `true`
/// where that also covers it by model, by history.
const PROMISES: &[(&str, bool, bool, &[&str])] = &[
    (
        "All state is in the shared store: any number of replicas behave as one",
        true,
        true,
        &["a_thousand_codes_sent_on_one_replica_are_verified_on_another"],
    ),
    (
        "A code comes from the system's random source, every value equally likely",
        false,
        false,
        &[
            "a_million_codes_are_unbiased",
            "words_that_would_favour_low_codes_are_drawn_again",
        ],
    ),
    (
        "It works once: of simultaneous right answers exactly one verifies",
        true,
        true,
        &["of_many_right_answers_one_verifies"],
    ),
    (
        "Exactly `max_attempts` answers are judged per code, and the right one as the last is accepted",
        true,
        true,
        &[
            "of_many_wrong_answers_five_are_judged",
            "the_right_code_is_accepted_as_the_fifth_answer",
        ],
    ),
    (
        "A resend repeats the code, and extends neither its life nor its attempts",
        true,
        true,
        &[
            "codes_live_and_die_by_the_rules_on_postgres",
            "codes_live_and_die_by_the_rules_on_sqlite",
        ],
    ),
    (
        "Sending again too soon is refused with the exact wait",
        true,
        true,
        &["the_cool_down_ends_and_a_code_is_replaced_to_the_millisecond"],
    ),
    (
        "Wrong answers count across codes: each further wait is twice as long, and in the end the record is shut",
        true,
        true,
        &[
            "every_fifth_wrong_answer_delays_the_next_twice_as_long",
            "from_the_hundredth_on_the_record_is_shut_for_thirty_days",
        ],
    ),
    (
        "A limit is never exceeded, over all replicas, and a refused request leaves none poorer",
        true,
        true,
        &[
            "a_limit_is_never_exceeded_and_its_waits_are_exact",
            "waits_limits_and_memory_hold_together",
        ],
    ),
    (
        "The same request gets its first answer again; the same id with other fields is refused",
        true,
        true,
        &["the_same_request_is_recalled_for_as_long_as_promised"],
    ),
    (
        "A writer that lost its acknowledgement recognises its own write",
        false,
        true,
        &[],
    ),
    (
        "No decision uses a replica's wall clock",
        true,
        true,
        &["the_wall_clock_of_one_process_is_moved"],
    ),
    (
        "After a step back of the store's clock a code is dead, and waits last at most their own length",
        true,
        false,
        &["after_a_step_back_of_the_clock_the_wait_is_told_once_by_any_request"],
    ),
    (
        "Sweeping changes no answer",
        true,
        true,
        &[
            "only_what_no_answer_depends_on_is_swept_on_postgres",
            "only_what_no_answer_depends_on_is_swept_on_sqlite",
        ],
    ),
    (
        "A recipient is one however it is written, and so is a code",
        true,
        false,
        &[
            "every_form_of_the_corpus_is_read_right",
            "every_decimal_digit_of_unicode_is_read",
        ],
    ),
    (
        "A code for one purpose, or of one caller, is unknown to every other",
        true,
        false,
        &[
            "purposes_have_codes_and_policies_of_their_own_on_postgres",
            "record_keys_differ_in_each_field_and_by_the_key",
        ],
    ),
    (
        "The sealing key rotates without a code being lost",
        true,
        false,
        &["the_first_sealing_key_seals_and_all_of_them_open"],
    ),
    (
        "A send that was acknowledged has a message",
        false,
        true,
        &[],
    ),
    (
        "No message goes out of a code that is known to be dead",
        false,
        true,
        &[],
    ),
    (
        "A stolen database or log shows no code and no recipient",
        false,
        false,
        &[
            "a_dump_and_a_text_log_show_no_code_and_no_recipient",
            "an_sqlite_file_and_a_json_log_show_no_code_and_no_recipient",
        ],
    ),
    (
        "A database that fails is told at once, and used again when it is back",
        false,
        true,
        &[
            "a_database_that_hangs_is_told_and_found_again",
            "after_a_restart_no_request_needs_more_than_one_retry",
        ],
    ),
    (
        "What runs at SIGTERM is finished, and nothing holds up the end",
        true,
        false,
        &[
            "what_runs_at_sigterm_is_finished",
            "a_probe_that_hangs_does_not_hold_up_the_end",
        ],
    ),
];

/// Faults of otpd that the net found, and what holds them off now.
const CAUGHT: &[(&str, &str, &str)] = &[
    (
        "A replica hung at SIGTERM, for ever, where a sweep or a probe was running: its connection was never given back, and closing the store waited for it.",
        "the model's sequences, at a rotation of keys under frequent sweeps",
        "a_probe_that_hangs_does_not_hold_up_the_end",
    ),
    (
        "A request that paid a shared limit, lost its race and was then refused gave back more than was still taken, so that others could exceed the limit.",
        "the histories, by their count of sends per client network, when time passed during a call",
        "what_was_refilled_meanwhile_is_not_given_back_as_well",
    ),
];

/// How a planted bug was found.
#[derive(Deserialize)]
struct Found {
    seconds: u64,
    found_by: String,
}

#[test]
fn the_page_is_made_of_the_figures() {
    let path = root().join("docs/reliability.md");
    let page = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).expect("docs/reliability.md can be written");
        return;
    }
    let committed = fs::read_to_string(&path).expect("docs/reliability.md is there");
    assert!(
        page == committed,
        "docs/reliability.md is not what the figures say; to rewrite it: {COMMAND}\n\n{page}"
    );
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut sources = String::new();
    for directory in ["src", "tests"] {
        read_all(&root().join(directory), &mut sources);
    }
    let of_promises = PROMISES.iter().flat_map(|(_, _, _, tests)| tests.iter());
    let all = of_promises.chain(STATEFUL).chain([&HISTORY]);
    for test in all.chain(CAUGHT.iter().map(|(_, _, test)| test)) {
        let by_hand = sources.contains(&format!("fn {test}("));
        // Tests on both stores are named by a macro.
        let of_both = sources.contains(&format!(
            "fn {}",
            test.rsplit_once("_on_").unwrap_or((test, "")).0
        ));
        assert!(by_hand || of_both, "there is no test {test}");
    }
}

#[test]
fn every_planted_bug_was_found_by_the_last_hunt() {
    let found: BTreeMap<String, Found> = figures("planted");
    assert_eq!(
        found.keys().cloned().collect::<Vec<_>>(),
        planted().into_keys().collect::<Vec<_>>()
    );
    assert!(found.len() >= 10);
}

fn read_all(directory: &std::path::Path, text: &mut String) {
    for entry in fs::read_dir(directory).expect("the sources are there") {
        let path = entry.expect("the sources are there").path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &fs::read_to_string(path).expect("the sources are text");
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What the last run of that name wrote.
fn figures<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let file = root().join(format!("tests/safety_net/figures_of_last_run/{name}.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; scripts/safety-net --long writes it",
            file.display()
        )
    });
    serde_json::from_str(&text).expect("a run wrote it")
}

/// The planted bugs, with what each is.
fn planted() -> BTreeMap<String, String> {
    let directory = root().join("tests/safety_net/planted");
    let mut bugs = BTreeMap::new();
    for file in fs::read_dir(directory).expect("the patches are there") {
        let path = file.expect("it can be read").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        let text = fs::read_to_string(&path).expect("a patch is text");
        let what = text.lines().next().expect("a patch says what it does");
        bugs.insert(name.to_owned(), what.to_owned());
    }
    bugs
}

fn page() -> String {
    let runs: Vec<Figures> = ["stateful_postgres", "stateful_sqlite", "history"]
        .map(figures)
        .into();
    let [postgres, sqlite, history] = &runs[..] else {
        unreachable!("three were read")
    };
    let mut page = String::from(HEAD);
    let mut line = |text: String| {
        page += &text;
        page.push('\n');
    };
    for (promise, by_model, by_history, tests) in PROMISES {
        let mut breakers = Vec::new();
        if *by_model {
            breakers.push("the model".to_owned());
        }
        if *by_history {
            breakers.push("the histories".to_owned());
        }
        breakers.extend(tests.iter().map(|test| format!("`{test}`")));
        let mut last = Vec::new();
        if *by_model {
            let sequences = count(postgres, "sequences") + count(sqlite, "sequences");
            last.push(format!("{} sequences, no difference", number(sequences)));
        }
        if *by_history {
            let calls = number(count(history, "calls"));
            last.push(format!("{calls} calls, no violation"));
        }
        if last.is_empty() {
            last.push("green in the gate".to_owned());
        }
        line(format!(
            "| {promise} | {} | {} |",
            breakers.join(", "),
            last.join("; ")
        ));
    }
    line(RUNS.to_owned());
    let mut all: BTreeMap<&str, [Option<u64>; 3]> = BTreeMap::new();
    for (column, run) in runs.iter().enumerate() {
        for (what, count) in &run.counts {
            all.entry(what).or_default()[column] = Some(*count);
        }
    }
    for (what, counts) in all {
        let cells = counts.map(|count| count.map_or("–".to_owned(), number));
        line(format!("| {what} | {} |", cells.join(" | ")));
    }
    let cells: Vec<String> = runs.iter().map(|run| number(run.seconds)).collect();
    line(format!("| seconds | {} |", cells.join(" | ")));
    let cells: Vec<String> = runs.iter().map(|run| run.seed.to_string()).collect();
    line(format!("| seed | {} |", cells.join(" | ")));
    line(PLANTED.to_owned());
    let found: BTreeMap<String, Found> = figures("planted");
    for (name, what) in planted() {
        let (by, seconds) = found
            .get(&name)
            .map_or(("not yet", String::new()), |found| {
                let by = match found.found_by.split("::").next() {
                    Some("history") => "the histories",
                    _ => "the model",
                };
                (by, format!("{} s", found.seconds))
            });
        line(format!("| {what} | {by} | {seconds} |"));
    }
    line(CAUGHT_HEAD.to_owned());
    for (what, by, test) in CAUGHT {
        line(format!("| {what} | {by} | `{test}` |"));
    }
    write!(page, "{TAIL}").expect("a string takes all");
    page
}

fn count(run: &Figures, what: &str) -> u64 {
    run.counts.get(what).copied().unwrap_or_default()
}

/// A whole number as people read it.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

const HEAD: &str = "\
# What is promised, and what tries to break it

<!-- Written by UPDATE_DOCS=1 cargo test --test safety_net page, from the figures in
tests/safety_net/figures_of_last_run, which scripts/safety-net --long writes. -->

Two things stand behind most promises of otpd, and both know the rules from a **model**
(`tests/safety_net/model`), written apart from the code that serves, from the design
alone, and half as long:

- **The model's sequences**: server and model are driven by the same random commands
  (sends, right, wrong and late answers, cancellations, statuses, repeated requests,
  several callers, purposes, replicas and client networks, moves of the clock forward and
  back, rotation of the sealing key), on PostgreSQL and on SQLite, with a clock that
  stands still until it is moved. Every reply is compared, to the millisecond. A
  difference is shortened to its shortest sequence and kept in
  `tests/safety_net/regressions`.
- **The histories**: callers of three replicas write down what they asked, when, and what
  they were told, while replicas are killed and paused, PostgreSQL crashes, connections on
  both sides of a replica are cut, slow, held back and half-open, and wall clocks jump. A
  checker then looks for an order of the calls that explains every answer under the
  model (linearizability; a call without an answer may have happened or not). Beside it
  stand counts that need no search: one verification per code, no more wrong verdicts
  than allowed, no limit exceeded, a message for each send that was acknowledged, none of
  a dead code.

A short form of both is part of the gate. The long form is one command, which takes the
seed of a run to be repeated from `SAFETY_NET_SEED`, and writes this page:

```sh
scripts/safety-net --long
```

| promise | what tries to break it | last long run |
|---|---|---|
";

const RUNS: &str = "
## The last long run

| | model, PostgreSQL | model, SQLite | histories |
|---|--:|--:|--:|";

const PLANTED: &str = "
## The net is checked as well

A net that finds nothing may have holes. So bugs are planted: each is a patch in
`tests/safety_net/planted`, applied to a copy of the source, and the short form must find
it. `scripts/planted-bugs` does that for all of them, or for those that it is given.

| planted bug | found by | after |
|---|---|--:|";

const CAUGHT_HEAD: &str = "
## What the net caught

Faults that were in otpd, found by the net, and mended; each has a test of its own now.

| fault | found by | held off by |
|---|---|---|";

const TAIL: &str = "
## What it does not show

- A crash of PostgreSQL is one of its processes, not of the machine: that a commit is on
  the disk is PostgreSQL's own promise, and the test's database lies in memory.
- Histories run on PostgreSQL. On SQLite replicas share one file and one machine; there
  the model's sequences run, and the races in the gate.
- A limit that several recipients share may refuse a request that an instant later would
  have passed: one that takes its share and is then refused gives it back. The checker
  bears with such refusals, and counts that enough calls came before.
- A call that was never answered may have happened or not. The checker tries both, and so
  holds less against such a call than against others.
- A send whose first answer was lost, and is told again, may have no message: a replica
  hands it over after the commit.
";
