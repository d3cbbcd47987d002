//! Generated parts of documentation pages: compared with the page, or written to it if
//! `UPDATE_DOCS` is set.

use std::{env, fs};

use super::repository::{path, read};

/// Holds a page to `text`, or writes it where `UPDATE_DOCS` is set; `command` does that.
pub fn hold_to(relative: &str, command: &str, text: &str) {
    if read(relative) == text {
        return;
    }
    assert!(
        env::var_os("UPDATE_DOCS").is_some(),
        "{relative} is not what it is made of; to rewrite it: {command}\n\n{text}"
    );
    fs::write(path(relative), text).expect("the page can be written");
}

/// `page` with another content of its part `name`, which stands between two comments.
pub fn with_part(page: &str, command: &str, name: &str, content: &str) -> String {
    let begin = format!("<!-- {name}: written by {command} -->\n");
    let end = format!("<!-- {name}: end -->");
    let parts = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = parts.unwrap_or_else(|| panic!("the page lacks {begin} or {end}"));
    format!("{before}{begin}\n{}\n\n{end}{after}", content.trim())
}

/// A whole number as people read it.
pub fn number(number: impl ToString) -> String {
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
