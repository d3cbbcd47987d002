//! Tables of docs/guessing.md, generated from the simulation.

use std::{fmt::Write as _, time::Duration};

pub use crate::support::pages::number;
use crate::support::{pages, repository};

const PAGE: &str = "docs/guessing.md";
const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test integration guessing";

/// A Markdown table.
#[derive(Debug)]
pub struct Table(String);

impl Table {
    pub fn new(head: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(head.iter().map(|&cell| cell.to_owned()));
        let rule = format!("|---{}|", "|--:".repeat(head.len() - 1));
        table.0.push_str(&rule);
        table.0.push('\n');
        table
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        for cell in cells {
            write!(self.0, "| {cell} ").expect("writing to a string cannot fail");
        }
        self.0.push_str("|\n");
    }
}

/// Holds the tables of the page to these, or writes them there where `UPDATE_DOCS` is
/// set.
pub fn hold_to(tables: &[(&str, Table)]) {
    let mut page = repository::read(PAGE);
    for (name, Table(table)) in tables {
        page = pages::with_part(&page, COMMAND, name, table);
    }
    pages::hold_to(PAGE, COMMAND, &page);
}

/// A chance as a percentage with two significant digits, and as one in so many.
pub fn chance(chance: f64) -> String {
    let percent = chance * 100.0;
    let decimals = (0..9).find(|&decimals| percent * 10_f64.powi(decimals) >= 9.95);
    let decimals = usize::try_from(decimals.unwrap_or(9)).expect("it is small");
    if chance > 0.4 {
        return format!("{percent:.decimals$} %");
    }
    let one_in = (1.0 / chance).round();
    let scale = 10_f64.powf((one_in.log10() - 1.0).floor().max(0.0));
    let one_in = format!("{:.0}", (one_in / scale).round() * scale);
    format!("{percent:.decimals$} % (1 in {})", number(one_in))
}

/// A duration in its largest unit.
pub fn duration(duration: Duration) -> String {
    let hours = duration.as_secs_f64() / 3_600.0;
    if hours < 48.0 {
        format!("{hours:.0} h")
    } else {
        format!("{:.0} days", hours / 24.0)
    }
}
