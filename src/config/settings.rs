//! The plain keys, and what each is where nothing is said.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    callers::TestRecipientTable,
    delivery::RouteTable,
    load::name,
    log::{AuditLog, LogFormat, LogLevel},
};
use crate::{
    connection::{ConnectionSettings, TlsSettings},
    delivery::text::{Locale, PurposeTextSettings},
    environment::Environment,
    outbox::OutboxOptions,
    store::StoreOptions,
    traces::TraceSettings,
};
use otpd_rules::{Purpose, Region};

/// Where clients find otpd, and where it listens, unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);

/// The keys outside of `[policy]`, `[purposes.NAME]` and `[callers.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct TopLevelSettings {
    /// Where to listen; other than loopback only with `development_remote`, or in
    /// production.
    ///
    /// Default: `127.0.0.1:50051`.
    pub listen: SocketAddr,
    /// What mistakes are still harmless.
    #[serde(deserialize_with = "name")]
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
    #[serde(deserialize_with = "name")]
    pub log_format: LogFormat,
    /// Which of otpd's own log lines there are.
    #[serde(deserialize_with = "name")]
    pub log_level: LogLevel,
    /// How long a warning that repeats the one before it is left out of the log; nothing:
    /// never.
    #[serde(with = "humantime_serde")]
    pub log_dedup_window: Duration,
    /// Where the lines for auditors are: among all others, or in a file of their own, as
    /// JSON.
    ///
    /// Default: `stdout`.
    pub audit_log: AuditLog,
    /// How long after SIGTERM requests are still taken, health being NOT_SERVING, so
    /// that load balancers notice.
    #[serde(with = "humantime_serde")]
    pub shutdown_delay: Duration,
    /// How long what runs may then still take.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
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

impl Default for TopLevelSettings {
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
            log_dedup_window: Duration::from_secs(10),
            audit_log: AuditLog::default(),
            shutdown_delay: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(10),
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
