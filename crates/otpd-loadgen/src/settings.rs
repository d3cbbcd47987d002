//! What a run is told.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

/// How a run goes.
#[derive(Clone, Debug, Serialize)]
pub struct BenchSettings {
    /// The servers' addresses.
    pub addresses: Vec<String>,
    /// The servers' logs, from which codes are read.
    pub codes: Vec<PathBuf>,
    /// HTTP/2 connections, in all.
    pub connections: usize,
    /// Pairs at once, in all; where pairs arrive at a rate, the most that may be.
    pub in_flight: usize,
    /// How long pairs count; nothing where their number is given.
    #[serde(with = "humantime_serde")]
    pub duration: Option<Duration>,
    /// How many pairs count.
    pub pairs: Option<u64>,
    /// How long, after the ramp, pairs do not count.
    #[serde(with = "humantime_serde")]
    pub warm_up: Duration,
    /// How long rate or pairs in flight grow at first; these pairs do not count.
    #[serde(with = "humantime_serde")]
    pub ramp: Duration,
    /// How many pairs arrive a second, whatever becomes of them; nothing where the next
    /// one starts when one ends.
    pub rate: Option<f64>,
    /// The share of pairs in which a wrong code comes before the right one.
    pub wrong_share: f64,
    /// How many recipients are hammered; nothing where each pair has a new one.
    pub hot: Option<usize>,
    /// How many wrong answers the servers judge per code.
    pub max_attempts: u32,
    /// From how many addresses end users come; with 0 none is told.
    pub client_ips: u32,
    /// From how many regions recipients are.
    pub regions: usize,
    /// What the codes are for.
    pub purpose: String,
    /// The threads of the load generator.
    pub threads: usize,
}

impl BenchSettings {
    /// Whether as much is in flight when the time that counts begins as when it ends, or
    /// the rate is given: then it need not last until the last pair that counts has ended
    /// for pairs and time to fit each other.
    pub fn starts_amid_load(&self) -> bool {
        self.rate.is_some() || !(self.warm_up + self.ramp).is_zero()
    }
}
