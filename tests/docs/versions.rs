//! Check that every version in the repository matches the one in Cargo.toml.

use std::{collections::BTreeSet, fs};

use crate::page;

/// A version as numbers, so that 0.10.0 comes after 0.9.0.
fn numbers(version: &str) -> [u32; 3] {
    let parts: Vec<u32> = version
        .split('.')
        .map(|part| {
            part.parse()
                .unwrap_or_else(|_| panic!("{version}: no version"))
        })
        .collect();
    parts.try_into().expect("a version has three numbers")
}

/// The versions of which proto/released keeps the contract.
fn released_contracts() -> BTreeSet<[u32; 3]> {
    let files = fs::read_dir(page::path("proto/released")).expect("there are releases");
    let names = files.map(|file| file.expect("it can be listed").file_name());
    names
        .map(|name| {
            let name = name.to_string_lossy().into_owned();
            let version = name.strip_suffix(".binpb");
            numbers(version.unwrap_or_else(|| panic!("{name} is no contract")))
        })
        .collect()
}

#[test]
fn python_client_version_matches_the_crate() {
    let project = page::read("clients/python/pyproject.toml");
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(project.lines().any(|line| line == version), "{version}");
}

#[test]
fn changelog_follows_keep_a_changelog() {
    let changelog = page::read("CHANGELOG.md");
    let mut headings = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.next(), Some("[Unreleased]"));
    let contracts = released_contracts();
    let mut newer = [u32::MAX; 3];
    for heading in headings {
        let (version, date) = heading
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] - "))
            .unwrap_or_else(|| panic!("{heading}: write [VERSION] - DATE"));
        let version = numbers(version);
        assert!(version < newer, "{heading} stands below an older one");
        assert!(contracts.contains(&version), "{heading}: no contract kept");
        assert!(
            humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).is_ok(),
            "{heading}: no date"
        );
        newer = version;
    }
    let kinds = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("### "));
    for kind in kinds {
        let known = [
            "Added",
            "Changed",
            "Deprecated",
            "Removed",
            "Fixed",
            "Security",
        ];
        assert!(known.contains(&kind), "{kind}");
    }
}

#[test]
fn released_contracts_are_not_newer_than_the_crate() {
    let newest = released_contracts().pop_last();
    assert!(newest.expect("there is one") <= numbers(env!("CARGO_PKG_VERSION")));
}
