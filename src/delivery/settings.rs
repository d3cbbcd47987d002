//! `[providers.NAME]`: what a provider is, and how it is used.

use std::{fmt, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    GatewayOptions,
    breaker::BreakerOptions,
    http::{HttpSettings, HttpTable},
    preset,
    smtp::{SmtpSettings, SmtpTable},
};
use crate::tables::{self, ConfigKeyError, ConfigTable};
use otpd_rules::Channel;

/// Keys that each kind of provider has.
const COMMON: [&str; 6] = [
    "timeout",
    "max_concurrency",
    "rate_per_second",
    "channel",
    "breaker_failures",
    "breaker_open_for",
];

/// A provider as the configuration describes it.
#[derive(Debug)]
pub struct ProviderSettings {
    /// How it is used.
    pub common: CommonSettings,
    /// What it is.
    pub kind: ProviderKind,
}

/// What a provider is.
#[derive(Debug)]
pub enum ProviderKind {
    /// The development log.
    Log,
    /// An SMTP server.
    Smtp(Box<SmtpSettings>),
    /// A gateway over HTTP.
    Http(Box<HttpSettings>),
}

/// How a provider is used, whatever it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommonSettings {
    /// How long one attempt may take, 100 ms to 60 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How many attempts a replica makes at once.
    pub max_concurrency: usize,
    /// How many attempts a replica begins in a second; 0 is no limit.
    pub rate_per_second: u32,
    /// The channel that it really sends by, where that is one alone.
    #[serde(deserialize_with = "channel")]
    pub channel: Option<Channel>,
    /// After how many failures in a row it is left alone for a while.
    pub breaker_failures: u32,
    /// For how long, 10 ms to 10 min; then one message after the other tries it, until
    /// one succeeds.
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
    /// The first key at fault, with the provider's table, or the variable that it came
    /// from.
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
                "no kind of provider; use one of: smtp, http, log",
            )),
        };
        Ok(Self {
            common,
            kind: kind.map_err(|fault| fault.inside(&key))?,
        })
    }
}

/// A provider that is a word alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogProviderConfig {}

fn read<T: DeserializeOwned>(name: &str, keys: ConfigTable) -> Result<T, ConfigKeyError> {
    tables::read(name, keys).map_err(|mut fault| {
        // Of the provider's own table: a key in one of its tables has none of these.
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

    /// The same, as a gateway takes it.
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
        formatter.write_str("no channel; use one of: sms, email, voice, whatsapp, telegram")
    }
}
