//! Check that all links of the documentation lead to an existing file and heading.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::page;

/// Directories without pages of this repository.
const NOT_OURS: [&str; 4] = ["target", "node_modules", ".git", "secrets"];

/// The pages of the repository.
fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !NOT_OURS.contains(&name.as_ref()) {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let anchor: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect();
        let mut unique = anchor.clone();
        let mut number = 0;
        while !found.insert(unique.clone()) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
    }
    found
}

/// Returns the targets of the links of a page that stay in the repository.
fn links(text: &str) -> Vec<String> {
    // A link may go over the end of a line, and code within a line has none.
    let joined: Vec<&str> = prose(text).collect();
    let joined = joined.join("\n");
    let without_code: String = joined
        .split('`')
        .enumerate()
        .map(|(index, part)| if index % 2 == 0 { part } else { "code" })
        .collect();
    without_code
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

#[test]
fn links_resolve() {
    let mut all = Vec::new();
    pages(&page::path(""), &mut all);
    assert!(all.len() > 10, "the pages are found");
    let mut broken = Vec::new();
    let mut count = 0;
    for from in &all {
        let text = fs::read_to_string(from).expect("a page can be read");
        for link in links(&text) {
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let to = if file.is_empty() {
                from.clone()
            } else {
                from.parent().expect("it lies somewhere").join(file)
            };
            let there = if anchor.is_empty() || to.extension().is_none_or(|it| it != "md") {
                to.exists()
            } else {
                fs::read_to_string(&to).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            if !there {
                broken.push(format!("{}: {link}", from.display()));
            }
        }
    }
    assert!(count > 100, "the links are found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn table_of_contents_lists_every_page() {
    let contents = page::read("docs/README.md");
    for entry in fs::read_dir(page::path("docs")).expect("there are pages") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|it| it == "md") && name != "README.md" {
            assert!(contents.contains(&format!("({name})")), "{name}");
        }
    }
}
