//! Keys at the top level of the configuration, with their defaults.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    callers::TestRecipientTable, delivery::RouteTable, load::name, receipts::ReceiptSettings,
};
use crate::{
    listener::{
        ConnectionConfig, ConnectionSettings, HttpApiRules, HttpApiSettings, ServerTls, TlsError,
        TlsSettings,
    },
    outbox::OutboxOptions,
    store::StoreOptions,
    telemetry::{AuditLog, LogFormat, LogLevel},
    traces::TraceSettings,
};
use otpd_base::environment::Environment;
use otpd_delivery::text::{Locale, PurposeTextSettings};
use otpd_rules::{Purpose, Region};

/// Default address of the listener, and of the server for clients.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);

/// Keys outside of `[policy]`, `[purposes.NAME]`, `[callers.NAME]` and `[providers.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct TopLevelSettings {
    /// Address of the gRPC listener. Other addresses than loopback need
    /// `development_remote` or production.
    ///
    /// Default: `127.0.0.1:50051`.
    pub listen: SocketAddr,
    /// `development` is for local use: codes in the log, no credentials needed.
    /// `production` rejects every unsafe setting.
    #[serde(deserialize_with = "name")]
    pub environment: Environment,
    /// Lets a development server listen for other machines, for example in compose.
    pub development_remote: bool,
    /// URL of the database: `postgres://…`, `postgres://a,b/…` for several servers of one
    /// database, or `sqlite://…`.
    pub database_url: SecretString,
    /// Key ring in the format of `otpd keygen`. Required in production.
    ///
    /// Default: the file `otpd.keys` next to the SQLite file, created at the first start.
    pub keys: Option<SecretString>,
    /// Region of phone numbers in national format, if the request has no region.
    pub default_region: Option<Region>,
    /// Address of the operations listener (metrics and log level). Unset: disabled.
    pub operations_listen: Option<SocketAddr>,
    /// Format of log lines.
    #[serde(deserialize_with = "name")]
    pub log_format: LogFormat,
    /// Minimum level of otpd's own log lines.
    #[serde(deserialize_with = "name")]
    pub log_level: LogLevel,
    /// Time for which a warning that repeats the previous one is left out of the log. 0:
    /// disabled.
    #[serde(with = "humantime_serde")]
    pub log_dedup_window: Duration,
    /// Destination of the audit log: `stdout` together with all other lines, or a separate
    /// file, as JSON.
    ///
    /// Default: `stdout`.
    pub audit_log: AuditLog,
    /// Time after SIGTERM in which requests are still accepted while health is NOT_SERVING,
    /// so that load balancers notice.
    #[serde(with = "humantime_serde")]
    pub shutdown_delay: Duration,
    /// Maximum time after that in which running work must end.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    /// Interval of checks for changed configuration files. 0: disabled.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
    /// Enables the gRPC reflection services.
    pub reflection: bool,
    /// The contract over plain HTTP, for clients without gRPC.
    pub http_api: HttpApiSettings,
    /// Receipts of verifications. Unset: none.
    pub receipts: Option<ReceiptSettings>,
    /// TLS of the listener. Unset: plaintext connections.
    pub tls: Option<TlsSettings>,
    /// Limits and timeouts of connections.
    pub connections: ConnectionSettings,
    /// Accepts tokens over plaintext connections of other machines, for example if a
    /// service mesh provides TLS.
    pub allow_plaintext_tokens: bool,
    /// Recipients with a fixed code.
    pub test_recipients: Vec<TestRecipientTable>,
    /// Allows test recipients in production.
    pub allow_test_recipients: bool,
    /// Language of messages if the request has none, or has one without a text.
    ///
    /// Default: `en`.
    pub default_locale: Locale,
    /// Texts of messages.
    pub texts: BTreeMap<Purpose, PurposeTextSettings>,
    /// Assignment of messages to providers.
    pub routes: Vec<RouteTable>,
    /// Options of the outbox.
    pub delivery: OutboxOptions,
    /// Options of the store.
    pub store: StoreOptions,
    /// Export of traces.
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
            http_api: HttpApiSettings::default(),
            receipts: None,
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

impl TopLevelSettings {
    /// Returns the rules of the HTTP API; none if it is off.
    fn http_api(&self) -> Option<HttpApiRules> {
        self.http_api.rules(self.environment)
    }

    /// Returns the configuration of new connections, with the certificates of
    /// [`read_tls`](Self::read_tls).
    pub fn connection_config(&self, tls: Option<ServerTls>) -> Arc<ConnectionConfig> {
        Arc::new(ConnectionConfig {
            tls,
            bounds: self.connections.clone(),
            http_api: self.http_api().map(Arc::new),
        })
    }

    /// Reads the certificate files of the listener; `None` without TLS.
    ///
    /// # Errors
    /// The key of the first file that cannot be used.
    pub fn read_tls(&self) -> Result<Option<ServerTls>, TlsError> {
        let http1 = self.http_api().is_some();
        self.tls.as_ref().map(|tls| tls.read(http1)).transpose()
    }
}
