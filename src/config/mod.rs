//! Configuration of otpd: one TOML file, environment variables `OTPD_…` that override it,
//! and files for secrets. Each error is one line that names the key.

mod callers;
mod delivery;
mod load;
mod receipts;
mod service_links;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use load::{ConfigDiff, ConfigError, ConfigSnapshot, EnvVars};
pub use receipts::ReceiptSettings;
pub use settings::{DEFAULT_LISTEN, TopLevelSettings};

use crate::{auth::CallerRegistry, store::StoreOptions};
use otpd_base::environment::Environment;
use otpd_delivery::Delivery;
use otpd_rules::TestRecipient;

/// JSON schema of the configuration file, for editors. The tests of the documentation
/// generate it from the structures of the configuration.
pub const SCHEMA: &str = include_str!("otpd.schema.json");

/// Configuration of `otpd serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// Keys that need no further evaluation.
    pub settings: TopLevelSettings,
    /// Callers and their policies: `[policy]`, `[purposes.NAME]` and `[callers.NAME]`.
    pub callers: CallerRegistry,
    /// Recipients that get a fixed code and no message.
    pub test_recipients: Vec<TestRecipient>,
    /// Providers, routes and texts of messages: `[providers.NAME]`, `[[routes]]` and
    /// `[texts.PURPOSE]`.
    pub delivery: Delivery,
    /// Values that the rest was made of, to compare with those of the next load.
    pub snapshot: ConfigSnapshot,
}

/// Maximum size of a batch that every store can process, because SQLite binds at most
/// 32,766 values to a statement.
const MAX_BATCH: u32 = 4_096;

/// Maximum of every duration. Sums with longer ones could exceed the range of timestamps.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);
/// Minimum of an interval or a timeout, so that no loop runs without a pause.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

impl ServeConfig {
    /// Reads the file, and then the environment variables, which override it.
    ///
    /// # Errors
    /// The first error that is found, as one line that names the key.
    pub fn load(file: Option<&Path>, variables: &EnvVars) -> Result<Self, ConfigError> {
        Self::build(file, variables, None)
    }

    /// Reads both again while otpd runs with the configuration `before`. Keys that need a
    /// restart keep their value, and all other keys must be valid together with them.
    ///
    /// # Errors
    /// As for [`ServeConfig::load`], and also if only the next start would fail.
    pub fn load_after(
        before: &ConfigSnapshot,
        file: Option<&Path>,
        variables: &EnvVars,
    ) -> Result<(Self, ConfigDiff), ConfigError> {
        let mut next = Self::load(file, variables)?;
        let changes = before.changes(&next.snapshot);
        if !changes.fixed.is_empty() {
            next = Self::build(file, variables, Some(before))?;
        }
        Ok((next, changes))
    }

    fn build(
        file: Option<&Path>,
        variables: &EnvVars,
        before: Option<&ConfigSnapshot>,
    ) -> Result<Self, ConfigError> {
        let (settings, tables, snapshot) = load::load(file, variables, before)?;
        validate(&settings)?;
        let general = callers::policies(&tables.policy, &tables.purposes, None)?;
        let callers = callers::callers(&settings, &tables, &general)?;
        let test_recipients = callers::test_recipients(&settings, &callers)?;
        let delivery = delivery::delivery(&settings, tables.providers, &callers, &general)?;
        Ok(Self {
            settings,
            callers,
            test_recipients,
            delivery,
            snapshot,
        })
    }
}

/// Rejects settings that cannot work, or that are unsafe in their environment.
fn validate(settings: &TopLevelSettings) -> Result<(), ConfigError> {
    settings
        .traces
        .validate()
        .map_err(|(key, problem)| ConfigError::new(&format!("traces.{key}"), problem))?;
    let development = settings.environment == Environment::Development;
    if development && !settings.listen.ip().is_loopback() && !settings.development_remote {
        return Err(ConfigError::new(
            "listen",
            format!(
                "{} can be reached from other machines, and the development environment shows codes without authentication; listen on 127.0.0.1, or set OTPD_DEVELOPMENT_REMOTE=true",
                settings.listen
            ),
        ));
    }
    if !development && settings.keys.is_none() {
        return Err(missing_keys());
    }
    let StoreOptions {
        max_connections,
        max_batch,
        queue_size,
        batch_writers,
        ..
    } = settings.store;
    for (key, value) in [
        ("store.max_connections", u64::from(max_connections)),
        ("store.max_batch", u64::from(max_batch)),
        ("store.queue_size", u64::from(queue_size)),
        ("store.batch_writers", u64::from(batch_writers)),
    ] {
        if value == 0 {
            let problem = "0 is out of bounds; allowed: 1 and more";
            return Err(ConfigError::new(key, problem));
        }
    }
    if max_batch > MAX_BATCH {
        return Err(ConfigError::new(
            "store.max_batch",
            format!("{max_batch} is out of bounds; allowed: 1 to {MAX_BATCH}"),
        ));
    }
    if let Some(receipts) = &settings.receipts {
        receipts.validate(settings.environment)?;
    }
    if let Some((key, problem)) = settings.http_api.validate() {
        return Err(ConfigError::new(&format!("http_api.{key}"), problem));
    }
    if let Some((key, problem)) = settings.connections.validate() {
        return Err(ConfigError::new(&format!("connections.{key}"), problem));
    }
    validate_durations(settings)
}

/// Rejects intervals without a pause, and durations so long that sums with them overflow.
fn validate_durations(settings: &TopLevelSettings) -> Result<(), ConfigError> {
    let zero = Duration::ZERO;
    let interval = settings.reload_interval;
    let min_reload_interval = if interval.is_zero() {
        zero
    } else {
        MIN_INTERVAL
    };
    for (key, duration, min) in [
        ("reload_interval", interval, min_reload_interval),
        ("store.timeout", settings.store.timeout, MIN_INTERVAL),
        (
            "store.probe_interval",
            settings.store.probe_interval,
            MIN_INTERVAL,
        ),
        (
            "store.purge_interval",
            settings.store.purge_interval,
            MIN_INTERVAL,
        ),
        ("store.max_queue_wait", settings.store.max_queue_wait, zero),
        (
            "delivery.poll_interval",
            settings.delivery.poll_interval,
            MIN_INTERVAL,
        ),
        ("log_dedup_window", settings.log_dedup_window, zero),
        ("shutdown_delay", settings.shutdown_delay, zero),
        ("shutdown_timeout", settings.shutdown_timeout, zero),
    ] {
        if !(min..=MAX_DURATION).contains(&duration) {
            let duration = humantime::format_duration(duration);
            let min = humantime::format_duration(min);
            return Err(ConfigError::new(
                key,
                format!("{duration} is out of bounds; allowed: {min} to 365d"),
            ));
        }
    }
    Ok(())
}

fn missing_keys() -> ConfigError {
    ConfigError::new(
        "keys",
        "required in production; create them with `otpd keygen --output FILE`, and set OTPD_KEYS_FILE=FILE",
    )
}

/// Returns the file of the development keys: next to the SQLite file, or else in the
/// working directory.
///
/// # Errors
/// [`ConfigError`] if the environment is production.
pub fn development_keys_file(
    environment: Environment,
    database: Option<&Path>,
) -> Result<PathBuf, ConfigError> {
    environment.development().ok_or_else(missing_keys)?;
    let directory = database.and_then(Path::parent).unwrap_or(Path::new(""));
    Ok(directory.join("otpd.keys"))
}
