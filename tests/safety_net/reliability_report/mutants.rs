//! Results of scripts/mutants for the tests of the rules and of the engine.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;

use super::sources::kept;
use crate::support::{pages::number, repository};

/// What became of the changes to one part of otpd.
#[derive(Deserialize)]
struct Changed {
    changes: u64,
    noticed: u64,
    endless: u64,
    not_compiling: u64,
    explained: u64,
    unexplained: u64,
}

/// The section's tables.
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
    let explained = fs::read_to_string(explained).expect("it is kept");
    let reasons = explained.lines().skip(1).map(|line| {
        let (change, reason) = line.split_once('\t').expect("a change and its reason");
        // A bar would end the cell, in code as well.
        format!("| `{}` | {reason} |\n", change.replace('|', "\\|"))
    });
    format!(
        "| part | changes | do not compile | noticed | made an endless loop | change nothing | not noticed |\n\
         |---|--:|--:|--:|--:|--:|--:|\n{}\n\
         | change that changes nothing | why |\n|---|---|\n{}",
        rows.collect::<String>(),
        reasons.collect::<String>()
    )
}
