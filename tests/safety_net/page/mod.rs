//! docs/reliability.md: every promise beside what tries to break it, and the figures that
//! the runs themselves wrote.

mod promises;
mod words;

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf};

use serde::Deserialize;

use crate::figures::Figures;
use promises::{CAUGHT, HISTORY, PROMISES, STATEFUL};
use words::{CAUGHT_HEAD, HEAD, PLANTED, RUNS, TAIL};

const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test safety_net page";

/// How many runs the page is made of.
const RUN_COUNT: usize = 4;

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
    let runs = [
        "stateful_postgres",
        "stateful_sqlite",
        "history",
        "database",
    ];
    let runs: [Figures; RUN_COUNT] = runs.map(figures);
    let [postgres, sqlite, history, database] = &runs;
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
            let sequences = postgres.counted("sequences") + sqlite.counted("sequences");
            last.push(format!("{} sequences, no difference", number(sequences)));
        }
        if *by_history {
            let calls = number(history.counted("calls") + database.counted("calls"));
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
    let mut all: BTreeMap<&str, [Option<u64>; RUN_COUNT]> = BTreeMap::new();
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
