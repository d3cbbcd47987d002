//! Table `[connections]`: limits and timeouts of connections.

use std::time::Duration;

use serde::Deserialize;

use super::memory_budget::{CONNECTION_BYTES, STREAM_BYTES};

/// Table `[connections]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionSettings {
    /// Maximum number of open connections.
    pub max: usize,
    /// Maximum number of connections from one address (IPv6: one /64); 0: no limit. Loopback
    /// is exempt, because all clients of a service mesh connect from there.
    pub max_per_address: usize,
    /// Maximum number of connections from one site of IPv6 (one /48 of global addresses);
    /// 0: no limit.
    pub max_per_site: usize,
    /// Maximum number of concurrent requests on one connection.
    pub max_streams: u32,
    /// Memory budget in MiB of all connections together, with their requests and
    /// responses. Each connection reserves 128 KiB and 2 KiB for each of its `max_streams`;
    /// requests share the rest.
    pub memory_mib: u32,
    /// Age at which a connection is closed gracefully, with a jitter of a tenth, so that load
    /// spreads to new replicas; zero: never.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Time that its requests then have to complete.
    #[serde(with = "humantime_serde")]
    pub max_age_grace: Duration,
    /// Time without a request after which a connection is closed; zero: never.
    #[serde(with = "humantime_serde")]
    pub max_idle: Duration,
    /// Maximum time for the TLS handshake and the preface of HTTP/2.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// Maximum time for the message of a request to arrive.
    #[serde(with = "humantime_serde")]
    pub request_body_timeout: Duration,
    /// Interval of keepalive pings on a connection.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// Maximum time for the reply to a ping, and maximum time in which a client accepts no
    /// bytes.
    #[serde(with = "humantime_serde")]
    pub keepalive_timeout: Duration,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            // Within an open file limit of 1,024 and the 512 MiB of deploy/kubernetes.yaml.
            max: 400,
            max_per_address: 128,
            max_per_site: 256,
            max_streams: 100,
            memory_mib: 192,
            max_age: Duration::from_mins(10),
            max_age_grace: Duration::from_secs(30),
            max_idle: Duration::from_mins(5),
            handshake_timeout: Duration::from_secs(10),
            request_body_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl ConnectionSettings {
    /// Memory of all connections in bytes.
    pub fn memory_bytes(&self) -> usize {
        usize::try_from(self.memory_mib)
            .unwrap_or(usize::MAX)
            .saturating_mul(1024 * 1024)
    }

    /// Bytes reserved for each connection.
    pub fn connection_bytes(&self) -> usize {
        let streams = usize::try_from(self.max_streams).unwrap_or(usize::MAX);
        streams
            .saturating_mul(STREAM_BYTES)
            .saturating_add(CONNECTION_BYTES)
    }

    /// Returns the first invalid key and its problem.
    pub fn validate(&self) -> Option<(&'static str, String)> {
        const SHORTEST: Duration = Duration::from_millis(10);
        const LONGEST: Duration = Duration::from_hours(365 * 24);
        let none = "0 is out of bounds; allowed: 1 and more".to_owned();
        if self.max == 0 {
            return Some(("max", none));
        }
        if self.max_streams == 0 {
            return Some(("max_streams", none));
        }
        // A quarter is left to requests.
        let reserved = self.max.saturating_mul(self.connection_bytes());
        let needed = reserved.saturating_add(reserved / 3).div_ceil(1024 * 1024);
        if needed.saturating_mul(1024 * 1024) > self.memory_bytes() {
            let problem = format!(
                "{} is too little for {} connections with {} streams each; allowed: {needed} and more, or lower connections.max or connections.max_streams",
                self.memory_mib, self.max, self.max_streams
            );
            return Some(("memory_mib", problem));
        }
        let problem = |duration: Duration, off: bool| {
            let is_fine = (SHORTEST..=LONGEST).contains(&duration) || off && duration.is_zero();
            (!is_fine).then(|| {
                let given = humantime::format_duration(duration);
                let or_off = if off { ", or 0s for never" } else { "" };
                format!("{given} is out of bounds; allowed: 10ms to 365d{or_off}")
            })
        };
        [
            ("max_age", self.max_age, true),
            ("max_age_grace", self.max_age_grace, false),
            ("max_idle", self.max_idle, true),
            ("handshake_timeout", self.handshake_timeout, false),
            ("request_body_timeout", self.request_body_timeout, false),
            ("keepalive_interval", self.keepalive_interval, false),
            ("keepalive_timeout", self.keepalive_timeout, false),
        ]
        .into_iter()
        .find_map(|(key, duration, off)| Some((key, problem(duration, off)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_budget_covers_all_connections_and_their_requests() {
        let settings = ConnectionSettings::default();
        assert_eq!(settings.validate(), None);
        let reserved = settings.max * settings.connection_bytes();
        assert!(reserved < settings.memory_bytes() / 4 * 3, "{reserved}");
        let more = ConnectionSettings {
            max: 4_096,
            ..settings
        };
        let (key, problem) = more.validate().unwrap();
        assert_eq!(key, "memory_mib");
        let needed = "192 is too little for 4096 connections with 100 streams each; allowed: 1750";
        assert!(problem.starts_with(needed), "{problem}");
        let enough = ConnectionSettings {
            memory_mib: 1_750,
            ..more.clone()
        };
        assert_eq!(enough.validate(), None);
        let short = ConnectionSettings {
            memory_mib: 1_749,
            ..more
        };
        assert!(short.validate().is_some());
    }
}
