//! Generation of docs/configuration.md from the structures that the configuration is
//! deserialized into. A new key needs only a new field with a doc comment.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use otpd::config::{EnvVars, ServeConfig};
use syn::{Fields, ItemStruct};

use crate::{
    page,
    source::{Shape, Sources, documentation, field_name, has_serde, shape},
};

const PAGE: &str = "docs/configuration.md";

/// Tables that are deserialized separately from the top-level keys, with their structures.
const SEPARATE_TABLES: [(&str, &str); 3] = [
    ("policy", "PurposePolicy"),
    ("callers.NAME", "CallerTable"),
    ("providers.NAME", "CommonSettings"),
];

/// Field whose table is flattened into that of its owner: `[texts.PURPOSE.LOCALE]`.
pub const FLATTENED_FIELD: (&str, &str) = ("PurposeTextSettings", "texts");

/// Links from the tables to pages with details.
const DETAILS: [(&str, &str); 3] = [
    (
        "providers.NAME",
        "The keys of each kind of provider are in [providers.md](providers.md).",
    ),
    ("routes", "Details: [providers.md](providers.md#routes)."),
    ("texts.PURPOSE", "Details: [texts.md](texts.md)."),
];

/// Table of the configuration.
struct Section {
    /// `store`, `callers.NAME`; empty for the keys outside of all tables.
    path: String,
    /// True for an array of tables: `[[routes]]`.
    many: bool,
    /// Description of the table.
    meaning: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    kind: String,
    /// Empty if the key has no default, `None` if the key is required.
    default: Option<String>,
    meaning: String,
}

fn sections() -> Vec<Section> {
    let sources = Sources::read();
    let mut found = Vec::new();
    walk(
        &sources,
        "",
        false,
        structure(&sources, "TopLevelSettings"),
        &mut found,
    );
    for (path, name) in SEPARATE_TABLES {
        walk(&sources, path, false, structure(&sources, name), &mut found);
    }
    found
}

fn structure<'a>(sources: &'a Sources, name: &str) -> &'a ItemStruct {
    let found = sources.structure(name);
    found.unwrap_or_else(|| panic!("the sources have no {name}; correct tests/docs"))
}

fn walk(
    sources: &Sources,
    path: &str,
    many: bool,
    structure: &ItemStruct,
    found: &mut Vec<Section>,
) {
    let mut section = Section {
        path: path.to_owned(),
        many,
        meaning: documentation(&structure.attrs).meaning,
        keys: Vec::new(),
    };
    let mut tables = Vec::new();
    let Fields::Named(fields) = &structure.fields else {
        panic!("{path}: a table has named fields");
    };
    for field in &fields.named {
        if has_serde(&field.attrs, "skip") {
            continue;
        }
        let name = field_name(field);
        let shape = shape(&field.ty);
        if let Some((placeholder, many, inner)) = table_inside(sources, &shape) {
            let owner = (structure.ident.to_string(), name.clone());
            let is_flattened = (owner.0.as_str(), owner.1.as_str()) == FLATTENED_FIELD;
            let parts = [
                path,
                if is_flattened { "" } else { &name },
                placeholder.unwrap_or_default(),
            ];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            tables.push((parts.join("."), many, inner));
            continue;
        }
        let meaning = documentation(&field.attrs).meaning;
        let place = format!("{}.{name}", structure.ident);
        assert!(!meaning.is_empty(), "{place}: add a doc comment");
        section.keys.push(Key {
            kind: kind(sources, &shape),
            default: sources.default_of(structure, field),
            meaning,
            name: name.clone(),
        });
        if path.is_empty() && shape.name == "SecretString" {
            section.keys.push(Key {
                name: format!("{name}_file"),
                kind: "file".to_owned(),
                default: Some(String::new()),
                meaning: format!("File that contains `{name}`, instead of the value itself."),
            });
        }
    }
    found.push(section);
    for (path, many, inner) in tables {
        walk(sources, &path, many, inner, found);
    }
}

/// Returns the structure of a key that is a table itself, the placeholder for its name,
/// and whether it is an array of tables.
fn table_inside<'a>(
    sources: &'a Sources,
    shape: &Shape,
) -> Option<(Option<&'static str>, bool, &'a ItemStruct)> {
    match (shape.name.as_str(), shape.inside.as_slice()) {
        ("Vec", [element]) => Some((None, true, sources.structure(&element.name)?)),
        ("BTreeMap", [key, value]) => {
            let placeholder = match key.name.as_str() {
                "Purpose" => "PURPOSE",
                "Locale" => "LOCALE",
                _ => "NAME",
            };
            Some((Some(placeholder), false, sources.structure(&value.name)?))
        }
        (name, _) => Some((None, false, sources.structure(name)?)),
    }
}

/// Returns the description of the values of a type.
fn kind(sources: &Sources, shape: &Shape) -> String {
    if let Some(words) = sources.words(&shape.name) {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    let words = match (shape.name.as_str(), shape.inside.as_slice()) {
        ("bool", _) => "`true`, `false`",
        ("u8" | "u16" | "u32" | "u64" | "usize" | "NonZeroU32" | "NonZeroUsize" | "f64", _) => {
            "number"
        }
        ("Duration", _) => "duration",
        ("String", _) => "text",
        ("SecretString", _) => "secret text",
        ("PathBuf", _) => "file",
        ("SocketAddr", _) => "address and port",
        ("Vec", [element]) => return format!("list: {}", kind(sources, element)),
        ("BTreeMap", [_, value]) => return format!("table: {}", kind(sources, value)),
        ("Region", _) => "region, such as `RU`",
        ("Locale", _) => "language, such as `ru`",
        ("RecipientPattern", _) => "region, prefix, `email` or `*`",
        ("AuditLog", _) => "`stdout`, or a file",
        ("TokenDigest", _) => "64 hexadecimal digits",
        ("CertificateName", _) => "DNS name or URI",
        (name, _) => {
            // Falls back to the words of the type's name: `CallerName` is a caller name.
            let mut words = String::new();
            for letter in name.chars() {
                if letter.is_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.extend(letter.to_lowercase());
            }
            return words;
        }
    };
    words.to_owned()
}

/// Returns the environment variable of a key; empty for a key in an array of tables.
fn variable(section: &Section, key: &str) -> String {
    if section.many {
        return String::new();
    }
    let path = [section.path.as_str(), key].join(".");
    let path = path.trim_start_matches('.');
    if path == "database_url" || path == "database_url_file" {
        return format!("`{}`", path.to_uppercase());
    }
    format!("`OTPD_{}`", path.to_uppercase().replace('.', "__"))
}

fn heading(section: &Section) -> String {
    match (section.path.as_str(), section.many) {
        ("", _) => "Outside of all tables".to_owned(),
        ("policy", _) => "`[policy]` and `[purposes.NAME]`".to_owned(),
        (path, true) => format!("`[[{path}]]`"),
        (path, false) => format!("`[{path}]`"),
    }
}

fn written(section: &Section) -> String {
    let meaning = if section.path.is_empty() {
        "The keys at the top of the file, before any table."
    } else {
        &section.meaning
    };
    let mut text = format!("### {}\n\n{meaning}", heading(section));
    if let Some((_, details)) = DETAILS.iter().find(|(path, _)| *path == section.path) {
        text.push(' ');
        text.push_str(details);
    }
    if section.path == "policy" {
        text.push_str(" The variables of `[purposes.NAME]` are `OTPD_PURPOSES__NAME__…`.");
    }
    let rows = section.keys.iter().map(|key| {
        let default = match &key.default {
            None => "required".to_owned(),
            Some(default) => default.clone(),
        };
        vec![
            format!("`{}`", key.name),
            variable(section, &key.name),
            key.kind.clone(),
            default,
            key.meaning.clone(),
        ]
    });
    let head = ["key", "variable", "value", "default", "meaning"];
    format!("{text}\n\n{}", page::table(&head, rows))
}

#[test]
fn configuration_page_matches_the_code() {
    let written: Vec<String> = sections()
        .iter()
        .filter(|section| !section.keys.is_empty())
        .map(written)
        .collect();
    page::hold_to(PAGE, "keys", &written.join("\n\n"));
}

/// Loads a configuration file with this content.
fn load(file: &str) -> Result<ServeConfig, String> {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let path: PathBuf = directory.path().join("otpd.toml");
    fs::write(&path, file).expect("the file can be written");
    let config = ServeConfig::load(Some(Path::new(&path)), &EnvVars::new([]));
    config.map_err(|error| error.to_string())
}

/// Returns the keys that otpd lists in the error for an unknown key.
fn accepted_keys(section: &Section) -> BTreeSet<String> {
    let path = section
        .path
        .replace("PURPOSE", "login")
        .replace("LOCALE", "en")
        .replace("NAME", "one");
    let table = match (path.as_str(), section.many) {
        ("", _) => String::new(),
        (path, true) => format!("[[{path}]]\n"),
        (path, false) => format!("[{path}]\n"),
    };
    // The kind of a provider is read first.
    let kind = if path.starts_with("providers.") {
        "kind = \"log\"\n"
    } else {
        ""
    };
    let error = load(&format!("{table}{kind}no_such_key = 1\n"))
        .err()
        .unwrap_or_else(|| panic!("[{path}] accepts unknown keys"));
    assert!(error.contains("unknown key"), "[{path}]: {error}");
    let named = error.split('`').skip(1).step_by(2);
    named.map(str::to_owned).collect()
}

#[test]
fn documented_keys_are_accepted() {
    let all = sections();
    for section in &all {
        let mut accepted = accepted_keys(section);
        let below = |path: &str| {
            let prefix = if section.path.is_empty() {
                String::new()
            } else {
                format!("{}.", section.path)
            };
            let rest = path.strip_prefix(&prefix)?;
            let first = rest.split('.').next()?;
            (!first.is_empty()).then(|| first.to_owned())
        };
        let mut written: BTreeSet<String> =
            section.keys.iter().map(|key| key.name.clone()).collect();
        written.extend(all.iter().filter_map(|other| below(&other.path)));
        // Files of secrets are replaced by their content before deserialization.
        written.retain(|key| !key.ends_with("_file") || accepted.contains(key));
        match section.path.as_str() {
            // `purposes` has the keys of [policy].
            "" => {
                written.insert("purposes".to_owned());
            }
            "providers.NAME" => {
                accepted.retain(|key| key != "kind" && key != "preset");
            }
            "texts.PURPOSE" => {
                accepted.retain(|key| key != "a table for each locale");
                written.retain(|key| key != "LOCALE");
            }
            _ => {}
        }
        // The policy of a caller is removed before the caller is deserialized.
        assert_eq!(accepted, written, "{}", heading(section));
    }
}

#[test]
fn hand_written_defaults_match_the_code() {
    let config = load("").expect("otpd needs no configuration");
    let page = page::read(PAGE);
    let listen = format!(
        "| `listen` | `OTPD_LISTEN` | address and port | `{}` |",
        config.settings.listen
    );
    assert!(page.contains(&listen), "{listen}");
    let locale = format!("`{}` |", config.settings.default_locale);
    let row = page
        .lines()
        .find(|line| line.starts_with("| `default_locale`"));
    assert!(row.is_some_and(|row| row.contains(&locale)), "{row:?}");
}
