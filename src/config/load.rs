//! Where the configuration comes from, and how its parts are laid over each other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fmt,
    path::Path,
};

use config::{File, FileFormat, Value, ValueKind};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

pub use crate::tables::{ConfigTable, list, name, names};

use super::{TopLevelSettings, service_links};
use crate::{files, tables};

const PREFIX: &str = "OTPD_";

/// Variables that start like a key but speak to the command line.
const COMMAND_LINE_ONLY: [&str; 4] = ["OTPD_CONFIG", "OTPD_TOKEN", "OTPD_ADDRESS", "OTPD_CA"];

/// Keys whose values are secret, and may therefore stand in a file of their own.
const SECRETS: [&str; 2] = ["database_url", "keys"];

/// Keys and tables that keep their value until otpd starts again.
const RESTART_ONLY_KEYS: [&str; 15] = [
    "listen",
    "operations_listen",
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

/// A mistake in the configuration: one line that names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: String,
    problem: String,
}

impl ConfigError {
    /// The key `key` is not as it must be.
    pub fn new(key: &str, problem: impl ToString) -> Self {
        // Some problems are told over several lines by who found them.
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

/// Environment variables that concern otpd.
#[derive(Clone, Debug)]
pub struct EnvVars(BTreeMap<String, String>);

impl EnvVars {
    /// Those of `variables` that concern otpd. An empty one counts as unset, since
    /// compose files cannot leave one out. Links that Kubernetes sets for services whose
    /// names begin with otpd are ignored.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let concerns = |name: &str| {
            name.starts_with(PREFIX) && !COMMAND_LINE_ONLY.contains(&name)
                || name == "DATABASE_URL"
                || name == "DATABASE_URL_FILE"
        };
        let is_given = |(name, value): &(String, String)| {
            concerns(name) && !value.is_empty() && !service_links::is_link(name, value)
        };
        Self(variables.into_iter().filter(is_given).collect())
    }

    /// Those of this process. A value that is no text is not left out, but refused by
    /// whatever it is for.
    pub fn of_process() -> Self {
        let text = |value: OsString| value.to_string_lossy().into_owned();
        Self::new(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }
}

/// The tables that are laid over each other before they are read.
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

/// What a configuration says, key by key, without saying it: to see what another one says
/// differently.
#[derive(Clone, Default)]
pub struct ConfigSnapshot {
    keys: BTreeMap<String, [u8; 32]>,
    /// The values that stay as they are until otpd starts again.
    fixed: ConfigTable,
}

/// What one configuration says differently from the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigDiff {
    /// Keys that can change while otpd runs.
    pub keys: Vec<String>,
    /// Keys that cannot, and keep their value.
    pub fixed: Vec<String>,
}

/// Shows keys alone: the values that stay are as they were written, secrets too.
impl fmt::Debug for ConfigSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.keys.keys().collect();
        formatter.debug_tuple("Written").field(&keys).finish()
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

    /// What `next` says differently.
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

    /// Puts the values back in `root` that stay as they are.
    fn keep_fixed(&self, root: &mut ConfigTable) {
        for name in RESTART_ONLY_KEYS {
            match self.fixed.get(name) {
                Some(value) => root.insert(name.to_owned(), value.clone()),
                None => root.remove(name),
            };
        }
    }
}

/// Reads everything, and hands out apart the tables from which policies are made. What
/// cannot change while otpd runs is as it was `before`.
pub fn load(
    file: Option<&Path>,
    variables: &EnvVars,
    before: Option<&ConfigSnapshot>,
) -> Result<(TopLevelSettings, ConfigTables, ConfigSnapshot), ConfigError> {
    let mut root = root(file, variables)?;
    if let Some(before) = before {
        before.keep_fixed(&mut root);
    }
    let written = ConfigSnapshot::new(&root);
    let mut tables = ConfigTables::default();
    if let Some(policy) = root.remove("policy") {
        tables.policy = table("policy", policy)?;
    }
    tables.purposes = named_tables("purposes", &mut root)?;
    tables.callers = named_tables("callers", &mut root)?;
    tables.providers = named_tables("providers", &mut root)?;
    Ok((deserialize("", root)?, tables, written))
}

/// The file with the environment on top of it.
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
    // The environment stands above the file, also where one names a secret and the
    // other its file; only within the environment is naming both a mistake.
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
                format!("{other} is set as well; leave one out"),
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

/// Makes a `T` of the keys of a table; the key at fault is told with the table's
/// name, or by the variable that it came from.
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
    // It may hold secrets.
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
            format!("{key} is set as well; leave one out"),
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
        let problem = "is a key of a table, and a value stands in its place; leave one out";
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

/// The tables `[NAME.…]`.
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

/// A value that must be a table.
pub fn table(name: &str, value: Value) -> Result<ConfigTable, ConfigError> {
    tables::table(name, value).map_err(|fault| ConfigError::new(&fault.key, fault.problem))
}
