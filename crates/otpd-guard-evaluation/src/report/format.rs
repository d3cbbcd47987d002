//! Cells of tables.

use crate::{simulation::DayOutcome, world::MINUTE};

/// Returns a table of Markdown, with numbers in all columns but the first.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut lines = vec![
        format!("| {} |", head.join(" | ")),
        format!("|---|{}", "--:|".repeat(head.len() - 1)),
    ];
    lines.extend(rows.iter().map(|row| format!("| {} |", row.join(" | "))));
    lines.join("\n")
}

/// Returns a rounded number with separators of thousands.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Returns a count with separators of thousands.
pub fn count(value: u32) -> String {
    number(f64::from(value))
}

/// Returns a percentage.
pub fn percentage(value: f64) -> String {
    if value == 0.0 {
        "0 %".to_owned()
    } else if value < 1.0 {
        format!("{value:.3} %")
    } else {
        format!("{value:.1} %")
    }
}

/// Returns the longest time until a release.
pub fn release(outcomes: &[DayOutcome]) -> String {
    let longest = outcomes.iter().filter_map(|outcome| outcome.release).max();
    longest.map_or_else(
        || "–".to_owned(),
        |milliseconds| match milliseconds / MINUTE {
            minutes @ 0..120 => format!("{minutes} min"),
            minutes => format!("{} h", minutes / 60),
        },
    )
}
