//! Validation of configuration files by the JSON schema: examples are valid, and invalid files
//! are refused if a schema can know it.

use std::{collections::BTreeSet, fs};

use boon::{Compiler, SchemaIndex, Schemas};
use config::{Config, File, FileFormat};
use serde_json::Value;
use syn::{Expr, Item, Lit};

use crate::{page, repository, schema::schema};

/// Address of the schema for the validator, which loads nothing from it.
const ADDRESS: &str = "https://otpd.invalid/schema.json";
/// Table of a provider with the keys that are rare elsewhere.
const PROVIDER: &str = "fuzz/src/provider/everything.toml";
const INVALID_EXAMPLES: &str = "src/config/tests.rs";

/// Invalid examples that only otpd can refuse, because the error depends on other keys, on a
/// list outside of the configuration, or on the length of a duration.
const BEYOND_THE_SCHEMA: [&str; 14] = [
    "connections.handshake_timeout",
    "default_region",
    "delivery.poll_interval",
    "listen",
    "log_dedup_window",
    "policy.code_length",
    "policy.code_ttl",
    "policy.failure_memory",
    "reload_interval",
    "shutdown_delay",
    "shutdown_timeout",
    "store.max_queue_wait",
    "store.timeout",
    "traces.endpoint",
];

/// Compiled schema.
struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        compiler
            .add_resource(ADDRESS, schema())
            .expect("the address is new");
        let index = compiler
            .compile(ADDRESS, &mut schemas)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self { schemas, index }
    }

    /// Validates a configuration file.
    fn validate(&self, file: &str) -> Result<(), String> {
        let built = Config::builder()
            .add_source(File::from_str(file, FileFormat::Toml))
            .build();
        let value: Value = built
            .and_then(Config::try_deserialize)
            .map_err(|error| error.to_string())?;
        let validated = self.schemas.validate(&value, self.index);
        validated.map_err(|error| format!("{error:#}"))
    }
}

/// Returns the TOML examples of the pages in docs/ and the configuration files in deploy/.
fn examples() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in repository::files_below("docs", "md") {
        let place = file.display().to_string();
        let text = fs::read_to_string(&file).expect("a page can be read");
        for block in text.split("\n```toml\n").skip(1) {
            let (block, _) = block.split_once("\n```").expect("a block ends");
            // Some examples continue the table of a provider.
            let continues = place.ends_with("providers.md")
                && !["kind =", "preset =", "[[routes]]"]
                    .iter()
                    .any(|start| block.contains(start));
            let head = if continues {
                "[providers.pigeon]\nkind = \"http\"\n"
            } else {
                ""
            };
            found.push((place.clone(), format!("{head}{block}\n")));
        }
    }
    for file in ["deploy/debian/otpd.toml", "deploy/production/otpd.toml"] {
        let text = page::read(file);
        found.push((file.to_owned(), text.clone()));
        // Settings that are commented out have no blank after the sign; sentences have one.
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        });
        let complete: Vec<&str> = lines.collect();
        found.push((format!("{file}, complete"), complete.join("\n")));
    }
    let every_key = page::read(PROVIDER);
    found.push((
        PROVIDER.to_owned(),
        format!("[providers.pigeon]\n{every_key}"),
    ));
    found
}

#[test]
fn examples_are_valid_by_the_schema() {
    let validator = Validator::new();
    let examples = examples();
    assert!(examples.len() > 15, "{} examples", examples.len());
    let digest = format!("\"{}\"", "0".repeat(64));
    for (place, example) in examples {
        let example = example
            .replace("\"TOKEN_SHA256\"", &digest)
            .replace("\"…\"", &digest);
        let validated = validator.validate(&example);
        assert!(validated.is_ok(), "{place}: {validated:?}\n{example}");
    }
}

/// Returns the files of `INVALID_CONFIGS`, each with its invalid key.
fn invalid_examples() -> Vec<(String, String)> {
    let parsed = syn::parse_file(&page::read(INVALID_EXAMPLES)).expect("the tests are Rust");
    let list = parsed.items.into_iter().find_map(|item| match item {
        Item::Const(item) if item.ident == "INVALID_CONFIGS" => Some(*item.expr),
        _ => None,
    });
    let Some(Expr::Reference(list)) = list else {
        panic!("{INVALID_EXAMPLES} has no list INVALID_CONFIGS; correct tests/docs");
    };
    let Expr::Array(list) = *list.expr else {
        panic!("INVALID_CONFIGS is a list");
    };
    let text = |expression: Option<&Expr>| match expression {
        Some(Expr::Lit(literal)) => match &literal.lit {
            Lit::Str(text) => text.value(),
            _ => panic!("an example is text"),
        },
        _ => panic!("an example is text"),
    };
    list.elems
        .iter()
        .map(|example| {
            let Expr::Tuple(example) = example else {
                panic!("an example is a tuple");
            };
            (text(example.elems.first()), text(example.elems.last()))
        })
        .filter(|(file, _)| !file.is_empty())
        .collect()
}

#[test]
fn schema_refuses_every_invalid_example_that_it_can_know() {
    let validator = Validator::new();
    let mut accepted = BTreeSet::new();
    for (file, key) in invalid_examples() {
        if validator.validate(&file).is_ok() {
            accepted.insert(key);
        }
    }
    let expected = BEYOND_THE_SCHEMA.map(str::to_owned).into();
    assert_eq!(accepted, expected);
}
