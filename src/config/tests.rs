use super::*;
use crate::{
    auth::PresentedCredentials,
    telemetry::{AuditLog, LogFormat, LogLevel},
};

fn load(file: &str, variables: &[(&str, &str)]) -> Result<ServeConfig, String> {
    let directory = std::env::temp_dir();
    let path = directory.join(format!(
        "otpd-config-{}-{:p}.toml",
        std::process::id(),
        &file
    ));
    std::fs::write(&path, file).expect("the temporary directory is writable");
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

/// Invalid files and variables, each with the part of the error that names the key.
const INVALID_CONFIGS: &[(&str, (&str, &str), &str)] = &[
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
    // The store would be polled without a pause.
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
    for &(file, variable, key) in INVALID_CONFIGS {
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
            "[store]\nsweep_interval = \"1m\"",
            ("", ""),
            "store.sweep_interval: was renamed; write `purge_interval` instead",
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
    let provider = "[providers.mail]\nkind = \"SMTP\"\nhost = \"localhost\"\nfrom = \"a@b.c\"\n";
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
    for (key, credential) in [
        ("token_sha256", DIGEST),
        ("certificate_names", "crm.internal"),
    ] {
        let caller =
            |name: &str| format!("[callers.{name}]\n{key} = \"{credential},{credential}\"\n");
        load(&format!("{tls}{}", caller("crm")), &[]).unwrap();
        let error = load(&format!("{tls}{}{}", caller("crm"), caller("shop")), &[]).unwrap_err();
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
