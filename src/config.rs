//! What otpd is told: one TOML file, every key also as `OTPD_…`, secrets also from
//! files. Each mistake is one line that names the key.

mod callers;
mod delivery;
mod log;
mod source;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use serde::Deserialize;

pub use log::{AuditLog, LogFormat, LogLevel};
pub use source::{Changes, ConfigError, Variables, Written};

use crate::{
    callers::Callers,
    connection::{ConnectionSettings, TlsSettings},
    delivery::{
        Delivery,
        text::{Locale, PurposeTextSettings},
    },
    domain::{Purpose, Region, TestRecipient},
    outbox::OutboxOptions,
    store::StoreOptions,
    traces::TraceSettings,
};
use callers::TestRecipientTable;
use delivery::RouteTable;

/// Where clients find otpd, and where it listens, unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);

/// Everything that `otpd serve` is told.
#[derive(Debug)]
pub struct Config {
    /// The plain keys.
    pub settings: Settings,
    /// Who may call, and how the codes of each behave: `[policy]`, `[purposes.NAME]`
    /// and `[callers.NAME]`.
    pub callers: Callers,
    /// Who gets a fixed code and no message.
    pub test_recipients: Vec<TestRecipient>,
    /// How messages travel, and what they say: `[providers.NAME]`, `[[routes]]` and
    /// `[texts.PURPOSE]`.
    pub delivery: Delivery,
    /// What all of it was made of.
    pub written: Written,
}

/// The keys outside of `[policy]`, `[purposes.NAME]` and `[callers.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Settings {
    /// Where to listen; other than loopback only with `development_remote`, or in
    /// production.
    ///
    /// Default: `127.0.0.1:50051`.
    pub listen: SocketAddr,
    /// What mistakes are still harmless.
    pub environment: Environment,
    /// Whether a development server may be reached from other machines, as in compose.
    pub development_remote: bool,
    /// The store: `postgres://…`, of several servers of one database `postgres://a,b/…`; or
    /// `sqlite://…`.
    pub database_url: SecretString,
    /// The key ring itself; see `otpd keygen`.
    ///
    /// Default: the file `otpd.keys` beside the SQLite file, made at the first start.
    pub keys: Option<SecretString>,
    /// The region in which national phone numbers are read where a request names
    /// none.
    pub default_region: Option<Region>,
    /// Where to tell what is measured; nowhere, where it is unset.
    pub operations_listen: Option<SocketAddr>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which of otpd's own log lines there are.
    pub log_level: LogLevel,
    /// How long a warning that repeats the one before it is left out of the log; nothing:
    /// never.
    #[serde(with = "humantime_serde")]
    pub log_repeat_after: Duration,
    /// Where the lines for auditors are: among all others, or in a file of their own, as
    /// JSON.
    ///
    /// Default: `stdout`.
    pub audit_log: AuditLog,
    /// How long after SIGTERM requests are still taken, health being NOT_SERVING, so
    /// that load balancers notice.
    #[serde(with = "humantime_serde")]
    pub shutdown_wait: Duration,
    /// How long what runs may then still take.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// How often it is looked whether a file of the configuration is another one; zero:
    /// never.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
    /// Whether the services that describe otpd to clients are there.
    pub reflection: bool,
    /// TLS of the listener; without it connections are plain.
    pub tls: Option<TlsSettings>,
    /// What one client may take, and for how long.
    pub connections: ConnectionSettings,
    /// Whether tokens may come over plain connections of other machines, as where a
    /// mesh does the TLS.
    pub allow_plaintext_tokens: bool,
    /// Recipients with a fixed code.
    pub test_recipients: Vec<TestRecipientTable>,
    /// Whether there may be test recipients in production.
    pub allow_test_recipients: bool,
    /// The language of messages where a request names none, or one without a text.
    ///
    /// Default: `en`.
    pub default_locale: Locale,
    /// What messages say.
    pub texts: BTreeMap<Purpose, PurposeTextSettings>,
    /// Which messages go to which providers.
    pub routes: Vec<RouteTable>,
    /// How messages are carried.
    pub delivery: OutboxOptions,
    /// How the store is used.
    pub store: StoreOptions,
    /// Where spans go.
    pub traces: TraceSettings,
}

/// What mistakes are still harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// One machine, no callers to tell apart, codes in the log.
    #[default]
    Development,
    /// The real thing.
    Production,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            environment: Environment::default(),
            development_remote: false,
            database_url: SecretString::from("sqlite://otpd.db"),
            keys: None,
            default_region: None,
            operations_listen: None,
            log_format: LogFormat::default(),
            log_level: LogLevel::default(),
            log_repeat_after: Duration::from_secs(10),
            audit_log: AuditLog::default(),
            shutdown_wait: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(10),
            reload_interval: Duration::from_secs(5),
            reflection: true,
            tls: None,
            connections: ConnectionSettings::default(),
            allow_plaintext_tokens: false,
            test_recipients: Vec::new(),
            allow_test_recipients: false,
            default_locale: Locale::default(),
            texts: BTreeMap::new(),
            routes: Vec::new(),
            delivery: OutboxOptions::default(),
            store: StoreOptions::default(),
            traces: TraceSettings::default(),
        }
    }
}

/// The largest batch that every store takes: SQLite binds 32,766 values to a statement.
const MAX_BATCH: u32 = 4_096;

impl Config {
    /// Reads the file, then the environment on top of it.
    ///
    /// # Errors
    /// The first mistake, as one line that names the key.
    pub fn load(file: Option<&Path>, variables: &Variables) -> Result<Self, ConfigError> {
        Self::build(file, variables, None)
    }

    /// Reads both again while otpd runs with what was written `before`: what cannot change
    /// meanwhile keeps its value, and all else must fit that.
    ///
    /// # Errors
    /// Also a mistake that only the next start would meet.
    pub fn load_after(
        before: &Written,
        file: Option<&Path>,
        variables: &Variables,
    ) -> Result<(Self, Changes), ConfigError> {
        let mut next = Self::load(file, variables)?;
        let changes = before.changes(&next.written);
        if !changes.fixed.is_empty() {
            next = Self::build(file, variables, Some(before))?;
        }
        Ok((next, changes))
    }

    fn build(
        file: Option<&Path>,
        variables: &Variables,
        before: Option<&Written>,
    ) -> Result<Self, ConfigError> {
        let (settings, tables, written) = source::load(file, variables, before)?;
        check(&settings)?;
        let general = callers::policies(&tables.policy, &tables.purposes, None)?;
        let callers = callers::callers(&settings, &tables, &general)?;
        let test_recipients = callers::test_recipients(&settings, &callers)?;
        let delivery = delivery::delivery(&settings, tables.providers, &callers, &general)?;
        Ok(Self {
            settings,
            callers,
            test_recipients,
            delivery,
            written,
        })
    }
}

/// Refuses what cannot work, and what is not safe in its environment.
fn check(settings: &Settings) -> Result<(), ConfigError> {
    settings
        .traces
        .validate()
        .map_err(|(key, problem)| ConfigError::new(&format!("traces.{key}"), problem))?;
    let development = settings.environment == Environment::Development;
    if development && !settings.listen.ip().is_loopback() && !settings.development_remote {
        return Err(ConfigError::new(
            "listen",
            format!(
                "{} can be reached from other machines, and the development environment shows codes to whoever asks; listen on 127.0.0.1, or set OTPD_DEVELOPMENT_REMOTE=true",
                settings.listen
            ),
        ));
    }
    if !development && settings.keys.is_none() {
        return Err(ConfigError::new(
            "keys",
            "production needs keys of its own; make them by `otpd keygen --output FILE`, and set OTPD_KEYS_FILE=FILE",
        ));
    }
    let StoreOptions {
        max_connections,
        max_batch,
        max_waiting,
        writers,
        ..
    } = settings.store;
    for (key, given) in [
        ("store.max_connections", u64::from(max_connections)),
        ("store.max_batch", u64::from(max_batch)),
        ("store.max_waiting", u64::from(max_waiting)),
        ("store.writers", u64::from(writers)),
    ] {
        if given == 0 {
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
    if let Some((key, problem)) = settings.connections.fault() {
        return Err(ConfigError::new(&format!("connections.{key}"), problem));
    }
    let interval = settings.reload_interval;
    let interval = (!interval.is_zero()).then_some(("reload_interval", interval));
    for (key, duration) in interval.into_iter().chain([
        ("store.timeout", settings.store.timeout),
        ("store.probe_interval", settings.store.probe_interval),
        ("store.sweep_interval", settings.store.sweep_interval),
    ]) {
        if duration < Duration::from_millis(10) {
            let given = humantime::format_duration(duration);
            return Err(ConfigError::new(
                key,
                format!("{given} is out of bounds; allowed: 10ms and more"),
            ));
        }
    }
    Ok(())
}

/// The file that development keys are kept in: beside the SQLite file, else in the
/// working directory.
pub fn development_keys_file(database: Option<&Path>) -> PathBuf {
    let directory = database.and_then(Path::parent).unwrap_or(Path::new(""));
    directory.join("otpd.keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::Proof;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let directory = std::env::temp_dir();
        let path = directory.join(format!(
            "otpd-config-{}-{:p}.toml",
            std::process::id(),
            &file
        ));
        std::fs::write(&path, file).expect("the temporary directory takes files");
        let variables = Variables::new(
            variables
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string())),
        );
        let config = Config::load(Some(&path), &variables);
        std::fs::remove_file(&path).expect("the file was just written");
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_stands_above_the_file() {
        let config = load(
            "default_region = \"RU\"\n[policy]\ncode_ttl = \"2m\"\nmax_attempts = 3\n[purposes.sign-up]\ncode_length = 8\n",
            &[
                ("OTPD_POLICY__MAX_ATTEMPTS", "4"),
                ("OTPD_PURPOSES__SIGN-UP__RESEND_AFTER", "30s"),
                ("OTPD_STORE__MAX_CONNECTIONS", "7"),
                ("DATABASE_URL", "postgres://localhost/otpd"),
                ("OTPD_TOKEN", "for clients"),
                ("OTPD_DEFAULT_REGION", ""),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.settings.store.max_connections, 7);
        assert_eq!(config.settings.default_region, "RU".parse().ok());
        let caller = config.callers.identify(&Proof::default()).unwrap();
        let general = &caller.policies.general;
        assert_eq!((general.code_ttl.as_secs(), general.max_attempts), (120, 4));
        let sign_up = caller.policies.of(&"sign-up".parse().unwrap());
        assert_eq!(sign_up.code_length, 8);
        assert_eq!(
            (sign_up.max_attempts, sign_up.resend_after.as_secs()),
            (4, 30)
        );
    }

    #[test]
    fn each_mistake_is_one_line_that_names_its_key() {
        for (file, variable, key) in [
            ("listne = \"127.0.0.1:1\"", ("", ""), "listne"),
            ("listen = \"nowhere\"", ("", ""), "listen"),
            ("listen = \"0.0.0.0:50051\"", ("", ""), "listen"),
            ("listen = ", ("", ""), "line 1"),
            ("environment = \"staging\"", ("", ""), "environment"),
            ("default_region = \"ZZ\"", ("", ""), "default_region"),
            ("[policy]\ncode_length = 5", ("", ""), "policy.code_length"),
            ("[policy]\ncode_lenght = 6", ("", ""), "policy.code_lenght"),
            ("[policy]\ncode_ttl = \"11m\"", ("", ""), "policy.code_ttl"),
            ("[policy]\ncode_ttl = \"soon\"", ("", ""), "policy.code_ttl"),
            ("policy = 5", ("", ""), "policy"),
            (
                "[purposes.Login]\ncode_length = 8",
                ("", ""),
                "purposes.Login",
            ),
            (
                "[purposes.login]\nmax_attempts = 0",
                ("", ""),
                "purposes.login.max_attempts",
            ),
            (
                "[purposes.login]\nmax_attempt = 1",
                ("", ""),
                "purposes.login.max_attempt",
            ),
            (
                "[store]\nmax_connections = 0",
                ("", ""),
                "store.max_connections",
            ),
            ("[store]\nmax_batch = 0", ("", ""), "store.max_batch"),
            ("[store]\nmax_batch = 4097", ("", ""), "store.max_batch"),
            ("[store]\nmax_waiting = 0", ("", ""), "store.max_waiting"),
            ("[store]\nwriters = 0", ("", ""), "store.writers"),
            (
                "operations_listen = \"9464\"",
                ("", ""),
                "operations_listen",
            ),
            ("log_repeat_after = \"soon\"", ("", ""), "log_repeat_after"),
            (
                "[traces]\nendpoint = \"collector:4317\"",
                ("", ""),
                "traces.endpoint",
            ),
            ("[traces]\nsample = 1.5", ("", ""), "traces.sample"),
            ("", ("OTPD_TRACES__SAMPLE", "-1"), "traces.sample"),
            ("[traces]\nsamples = 1", ("", ""), "traces.samples"),
            ("", ("OTPD_LISTNE", "x"), "OTPD_LISTNE"),
            (
                "",
                ("OTPD_POLICY__MAX_ATTEMPTS", "many"),
                "OTPD_POLICY__MAX_ATTEMPTS",
            ),
            ("", ("OTPD_KEYS_FILE", "/nowhere"), "OTPD_KEYS_FILE"),
            ("", ("DATABASE_URL_FILE", "/nowhere"), "DATABASE_URL_FILE"),
            ("", ("OTPD_ENVIRONMENT", "production"), "keys"),
        ] {
            let error = load(file, &[variable]).expect_err(file);
            assert!(error.contains(key), "{error:?} does not name {key}");
            assert!(!error.contains('\n'), "{error:?} is more than one line");
        }
    }

    #[test]
    fn a_secret_is_given_once() {
        let error = load("", &[("OTPD_KEYS", "a"), ("OTPD_KEYS_FILE", "b")]).unwrap_err();
        assert!(error.contains("OTPD_KEYS_FILE"), "{error}");
    }
}
