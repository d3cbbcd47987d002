//! Sources of the configuration (file, environment variables, files of secrets), and the
//! order in which they override each other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fmt,
    path::Path,
};

use config::{File, FileFormat, Value, ValueKind};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

pub use otpd_base::tables::{ConfigTable, list, name, names};

use super::{TopLevelSettings, service_links};
use otpd_base::{files, tables};

const PREFIX: &str = "OTPD_";

/// Variables with the prefix of keys that belong to the command line.
const COMMAND_LINE_ONLY: [&str; 4] = ["OTPD_CONFIG", "OTPD_TOKEN", "OTPD_ADDRESS", "OTPD_CA"];

/// Keys with secret values, which can therefore be read from separate files.
const SECRETS: [&str; 2] = ["database_url", "keys"];

/// Keys and tables that keep their value until a restart.
const RESTART_ONLY_KEYS: [&str; 16] = [
    "listen",
    "operations_listen",
    "receipts",
    "environment",
    "development_remote",
    "database_url",
    "log_format",
    "log_dedup_window",
    "audit_log",
    "traces",
    "reflection",
    "shutdown_delay",
    "shutdown_timeout",
    "reload_interval",
    "delivery",
    "store",
];

/// Error in the configuration: one line that names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: String,
    problem: String,
}

impl ConfigError {
    /// Creates the error of the key `key`.
    pub fn new(key: &str, problem: impl ToString) -> Self {
        // Errors of other libraries can have several lines.
        let problem = problem
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            key: key.to_owned(),
            problem,
        }
    }
}

/// Environment variables of otpd.
#[derive(Clone, Debug)]
pub struct EnvVars(BTreeMap<String, String>);

impl EnvVars {
    /// Selects the variables of otpd. An empty one counts as unset, because a compose file
    /// cannot omit a variable. Links that Kubernetes sets for services with names that
    /// begin with otpd are ignored.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_key = |name: &str| {
            name.starts_with(PREFIX) && !COMMAND_LINE_ONLY.contains(&name)
                || name == "DATABASE_URL"
                || name == "DATABASE_URL_FILE"
        };
        let is_given = |(name, value): &(String, String)| {
            is_key(name) && !value.is_empty() && !service_links::is_link(name, value)
        };
        Self(variables.into_iter().filter(is_given).collect())
    }

    /// Selects the variables of this process. A value that is not UTF-8 is kept with
    /// replacement characters, so that its key rejects it instead of ignoring it.
    pub fn of_process() -> Self {
        let text = |value: OsString| value.to_string_lossy().into_owned();
        Self::new(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }
}

/// Tables that are merged with each other before they are deserialized.
#[derive(Debug, Default)]
pub struct ConfigTables {
    /// `[policy]`.
    pub policy: ConfigTable,
    /// `[purposes.NAME]`.
    pub purposes: BTreeMap<String, ConfigTable>,
    /// `[callers.NAME]`.
    pub callers: BTreeMap<String, ConfigTable>,
    /// `[providers.NAME]`.
    pub providers: BTreeMap<String, ConfigTable>,
}

/// Digests of all values of a configuration, to find the keys that another one changes.
#[derive(Clone, Default)]
pub struct ConfigSnapshot {
    keys: BTreeMap<String, [u8; 32]>,
    /// Values that keep their value until a restart.
    fixed: ConfigTable,
}

/// Keys that differ between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigDiff {
    /// Keys that take effect while otpd runs.
    pub keys: Vec<String>,
    /// Keys that keep their value until a restart.
    pub fixed: Vec<String>,
}

/// Shows only the keys, because `fixed` contains secrets in plaintext.
impl fmt::Debug for ConfigSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.keys.keys().collect();
        formatter
            .debug_tuple("ConfigSnapshot")
            .field(&keys)
            .finish()
    }
}

impl ConfigSnapshot {
    fn new(root: &ConfigTable) -> Self {
        let fixed = |(name, _): &(&String, &Value)| RESTART_ONLY_KEYS.contains(&name.as_str());
        let pair = |(name, value): (&String, &Value)| (name.clone(), value.clone());
        Self {
            keys: tables::leaves(root),
            fixed: root.iter().filter(fixed).map(pair).collect(),
        }
    }

    /// Returns the keys that differ in `next`.
    pub fn changes(&self, next: &Self) -> ConfigDiff {
        let names: BTreeSet<&String> = self.keys.keys().chain(next.keys.keys()).collect();
        let changed = names
            .into_iter()
            .filter(|name| self.keys.get(*name) != next.keys.get(*name))
            .cloned();
        let is_fixed = |name: &String| {
            let first = name.split('.').next().unwrap_or_default();
            RESTART_ONLY_KEYS.contains(&first)
        };
        let (fixed, keys) = changed.partition(is_fixed);
        ConfigDiff { keys, fixed }
    }

    /// Restores the values in `root` that cannot change without a restart.
    fn keep_fixed(&self, root: &mut ConfigTable) {
        for name in RESTART_ONLY_KEYS {
            match self.fixed.get(name) {
                Some(value) => root.insert(name.to_owned(), value.clone()),
                None => root.remove(name),
            };
        }
    }
}

/// Reads all sources, and separates the tables that are merged later. Values that cannot
/// change without a restart are taken from `before`.
pub fn load(
    file: Option<&Path>,
    variables: &EnvVars,
    before: Option<&ConfigSnapshot>,
) -> Result<(TopLevelSettings, ConfigTables, ConfigSnapshot), ConfigError> {
    let mut root = root(file, variables)?;
    if let Some(before) = before {
        before.keep_fixed(&mut root);
    }
    let snapshot = ConfigSnapshot::new(&root);
    let mut tables = ConfigTables::default();
    if let Some(policy) = root.remove("policy") {
        tables.policy = table("policy", policy)?;
    }
    tables.purposes = named_tables("purposes", &mut root)?;
    tables.callers = named_tables("callers", &mut root)?;
    tables.providers = named_tables("providers", &mut root)?;
    Ok((deserialize("", root)?, tables, snapshot))
}

/// Returns the keys of the file, overridden by those of the environment.
fn root(file: Option<&Path>, variables: &EnvVars) -> Result<ConfigTable, ConfigError> {
    let mut root = match file {
        None => ConfigTable::new(),
        Some(path) => read_file(path)?,
    };
    for secret in SECRETS {
        let file_key = format!("{secret}_file");
        if let Some(path) = root.remove(&file_key) {
            let path = path
                .into_string()
                .map_err(|error| ConfigError::new(&file_key, error))?;
            insert_secret(&mut root, secret, &file_key, &path)?;
        }
    }
    // The environment overrides the file, also if one contains a secret and the other the
    // secret's file. It is an error only if the environment contains both.
    let mut seen = HashMap::new();
    for (name, value) in &variables.0 {
        let key = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
        let path: Vec<&str> = key.split("__").collect();
        let secret = key
            .strip_suffix("_file")
            .filter(|key| SECRETS.contains(key));
        let target = secret.unwrap_or(&key).to_owned();
        if let Some(other) = seen.insert(target.clone(), name)
            && SECRETS.contains(&target.as_str())
        {
            return Err(ConfigError::new(
                name,
                format!("{other} is set too; remove one of them"),
            ));
        }
        match secret {
            Some(secret) => {
                root.remove(secret);
                insert_secret(&mut root, secret, name, value)?;
            }
            None => insert(&mut root, &path, name, value)?,
        }
    }
    Ok(root)
}

/// Deserializes a table. An error names the key with its table, or the variable that the
/// value came from.
pub fn deserialize<T: DeserializeOwned>(name: &str, keys: ConfigTable) -> Result<T, ConfigError> {
    tables::read(name, keys).map_err(|fault| {
        let mut problem = fault.problem;
        if name.is_empty() && fault.unknown && !fault.key.contains('.') {
            problem.push_str(", `policy`, `purposes`, `callers`, `providers`");
            if service_links::is_name(&fault.key) {
                problem.push_str(service_links::HINT);
            }
        }
        ConfigError::new(&fault.key, problem)
    })
}

fn read_file(path: &Path) -> Result<ConfigTable, ConfigError> {
    let name = path.display().to_string();
    let text = files::read_text(path).map_err(|error| ConfigError::new(&name, error))?;
    // The file may contain secrets.
    let text = Zeroizing::new(text);
    let file = File::from_str(&text, FileFormat::Toml);
    let built = config::Config::builder().add_source(file).build();
    let table = built.and_then(|config| config.cache.into_table());
    Ok(table
        .map_err(|error| ConfigError::new(&name, error))?
        .into_iter()
        .collect())
}

fn insert_secret(
    root: &mut ConfigTable,
    key: &str,
    named_by: &str,
    path: &str,
) -> Result<(), ConfigError> {
    if root.contains_key(key) {
        return Err(ConfigError::new(
            named_by,
            format!("{key} is set too; remove one of them"),
        ));
    }
    let text = files::read_text(Path::new(path))
        .map_err(|error| ConfigError::new(named_by, format!("cannot read {path}: {error}")))?;
    let text = Zeroizing::new(text);
    let value = Value::new(Some(&named_by.to_owned()), text.trim_end().to_owned());
    root.insert(key.to_owned(), value);
    Ok(())
}

fn insert(
    root: &mut ConfigTable,
    path: &[&str],
    name: &str,
    value: &str,
) -> Result<(), ConfigError> {
    let (last, tables) = path
        .split_last()
        .expect("splitting yields at least one part");
    let leaf = Value::new(Some(&name.to_owned()), value.to_owned());
    let no_table = || {
        let problem =
            "a key of a table, but the table itself is set to a value; remove one of them";
        ConfigError::new(name, problem)
    };
    let Some((first, rest)) = tables.split_first() else {
        root.insert((*last).to_owned(), leaf);
        return Ok(());
    };
    let empty = || Value::new(None, ValueKind::Table(config::Map::new()));
    let mut node = root.entry((*first).to_owned()).or_insert_with(empty);
    for part in rest {
        let ValueKind::Table(table) = &mut node.kind else {
            return Err(no_table());
        };
        node = table.entry((*part).to_owned()).or_insert_with(empty);
    }
    let ValueKind::Table(table) = &mut node.kind else {
        return Err(no_table());
    };
    table.insert((*last).to_owned(), leaf);
    Ok(())
}

/// Removes the tables `[NAME.…]` from the root, and returns them.
fn named_tables(
    name: &str,
    root: &mut ConfigTable,
) -> Result<BTreeMap<String, ConfigTable>, ConfigError> {
    let Some(value) = root.remove(name) else {
        return Ok(BTreeMap::new());
    };
    table(name, value)?
        .into_iter()
        .map(|(key, keys)| Ok((key.clone(), table(&format!("{name}.{key}"), keys)?)))
        .collect()
}

/// Returns the table in a value that must be one.
pub fn table(name: &str, value: Value) -> Result<ConfigTable, ConfigError> {
    tables::table(name, value).map_err(|fault| ConfigError::new(&fault.key, fault.problem))
}
