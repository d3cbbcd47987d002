//! Imports run one way: a module knows only those below it. Between crates Cargo checks that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::support::repository;

/// Modules that each module may import, besides itself. A module that is missing here fails the
/// test, so that its author decides about its imports.
const ALLOWED: [(&str, &[&str]); 22] = [
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "auth",
            "config",
            "listener",
            "grpc",
            "key_file",
            "keys",
            "server",
            "shutdown",
            "store",
            "telemetry",
            "traces",
        ],
    ),
    (
        "server",
        &[
            "auth",
            "config",
            "listener",
            "engine",
            "grpc",
            "keys",
            "metrics",
            "admin",
            "outbox",
            "service",
            "shutdown",
            "store",
            "telemetry",
            "traces",
        ],
    ),
    (
        "grpc",
        &["auth", "listener", "metrics", "reason", "service", "traces"],
    ),
    (
        "service",
        &[
            "auth", "engine", "keys", "metrics", "outbox", "reason", "store",
        ],
    ),
    (
        "outbox",
        &["auth", "engine", "keys", "metrics", "store", "traces"],
    ),
    ("admin", &["listener", "metrics", "telemetry"]),
    ("engine", &["keys", "metrics", "store", "traces"]),
    ("metrics", &["labels", "reason"]),
    ("labels", &[]),
    ("reason", &["labels"]),
    ("traces", &["system_random"]),
    ("auth", &[]),
    ("listener", &["auth", "system_random"]),
    ("keys", &["store", "system_random"]),
    ("key_file", &["keys"]),
    (
        "config",
        &["auth", "listener", "outbox", "store", "telemetry", "traces"],
    ),
    ("store", &["labels", "metrics", "system_random", "traces"]),
    ("system_random", &[]),
    ("telemetry", &["traces"]),
    ("shutdown", &["telemetry"]),
];

/// The text of each module, tests and comments aside.
fn modules() -> BTreeMap<String, String> {
    let sources = repository::path("src");
    let mut modules = BTreeMap::<String, String>::new();
    for file in repository::files_below("src", "rs") {
        let inside = file.strip_prefix(&sources).expect("it was found there");
        // Tests of a module may use its path from outside.
        if inside.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let first = inside.components().next().expect("a file has a name");
        let name = Path::new(first.as_os_str())
            .file_stem()
            .expect("a file has a name");
        let text = fs::read_to_string(&file).expect("the sources are text");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let module = modules
            .entry(name.to_string_lossy().into_owned())
            .or_default();
        for line in lines {
            module.push_str(line);
            module.push('\n');
        }
    }
    modules
}

/// The modules that a text imports by `crate::…` or, in the binary, `otpd::…`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    for root in ["crate::", "otpd::"] {
        for (position, _) in code.match_indices(root) {
            let rest = &code[position + root.len()..];
            match rest.strip_prefix('{') {
                None => {
                    found.insert(rest.chars().take_while(|&c| is_name(c)).collect());
                }
                // A tree: the names that follow a brace or comma of its first level.
                Some(tree) => {
                    let mut depth = 0;
                    let mut expecting = true;
                    for (offset, character) in tree.char_indices() {
                        match character {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => expecting = true,
                            c if expecting && is_name(c) => {
                                expecting = false;
                                let name = tree[offset..].chars().take_while(|&c| is_name(c));
                                found.insert(name.collect());
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    found
}

#[test]
fn module_imports_run_one_way() {
    let allowed = BTreeMap::from(ALLOWED);
    for (name, code) in modules() {
        let imports = imports(&code);
        let below = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name}: where does it belong?"));
        for import in imports {
            let fine = import == name || below.contains(&import.as_str());
            assert!(fine, "{name} imports {import}");
        }
    }
}

#[test]
fn allowed_imports_have_no_cycle() {
    let allowed = BTreeMap::from(ALLOWED);
    let mut settled = BTreeSet::new();
    while settled.len() < allowed.len() {
        let next = allowed
            .iter()
            .find(|(name, below)| {
                !settled.contains(**name) && below.iter().all(|name| settled.contains(name))
            })
            .map(|(name, _)| *name);
        settled.insert(next.expect("some modules import each other in a circle"));
    }
}

#[test]
fn import_scanner_finds_every_form() {
    let code = "use otpd_rules::OtpCode;\nuse crate::{\n    keys::{KeyRing, Other},\n    store::Store,\n};\nlet x = crate::grpc::v1::Y;";
    let expected = ["grpc", "keys", "store"].map(str::to_owned);
    assert_eq!(imports(code), BTreeSet::from(expected));
}
