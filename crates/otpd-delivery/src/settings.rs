//! Settings of a provider, `[providers.NAME]`.

use std::{fmt, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    GatewayOptions,
    breaker::BreakerOptions,
    http::{HttpSettings, HttpTable},
    preset,
    smtp::{SmtpSettings, SmtpTable},
};
use otpd_base::tables::{self, ConfigKeyError, ConfigTable};
use otpd_rules::Channel;

/// Keys that all kinds of provider have.
const COMMON: [&str; 6] = [
    "timeout",
    "max_concurrency",
    "rate_per_second",
    "channel",
    "breaker_failures",
    "breaker_open_for",
];

/// Settings of a provider.
#[derive(Debug)]
pub struct ProviderSettings {
    /// Settings for its use.
    pub common: CommonSettings,
    /// Kind of provider, with its own settings.
    pub kind: ProviderKind,
}

/// Kind of a provider.
#[derive(Debug)]
pub enum ProviderKind {
    /// The development log.
    Log,
    /// An SMTP server.
    Smtp(Box<SmtpSettings>),
    /// A gateway over HTTP.
    Http(Box<HttpSettings>),
}

/// Settings for the use of a provider of any kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommonSettings {
    /// Maximum duration of one attempt, 100 ms to 60 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Maximum number of attempts that a replica makes at once.
    pub max_concurrency: usize,
    /// Maximum number of attempts that a replica starts in a second; 0 is no limit.
    pub rate_per_second: u32,
    /// Channel that the provider uses in fact, if it has only one.
    #[serde(deserialize_with = "channel")]
    pub channel: Option<Channel>,
    /// Number of consecutive failures that opens the circuit breaker.
    pub breaker_failures: u32,
    /// Time for which the circuit breaker stays open, 10 ms to 10 min; then one message
    /// after the other probes the provider, until one succeeds.
    #[serde(with = "humantime_serde")]
    pub breaker_open_for: Duration,
}

impl Default for CommonSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            max_concurrency: 16,
            rate_per_second: 0,
            channel: None,
            breaker_failures: 5,
            breaker_open_for: Duration::from_secs(10),
        }
    }
}

impl ProviderSettings {
    /// Reads the table `[providers.NAME]`, and the files that it names.
    ///
    /// # Errors
    /// [`ConfigKeyError`] with the first wrong key of the provider's table, or the
    /// variable that it came from.
    pub fn parse(name: &str, table: ConfigTable) -> Result<Self, ConfigKeyError> {
        let key = format!("providers.{name}");
        let (mut table, needs) = preset::apply_preset(table).map_err(|fault| fault.inside(&key))?;
        let kind = match table.remove("kind") {
            None => {
                return Err(ConfigKeyError::new(
                    format!("{key}.kind"),
                    "is missing; write \"smtp\", \"http\" or \"log\", or name a preset",
                ));
            }
            Some(kind) => kind.into_string().unwrap_or_default().to_lowercase(),
        };
        let (common, own): (ConfigTable, ConfigTable) = table
            .into_iter()
            .partition(|(name, _)| COMMON.contains(&name.as_str()));
        let common: CommonSettings = tables::read(&key, common)?;
        common.validate().map_err(|fault| fault.inside(&key))?;
        let kind = match kind.as_str() {
            "log" => {
                let LogProviderConfig {} = read(&key, own)?;
                Ok(ProviderKind::Log)
            }
            "smtp" => {
                let table: SmtpTable = read(&key, own)?;
                SmtpSettings::new(table, common.timeout)
                    .map(|settings| ProviderKind::Smtp(Box::new(settings)))
            }
            "http" => {
                let table: HttpTable = read(&key, own)?;
                needs
                    .check(&table)
                    .and_then(|()| HttpSettings::new(table, common.timeout))
                    .map(|settings| ProviderKind::Http(Box::new(settings)))
            }
            _ => Err(ConfigKeyError::new(
                "kind",
                "unknown kind of provider; use one of: smtp, http, log",
            )),
        };
        Ok(Self {
            common,
            kind: kind.map_err(|fault| fault.inside(&key))?,
        })
    }
}

/// Settings of the development log: it has no keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogProviderConfig {}

fn read<T: DeserializeOwned>(name: &str, keys: ConfigTable) -> Result<T, ConfigKeyError> {
    tables::read(name, keys).map_err(|mut fault| {
        // The hint is for the provider's own table. Tables inside it have no such keys.
        if fault.unknown
            && fault
                .key
                .strip_prefix(name)
                .is_some_and(|key| key.matches('.').count() == 1)
        {
            let common = COMMON.map(|key| format!("`{key}`")).join(", ");
            fault.problem = format!("{}, `kind`, `preset`, {common}", fault.problem);
        }
        fault
    })
}

impl CommonSettings {
    fn validate(&self) -> Result<(), ConfigKeyError> {
        let bounds = Duration::from_millis(100)..=Duration::from_mins(1);
        if !bounds.contains(&self.timeout) {
            let given = humantime::format_duration(self.timeout);
            return Err(ConfigKeyError::new(
                "timeout",
                format!("{given} is out of bounds; allowed: 100ms to 60s"),
            ));
        }
        if self.max_concurrency == 0 {
            return Err(ConfigKeyError::new(
                "max_concurrency",
                "0 is out of bounds; allowed: 1 and more",
            ));
        }
        if self.breaker_failures == 0 {
            return Err(ConfigKeyError::new(
                "breaker_failures",
                "0 is out of bounds; allowed: 1 and more",
            ));
        }
        let bounds = Duration::from_millis(10)..=Duration::from_mins(10);
        if !bounds.contains(&self.breaker_open_for) {
            let given = humantime::format_duration(self.breaker_open_for);
            return Err(ConfigKeyError::new(
                "breaker_open_for",
                format!("{given} is out of bounds; allowed: 10ms to 10m"),
            ));
        }
        Ok(())
    }

    /// Converts the settings for a provider handle.
    pub fn options(&self) -> GatewayOptions {
        GatewayOptions {
            timeout: self.timeout,
            max_concurrency: self.max_concurrency,
            rate_per_second: self.rate_per_second,
            channel: self.channel,
            breaker: BreakerOptions {
                failures: self.breaker_failures,
                pause: self.breaker_open_for,
            },
        }
    }
}

fn channel<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Channel>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    name.map(|name| {
        Channel::from_name(&name.to_lowercase()).ok_or_else(|| serde::de::Error::custom(NoChannel))
    })
    .transpose()
}

struct NoChannel;

impl fmt::Display for NoChannel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("unknown channel; use one of: sms, email, voice, whatsapp, telegram")
    }
}
