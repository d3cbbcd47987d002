//! Check that the tests and files named by the threat model exist.

use crate::page;

const PAGE: &str = "docs/security/threat-model.md";

/// Directories of the tests of each program.
const PROGRAMS: [(&str, &str); 7] = [
    ("otpd", "src"),
    ("otpd_base", "crates/otpd-base/src"),
    ("otpd_delivery", "crates/otpd-delivery/src"),
    ("otpd_rules", "crates/otpd-rules/src"),
    ("integration", "tests/integration"),
    ("safety_net", "tests/safety_net"),
    ("docs", "tests/docs"),
];

/// Beginnings of the names of existing files.
const BEGINNINGS: [&str; 6] = ["src/", "crates/", "deploy/", "scripts/", "proto/", "tests/"];

/// Returns the texts between backticks. None spans the end of a line.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Returns true if there is a function of that path, such as `integration::races::NAME`. A test
/// that runs on each store has the path of its function.
fn is_there(test: &str) -> bool {
    let Some(((_, directory), rest)) = PROGRAMS.iter().find_map(|program| {
        let rest = test.strip_prefix(program.0)?.strip_prefix("::")?;
        Some((program, rest))
    }) else {
        return false;
    };
    let Some((modules, name)) = rest.rsplit_once("::") else {
        return false;
    };
    let module = format!("{directory}/{}", modules.replace("::", "/"));
    [format!("{module}.rs"), format!("{module}/mod.rs")]
        .iter()
        .filter(|file| page::path(file).is_file())
        .any(|file| page::read(file).contains(&format!("fn {name}(")))
}

#[test]
fn tests_and_files_named_by_the_page_exist() {
    let text = page::read(PAGE);
    let (mut tests, mut files, mut missing) = (0, 0, Vec::new());
    for named in code(&text).filter(|named| !named.ends_with('…')) {
        let there = if named.contains("::") {
            tests += 1;
            is_there(named)
        } else if BEGINNINGS.iter().any(|it| named.starts_with(it)) {
            files += 1;
            // A command has words after its file.
            let file = named.split(' ').next().unwrap_or_default();
            page::path(file).exists()
        } else {
            continue;
        };
        if !there {
            missing.push(named);
        }
    }
    assert!(tests > 100 && files > 50, "{tests} tests, {files} files");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn missing_test_is_detected() {
    assert!(is_there("docs::threats::missing_test_is_detected"));
    assert!(is_there(
        "integration::races::concurrent_correct_codes_verify_exactly_once"
    ));
    for wrong in [
        "docs::threats::a_test_that_is_nowhere",
        "docs::links::missing_test_is_detected",
        "docs::missing_test_is_detected",
        "threats::missing_test_is_detected",
    ] {
        assert!(!is_there(wrong), "{wrong}");
    }
}
