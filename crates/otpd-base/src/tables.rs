//! Tables of the configuration, parsed so that each error names its key.

use std::collections::{BTreeMap, HashMap};

use config::{Value, ValueKind};
use serde::de::{DeserializeOwned, IntoDeserializer as _, value::StringDeserializer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Table of the configuration.
pub type ConfigTable = HashMap<String, Value>;

/// Former names of keys, with the current ones.
const RENAMED: [(&str, &str); 15] = [
    ("age_grace", "max_age_grace"),
    ("breaker_pause", "breaker_open_for"),
    ("concurrency", "max_concurrency"),
    ("delivers", "self_delivery"),
    ("hello_name", "ehlo_name"),
    ("log_repeat_after", "log_dedup_window"),
    ("max_wait", "max_queue_wait"),
    ("max_waiting", "queue_size"),
    ("message_timeout", "request_body_timeout"),
    ("sample", "sample_ratio"),
    ("second_url", "fallback_urls"),
    ("shutdown_grace", "shutdown_timeout"),
    ("shutdown_wait", "shutdown_delay"),
    ("sweep_interval", "purge_interval"),
    ("writers", "batch_writers"),
];

/// Invalid key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigKeyError {
    /// Path of the key, or the environment variable that it came from.
    pub key: String,
    /// Problem and remedy.
    pub problem: String,
    /// True if there is no such key.
    pub unknown: bool,
}

impl ConfigKeyError {
    /// Creates the error of `key` with `problem`.
    pub fn new(key: impl ToString, problem: impl ToString) -> Self {
        Self {
            key: key.to_string(),
            problem: problem.to_string(),
            unknown: false,
        }
    }

    /// Prefixes the key with the table that contains it.
    #[must_use]
    pub fn inside(self, table: &str) -> Self {
        Self {
            key: joined(table, &self.key),
            ..self
        }
    }
}

/// Deserializes a `T` from the keys of a table. An error names the key with its table, or the
/// environment variable that it came from.
///
/// # Errors
/// The first invalid key.
pub fn read<T: DeserializeOwned>(name: &str, keys: ConfigTable) -> Result<T, ConfigKeyError> {
    let origins = origins(&keys, "");
    let value = Value::new(None, ValueKind::Table(keys.into_iter().collect()));
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut path = error.path().to_string();
        let mut problem = error.inner().to_string();
        let mut unknown = false;
        // serde reports an unknown key only in its text, with the path of its table.
        if let Some(rest) = problem.strip_prefix("unknown field `")
            && let Some((key, expected)) = rest.split_once('`')
        {
            let table = path.rsplit_once('.').map_or("", |(table, _)| table);
            if !path.ends_with(key) {
                path = joined(table, key);
            }
            let renamed = RENAMED.iter().find(|(former, _)| *former == key);
            unknown = renamed.is_none();
            problem = match renamed {
                Some((_, current)) => format!("was renamed; write `{current}` instead"),
                None => format!("unknown key{expected}"),
            };
        }
        // config repeats the key and its origin, which this error already has.
        let problem = problem.split(" for key `").next().unwrap_or_default();
        let key = match origins.get(&path) {
            Some(variable) => variable.clone(),
            None => joined(name, &path),
        };
        ConfigKeyError {
            unknown,
            ..ConfigKeyError::new(key, problem)
        }
    })
}

/// Converts a value to a table.
///
/// # Errors
/// An error of key `name` if the value is not a table.
pub fn table(name: &str, value: Value) -> Result<ConfigTable, ConfigKeyError> {
    let table = value
        .into_table()
        .map_err(|_| ConfigKeyError::new(name, "must be a table"))?;
    Ok(table.into_iter().collect())
}

/// Returns a digest of a table, which does not depend on the place or the order of its keys.
pub fn digest(table: &ConfigTable) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in leaves(table)
        .into_iter()
        .flat_map(|(key, digest)| [key.into_bytes(), digest.to_vec()])
    {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Returns the keys of a table and of the tables in it, each with a digest of its value.
pub fn leaves(table: &ConfigTable) -> BTreeMap<String, [u8; 32]> {
    let mut found = BTreeMap::new();
    for (name, value) in table {
        if let Ok(inner) = self::table(name, value.clone()) {
            let inner = leaves(&inner).into_iter();
            found.extend(inner.map(|(key, digest)| (joined(name, &key), digest)));
            continue;
        }
        // A list may contain tables, whose keys have no order; JSON sorts them.
        let sorted: Result<serde_json::Value, _> = value.clone().try_deserialize();
        let text = sorted.map_or_else(|error| error.to_string(), |value| value.to_string());
        let digest = Sha256::digest(Zeroizing::new(text).as_bytes());
        found.insert(name.clone(), digest.into());
    }
    found
}

/// Deserializes a list, or a comma-separated text, which is the form of an environment
/// variable.
///
/// # Errors
/// The first element that is not a `T`.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<String, Error: std::fmt::Display>,
{
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let elements = match serde::Deserialize::deserialize(deserializer)? {
        OneOrMany::One(text) => text
            .split(',')
            .map(|element| element.trim().to_owned())
            .collect(),
        OneOrMany::Many(elements) => elements,
    };
    elements
        .into_iter()
        .map(|element| {
            let text = element.clone();
            T::try_from(element)
                .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
        })
        .collect()
}

/// Deserializes the name of an enum variant, case-insensitively.
///
/// # Errors
/// An unknown name, with the known ones.
pub fn name<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    let text: String = serde::Deserialize::deserialize(deserializer)?;
    value_of_name(&text).map_err(serde::de::Error::custom)
}

/// Deserializes a list of names as [`name`] does, or a comma-separated text of them.
///
/// # Errors
/// The first unknown name, with the known ones.
pub fn names<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    let names: Vec<String> = list(deserializer)?;
    names
        .iter()
        .map(|text| value_of_name(text).map_err(serde::de::Error::custom))
        .collect()
}

fn value_of_name<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let lower = text.to_lowercase();
    let deserializer: StringDeserializer<serde::de::value::Error> = lower.into_deserializer();
    T::deserialize(deserializer).map_err(|error| {
        // serde lists them as "expected one of `a`, `b`" or "expected `a` or `b`".
        let error = error.to_string();
        let (_, known) = error.split_once("expected ").unwrap_or_default();
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        format!("unknown value {text:?}; use one of: {}", known.join(", "))
    })
}

/// Returns the environment variables that keys came from.
fn origins(keys: &ConfigTable, prefix: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for (name, value) in keys {
        let path = format!("{prefix}{name}");
        if let ValueKind::Table(inner) = &value.kind {
            let inner: ConfigTable = inner
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            found.extend(origins(&inner, &format!("{path}.")));
        } else if let Some(variable) = value.origin() {
            found.insert(path, variable.to_owned());
        }
    }
    found
}

fn joined(table: &str, key: &str) -> String {
    let parts = [table, key].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(".")
}
