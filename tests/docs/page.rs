//! Pages, and their parts that are generated from the code.

use crate::pages;
pub use crate::repository::{path, read};

/// Command that writes the generated parts.
pub const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test docs";

/// Holds the part `name` of a page to `content`, or writes it there where `UPDATE_DOCS`
/// is set.
pub fn hold_to(relative: &str, name: &str, content: &str) {
    let page = pages::with_part(&read(relative), COMMAND, name, content);
    pages::hold_to(relative, COMMAND, &page);
}

/// A table of Markdown; its cells must be text without line ends.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines = vec![
        format!("| {} |", head.join(" | ")),
        format!("|{}", "---|".repeat(head.len())),
    ];
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        // An empty cell is one blank, as people write it.
        let line = format!("| {} |", cells.join(" | ")).replace("|  |", "| |");
        lines.push(line.replace("|  |", "| |"));
    }
    lines.join("\n")
}
