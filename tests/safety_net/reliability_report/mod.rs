//! Generates docs/reliability.md: each promise with its tests, and the counts of the long runs.

mod format;
mod mutants;
mod promises;
mod sources;

use std::{collections::BTreeMap, fs};

use serde::Deserialize;

use crate::support::{
    Figures,
    pages::{self, number},
    repository,
};
use format::{
    CAUGHT_HEAD, HEAD, LONG_RUNS, MUTANTS, PROMISES_HEAD, RUNS, RUNS_OF_THE_NET, SEEDED_BUGS, TAIL,
};
use promises::{Caught, Promise, Promises};
use sources::kept;

const PAGE: &str = "docs/reliability.md";
const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test safety_net reliability_report";

/// Test that found a seeded bug, and the time that it needed.
#[derive(Deserialize)]
struct Found {
    seconds: u64,
    found_by: String,
}

#[test]
fn reliability_page_matches_the_results() {
    pages::hold_to(PAGE, COMMAND, &page());
}

#[test]
fn tests_named_by_the_page_exist() {
    let sources: String = ["src", "crates", "tests"]
        .map(|folder| repository::read_below(folder, "rs"))
        .concat();
    let promises = Promises::read();
    let of_promises = promises.all().flat_map(|promise| &promise.tests);
    let missing: Vec<&String> = of_promises
        .chain(promises.caught.iter().map(|caught| &caught.test))
        .filter(|test| !sources.contains(&format!("fn {test}(")))
        .collect();
    assert!(missing.is_empty(), "there is no test {missing:?}");
}

#[test]
fn every_promise_has_a_test() {
    for Promise { what, by, tests } in Promises::read().all() {
        assert!(!by.is_empty() || !tests.is_empty(), "{what}");
    }
}

#[test]
fn every_seeded_bug_was_found_by_the_last_run() {
    let found: Vec<String> = hunted().into_keys().collect();
    let seeded: Vec<String> = seeded().into_keys().collect();
    assert_eq!(found, seeded);
    assert!(found.len() >= 10);
}

/// Returns the seeded bugs found by the last run of scripts/seeded-bugs.
fn hunted() -> BTreeMap<String, Found> {
    kept("seeded_bugs").expect("scripts/seeded-bugs writes it")
}

/// Returns the seeded bugs by name, with a description of each.
fn seeded() -> BTreeMap<String, String> {
    let mut bugs = BTreeMap::new();
    for path in repository::files_below("tests/safety_net/seeded_bugs", "patch") {
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        let text = fs::read_to_string(&path).expect("a patch is text");
        let what = text
            .lines()
            .next()
            .expect("the first line of a patch describes the bug");
        bugs.insert(name.to_owned(), what.to_owned());
    }
    bugs
}

fn page() -> String {
    let mut page = String::from(HEAD);
    let promises = Promises::read();
    for part in &promises.parts {
        page.extend([format!("\n### {}\n\n{PROMISES_HEAD}", part.about)]);
        page.extend(part.promises.iter().map(row));
    }
    page += RUNS;
    page += &runs_of_the_net();
    page.extend(LONG_RUNS.map(|(heading, name)| long_run(heading, name)));
    page += SEEDED_BUGS;
    let found = hunted();
    page.extend(seeded().into_iter().map(|(name, what)| {
        let (by, seconds) = found
            .get(&name)
            .map_or(("not yet", String::new()), |found| {
                let by = match found.found_by.split("::").next() {
                    Some("linearizability") => "the histories",
                    Some("limit_races") => "the races",
                    _ => "the model",
                };
                (by, format!("{} s", found.seconds))
            });
        format!("| {what} | {by} | {seconds} |\n")
    }));
    page += MUTANTS;
    page += &mutants::section();
    page += CAUGHT_HEAD;
    page.extend(promises.caught.into_iter().map(|caught| {
        let Caught {
            fault,
            found_by,
            test,
        } = caught;
        format!("| {fault} | {found_by} | `{test}` |\n")
    }));
    page + TAIL
}

/// Formats the row of a promise: its text, its tests and its last long run.
fn row(promise: &Promise) -> String {
    let Promise { what, by, tests } = promise;
    let sources = by.iter().map(|source| source.name().to_owned());
    let breakers: Vec<String> = sources
        .chain(tests.iter().map(|test| format!("`{test}`")))
        .collect();
    let mut last: Vec<String> = by.iter().map(|source| source.last_run()).collect();
    if last.is_empty() {
        last.push("passes in the gate".to_owned());
    }
    format!(
        "| {what} | {} | {} |\n",
        breakers.join(", "),
        last.join("; ")
    )
}

/// Formats the table of the long runs of the safety net.
fn runs_of_the_net() -> String {
    let runs = RUNS_OF_THE_NET.map(|name| -> Figures {
        kept(name).unwrap_or_else(|| panic!("{name}: scripts/safety-net --long writes it"))
    });
    let mut all: BTreeMap<&str, [Option<u64>; RUNS_OF_THE_NET.len()]> = BTreeMap::new();
    for (column, run) in runs.iter().enumerate() {
        for (what, count) in &run.counts {
            all.entry(what).or_default()[column] = Some(*count);
        }
    }
    let rows = all.into_iter().map(|(what, counts)| {
        let cells = counts.map(|count| count.map_or("–".to_owned(), number));
        format!("| {what} | {} |\n", cells.join(" | "))
    });
    let seconds = runs.each_ref().map(|run| number(run.seconds));
    let seeds = runs.each_ref().map(|run| {
        run.seed
            .expect("each run of the safety net has a seed")
            .to_string()
    });
    rows.chain([
        format!("| seconds | {} |\n", seconds.join(" | ")),
        format!("| seed | {} |\n", seeds.join(" | ")),
    ])
    .collect()
}

/// Formats the section of another long run.
fn long_run(heading: &str, name: &str) -> String {
    let Some(run) = kept::<Figures>(name) else {
        return format!("\n{heading}\n\nNo long run stored.\n");
    };
    let rows = run
        .counts
        .iter()
        .map(|(what, count)| format!("| {what} | {} |\n", number(count)));
    format!(
        "\n{heading}\n\n| | |\n|---|--:|\n{}| seconds | {} |\n",
        rows.collect::<String>(),
        number(run.seconds)
    )
}
