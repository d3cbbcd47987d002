//! Results of scripts/mutants: mutation testing of the rules and of the engine.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;

use super::sources::kept;
use crate::support::{pages::number, repository};

/// Numbers of the mutants of one part of otpd, by result.
#[derive(Deserialize)]
struct Changed {
    changes: u64,
    noticed: u64,
    endless: u64,
    not_compiling: u64,
    explained: u64,
    unexplained: u64,
}

/// Formats the tables of the section.
pub fn section() -> String {
    let parts: BTreeMap<String, Changed> = kept("mutants").expect("scripts/mutants writes it");
    let rows = parts.into_iter().map(|(part, changed)| {
        let Changed {
            changes,
            noticed,
            endless,
            not_compiling,
            explained,
            unexplained,
        } = changed;
        let counts = [
            changes,
            not_compiling,
            noticed,
            endless,
            explained,
            unexplained,
        ];
        format!("| {part} | {} |\n", counts.map(number).join(" | "))
    });
    let explained = repository::path("tests/mutants/explained.tsv");
    let explained = fs::read_to_string(explained).expect("the file is in the repository");
    let reasons = explained.lines().skip(1).map(|line| {
        let (change, reason) = line.split_once('\t').expect("a change and its reason");
        // A bar ends the cell, also inside code.
        format!("| `{}` | {reason} |\n", change.replace('|', "\\|"))
    });
    format!(
        "| part | mutants | do not compile | detected | timed out | equivalent | undetected |\n\
         |---|--:|--:|--:|--:|--:|--:|\n{}\n\
         | equivalent mutant | reason |\n|---|---|\n{}",
        rows.collect::<String>(),
        reasons.collect::<String>()
    )
}
