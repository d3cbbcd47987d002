//! What otpd is told: one TOML file, every key also as `OTPD_…`, secrets also from
//! files. Each mistake is one line that names the key.

mod callers;
mod delivery;
mod log;
mod settings;
mod source;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use log::{AuditLog, LogFormat, LogLevel};
pub use settings::{DEFAULT_LISTEN, Settings};
pub use source::{Changes, ConfigError, Variables, Written};

use crate::{
    callers::Callers, delivery::Delivery, domain::TestRecipient, environment::Environment,
    store::StoreOptions,
};

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
        return Err(missing_keys());
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
        ("delivery.poll_interval", settings.delivery.poll_interval),
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

fn missing_keys() -> ConfigError {
    ConfigError::new(
        "keys",
        "production needs keys of its own; make them by `otpd keygen --output FILE`, and set OTPD_KEYS_FILE=FILE",
    )
}

/// The file that development keys are kept in: beside the SQLite file, else in the
/// working directory.
///
/// # Errors
/// The environment is production.
pub fn development_keys_file(
    environment: Environment,
    database: Option<&Path>,
) -> Result<PathBuf, ConfigError> {
    environment.development().ok_or_else(missing_keys)?;
    let directory = database.and_then(Path::parent).unwrap_or(Path::new(""));
    Ok(directory.join("otpd.keys"))
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
            // The store would be asked without a pause.
            (
                "[delivery]\npoll_interval = \"0s\"",
                ("", ""),
                "delivery.poll_interval",
            ),
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
    fn a_proof_is_of_one_caller() {
        const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
        for (key, proof) in [
            ("token_sha256", DIGEST),
            ("certificate_names", "crm.internal"),
        ] {
            let caller = |name: &str| format!("[callers.{name}]\n{key} = \"{proof},{proof}\"\n");
            load(&format!("{tls}{}", caller("crm")), &[]).unwrap();
            let error =
                load(&format!("{tls}{}{}", caller("crm"), caller("shop")), &[]).unwrap_err();
            assert!(
                error.starts_with(&format!("callers.shop.{key}: ")),
                "{error}"
            );
            assert!(error.contains("\"crm\""), "{error}");
        }
    }

    #[test]
    fn a_configuration_shows_no_secret() {
        let url = "postgres://otpd:hush-1111@127.0.0.1/otpd";
        let config = load(
            &format!("database_url = \"{url}\"\n"),
            &[("OTPD_KEYS", "hush-2222")],
        );
        let shown = format!("{:?}", config.unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_secret_is_given_once() {
        let error = load("", &[("OTPD_KEYS", "a"), ("OTPD_KEYS_FILE", "b")]).unwrap_err();
        assert!(error.contains("OTPD_KEYS_FILE"), "{error}");
    }
}
