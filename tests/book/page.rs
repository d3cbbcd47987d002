//! Pages, and the parts of them that are made of the code.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test book";

/// A path of the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The text of a file of the repository.
pub fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// Holds the part `name` of a page to `content`, or writes it there where `UPDATE_DOCS`
/// is set.
pub fn hold_to(relative: &str, name: &str, content: &str) {
    let committed = read(relative);
    let begin = format!("<!-- {name}: written by {COMMAND} -->\n");
    let end = format!("<!-- {name}: end -->");
    let (before, rest) = committed
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{relative} lacks {begin}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{relative} lacks {end}"));
    let page = format!("{before}{begin}\n{}\n\n{end}{after}", content.trim());
    if env::var_os("UPDATE_DOCS").is_some() {
        if page != committed {
            fs::write(path(relative), page).expect("the page can be written");
        }
        return;
    }
    assert!(
        page == committed,
        "{relative} is not what the code says; to rewrite it: {COMMAND}\n\n{page}"
    );
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
