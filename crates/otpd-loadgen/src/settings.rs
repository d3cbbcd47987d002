//! Settings of a run.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

/// Settings of a run.
#[derive(Clone, Debug, Serialize)]
pub struct BenchSettings {
    /// Addresses of the servers.
    pub addresses: Vec<String>,
    /// Logs of the servers, from which codes are read.
    pub codes: Vec<PathBuf>,
    /// Number of HTTP/2 connections, in all.
    pub connections: usize,
    /// Number of pairs at once, in all; for pairs at a rate, the maximum.
    pub in_flight: usize,
    /// Duration of the phase that counts; `None` if the number of pairs is given.
    #[serde(with = "humantime_serde")]
    pub duration: Option<Duration>,
    /// Number of pairs that count.
    pub pairs: Option<u64>,
    /// Time after the ramp in which pairs do not count.
    #[serde(with = "humantime_serde")]
    pub warm_up: Duration,
    /// Time in which the rate or the pairs in flight grow at first; these pairs do not
    /// count.
    #[serde(with = "humantime_serde")]
    pub ramp: Duration,
    /// Pairs that arrive per second, independent of the responses; `None` if the next one
    /// starts when one ends.
    pub rate: Option<f64>,
    /// Share of pairs that submit a wrong code before the correct one.
    pub wrong_share: f64,
    /// Number of hot recipients; `None` if each pair has a new one.
    pub hot: Option<usize>,
    /// Number of attempts per code that the servers check.
    pub max_attempts: u32,
    /// Number of IP addresses of end users; with 0 requests have none.
    pub client_ips: u32,
    /// Number of regions of the recipients.
    pub regions: usize,
    /// Purpose of the codes.
    pub purpose: String,
    /// Audience of the receipts that verifications ask for; `None` if they ask for none.
    pub receipt_audience: Option<String>,
    /// Number of threads of the load generator.
    pub threads: usize,
}

impl BenchSettings {
    /// Returns true if as many pairs are in flight at the start of the phase that counts
    /// as at its end, or if the rate is given. Then the phase need not last until its
    /// last pair has ended, because pairs and time match.
    pub fn starts_amid_load(&self) -> bool {
        self.rate.is_some() || !(self.warm_up + self.ramp).is_zero()
    }
}
