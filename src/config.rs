//! What otpd is told: one TOML file, every key also as `OTPD_…`, secrets also from
//! files. Each mistake is one line that names the key.

mod callers;
mod delivery;
mod load;
mod log;
mod service_links;
mod settings;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use load::{ConfigDiff, ConfigError, ConfigSnapshot, EnvVars};
pub use log::{AuditLog, LogFormat, LogLevel};
pub use settings::{DEFAULT_LISTEN, TopLevelSettings};

use crate::{
    auth::CallerRegistry, delivery::Delivery, environment::Environment, store::StoreOptions,
};
use otpd_rules::TestRecipient;

/// Everything that `otpd serve` is told.
#[derive(Debug)]
pub struct ServeConfig {
    /// The plain keys.
    pub settings: TopLevelSettings,
    /// Who may call, and how the codes of each behave: `[policy]`, `[purposes.NAME]`
    /// and `[callers.NAME]`.
    pub callers: CallerRegistry,
    /// Who gets a fixed code and no message.
    pub test_recipients: Vec<TestRecipient>,
    /// How messages travel, and what they say: `[providers.NAME]`, `[[routes]]` and
    /// `[texts.PURPOSE]`.
    pub delivery: Delivery,
    /// What all of it was made of.
    pub written: ConfigSnapshot,
}

/// The largest batch that every store takes: SQLite binds 32,766 values to a statement.
const MAX_BATCH: u32 = 4_096;

/// Maximum of every duration. Sums of longer ones leave the calendar.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);
/// Minimum of an interval or a time-out; nothing is done without a pause.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

impl ServeConfig {
    /// Reads the file, then the environment on top of it.
    ///
    /// # Errors
    /// The first mistake, as one line that names the key.
    pub fn load(file: Option<&Path>, variables: &EnvVars) -> Result<Self, ConfigError> {
        Self::build(file, variables, None)
    }

    /// Reads both again while otpd runs with what was written `before`: what cannot change
    /// meanwhile keeps its value, and all else must fit that.
    ///
    /// # Errors
    /// Also a mistake that only the next start would meet.
    pub fn load_after(
        before: &ConfigSnapshot,
        file: Option<&Path>,
        variables: &EnvVars,
    ) -> Result<(Self, ConfigDiff), ConfigError> {
        let mut next = Self::load(file, variables)?;
        let changes = before.changes(&next.written);
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
        let (settings, tables, written) = load::load(file, variables, before)?;
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
fn check(settings: &TopLevelSettings) -> Result<(), ConfigError> {
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
        queue_size,
        batch_writers: writers,
        ..
    } = settings.store;
    for (key, given) in [
        ("store.max_connections", u64::from(max_connections)),
        ("store.max_batch", u64::from(max_batch)),
        ("store.queue_size", u64::from(queue_size)),
        ("store.batch_writers", u64::from(writers)),
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
    if let Some((key, problem)) = settings.connections.validate() {
        return Err(ConfigError::new(&format!("connections.{key}"), problem));
    }
    check_durations(settings)
}

/// Refuses durations that cannot work: intervals without a pause, and any that is so long
/// that sums with it overflow.
fn check_durations(settings: &TopLevelSettings) -> Result<(), ConfigError> {
    let none = Duration::ZERO;
    let interval = settings.reload_interval;
    let least_interval = if interval.is_zero() {
        none
    } else {
        MIN_INTERVAL
    };
    for (key, duration, least) in [
        ("reload_interval", interval, least_interval),
        ("store.timeout", settings.store.timeout, MIN_INTERVAL),
        (
            "store.probe_interval",
            settings.store.probe_interval,
            MIN_INTERVAL,
        ),
        (
            "store.sweep_interval",
            settings.store.sweep_interval,
            MIN_INTERVAL,
        ),
        ("store.max_queue_wait", settings.store.max_queue_wait, none),
        (
            "delivery.poll_interval",
            settings.delivery.poll_interval,
            MIN_INTERVAL,
        ),
        ("log_dedup_window", settings.log_dedup_window, none),
        ("shutdown_delay", settings.shutdown_delay, none),
        ("shutdown_timeout", settings.shutdown_timeout, none),
    ] {
        if !(least..=MAX_DURATION).contains(&duration) {
            let given = humantime::format_duration(duration);
            let least = humantime::format_duration(least);
            return Err(ConfigError::new(
                key,
                format!("{given} is out of bounds; allowed: {least} to 365d"),
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
    use crate::auth::PresentedCredentials;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<ServeConfig, String> {
        let directory = std::env::temp_dir();
        let path = directory.join(format!(
            "otpd-config-{}-{:p}.toml",
            std::process::id(),
            &file
        ));
        std::fs::write(&path, file).expect("the temporary directory takes files");
        let variables = EnvVars::new(
            variables
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string())),
        );
        let config = ServeConfig::load(Some(&path), &variables);
        std::fs::remove_file(&path).expect("the file was just written");
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn environment_overrides_file() {
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
        let caller = config
            .callers
            .identify(&PresentedCredentials::default())
            .unwrap();
        let general = &caller.policies.general;
        assert_eq!((general.code_ttl.as_secs(), general.max_attempts), (120, 4));
        let sign_up = caller.policies.of(&"sign-up".parse().unwrap());
        assert_eq!(sign_up.code_length, 8);
        assert_eq!(
            (sign_up.max_attempts, sign_up.resend_after.as_secs()),
            (4, 30)
        );
    }

    /// A file with a mistake, or a variable, and the part of the error that names its place.
    const MISTAKES: &[(&str, (&str, &str), &str)] = &[
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
        ("[store]\nqueue_size = 0", ("", ""), "store.queue_size"),
        (
            "[store]\nbatch_writers = 0",
            ("", ""),
            "store.batch_writers",
        ),
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
        ("log_dedup_window = \"soon\"", ("", ""), "log_dedup_window"),
        ("log_dedup_window = \"366d\"", ("", ""), "log_dedup_window"),
        ("shutdown_delay = \"1000y\"", ("", ""), "shutdown_delay"),
        (
            "shutdown_timeout = \"584542046090y\"",
            ("", ""),
            "shutdown_timeout",
        ),
        ("reload_interval = \"366d\"", ("", ""), "reload_interval"),
        ("[store]\ntimeout = \"366d\"", ("", ""), "store.timeout"),
        (
            "[store]\nmax_queue_wait = \"366d\"",
            ("", ""),
            "store.max_queue_wait",
        ),
        (
            "[connections]\nhandshake_timeout = \"1000y\"",
            ("", ""),
            "connections.handshake_timeout",
        ),
        (
            "[policy]\nfailure_memory = \"584542046090y\"",
            ("", ""),
            "policy.failure_memory",
        ),
        (
            "[traces]\nendpoint = \"collector:4317\"",
            ("", ""),
            "traces.endpoint",
        ),
        (
            "[traces]\nsample_ratio = 1.5",
            ("", ""),
            "traces.sample_ratio",
        ),
        (
            "",
            ("OTPD_TRACES__SAMPLE_RATIO", "-1"),
            "traces.sample_ratio",
        ),
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
    ];

    #[test]
    fn each_config_problem_is_one_line_naming_its_key() {
        for &(file, variable, key) in MISTAKES {
            let error = load(file, &[variable]).expect_err(file);
            assert!(error.contains(key), "{error:?} does not name {key}");
            assert!(!error.contains('\n'), "{error:?} is more than one line");
        }
    }

    #[test]
    fn renamed_key_is_rejected_with_its_current_name() {
        for (file, variable, message) in [
            (
                "shutdown_grace = \"10s\"",
                ("", ""),
                "shutdown_grace: was renamed; write `shutdown_timeout` instead",
            ),
            (
                "[store]\nmax_waiting = 1",
                ("", ""),
                "store.max_waiting: was renamed; write `queue_size` instead",
            ),
            (
                "",
                ("OTPD_STORE__WRITERS", "2"),
                "OTPD_STORE__WRITERS: was renamed; write `batch_writers` instead",
            ),
            (
                "[callers.crm]\ndelivers = true",
                ("", ""),
                "callers.crm.delivers: was renamed; write `self_delivery` instead",
            ),
            (
                "[providers.mail]\nkind = \"smtp\"\nhost = \"localhost\"\nfrom = \"a@b.c\"\nconcurrency = 2",
                ("", ""),
                "providers.mail.concurrency: was renamed; write `max_concurrency` instead",
            ),
        ] {
            let error = load(file, &[variable]).expect_err(file);
            assert_eq!(error, message, "{file}");
        }
    }

    #[test]
    fn enum_values_are_case_insensitive_and_listed_in_errors() {
        let config = load(
            "environment = \"Development\"\nlog_format = \"JSON\"\naudit_log = \"STDOUT\"\n",
            &[("OTPD_LOG_LEVEL", "Warn")],
        )
        .unwrap();
        assert_eq!(config.settings.log_format, LogFormat::Json);
        assert_eq!(config.settings.log_level, LogLevel::Warn);
        assert_eq!(config.settings.audit_log, AuditLog::Standard);
        let provider =
            "[providers.mail]\nkind = \"SMTP\"\nhost = \"localhost\"\nfrom = \"a@b.c\"\n";
        let route = "[[routes]]\nproviders = \"mail\"\n";
        load(
            &format!("{provider}tls = \"None\"\nchannel = \"Email\"\n{route}channels = [\"EMAIL\"]\nresend = \"Next\"\n"),
            &[],
        )
        .unwrap();
        for (file, variable, message) in [
            (
                String::new(),
                ("OTPD_ENVIRONMENT", "staging"),
                "OTPD_ENVIRONMENT: unknown value \"staging\"; use one of: development, production",
            ),
            (
                "log_level = \"loud\"".to_owned(),
                ("", ""),
                "log_level: unknown value \"loud\"; use one of: error, warn, info, debug, trace",
            ),
            (
                format!("{provider}tls = \"ssl\"\n"),
                ("", ""),
                "providers.mail.tls: unknown value \"ssl\"; use one of: starttls, implicit, none",
            ),
            (
                format!("{provider}{route}channels = [\"pigeon\"]\n"),
                ("", ""),
                "routes[0].channels: unknown value \"pigeon\"; use one of: sms, email, voice, whatsapp, telegram",
            ),
            (
                format!("{provider}{route}resend = \"never\"\n"),
                ("", ""),
                "routes[0].resend: unknown value \"never\"; use one of: same, next",
            ),
        ] {
            assert_eq!(load(&file, &[variable]).unwrap_err(), message);
        }
    }

    #[test]
    fn kubernetes_service_links_are_ignored_and_others_explained() {
        load(
            "",
            &[
                ("OTPD_SERVICE_HOST", "10.0.0.7"),
                ("OTPD_SERVICE_PORT", "50051"),
                ("OTPD_SERVICE_PORT_GRPC", "50051"),
                ("OTPD_PORT", "tcp://10.0.0.7:50051"),
                ("OTPD_PORT_50051_TCP", "tcp://10.0.0.7:50051"),
                ("OTPD_PORT_50051_TCP_PROTO", "tcp"),
                ("OTPD_PORT_50051_TCP_PORT", "50051"),
                ("OTPD_PORT_50051_TCP_ADDR", "fd00::7"),
                ("OTPD_METRICS_SERVICE_HOST", "10.0.0.8"),
                ("OTPD_METRICS_PORT", "udp://[fd00::8]:53"),
            ],
        )
        .unwrap();
        for (name, value) in [
            ("OTPD_PORT", "50051"),
            ("OTPD_SERVICE_HOST", "otpd.example"),
            ("OTPD_PORT_50051_TCP_ADDR", "none"),
        ] {
            let error = load("", &[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
            assert!(error.contains("enableServiceLinks"), "{error}");
        }
        let error = load("", &[("OTPD_LISTNE", "x")]).unwrap_err();
        assert!(!error.contains("enableServiceLinks"), "{error}");
    }

    #[test]
    fn credential_of_two_callers_is_rejected() {
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
    fn config_debug_output_shows_no_secret() {
        let url = "postgres://otpd:hush-1111@127.0.0.1/otpd";
        let config = load(
            &format!("database_url = \"{url}\"\n"),
            &[("OTPD_KEYS", "hush-2222")],
        );
        let shown = format!("{:?}", config.unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn secret_and_secret_file_are_mutually_exclusive() {
        let error = load("", &[("OTPD_KEYS", "a"), ("OTPD_KEYS_FILE", "b")]).unwrap_err();
        assert!(error.contains("OTPD_KEYS_FILE"), "{error}");
    }
}
