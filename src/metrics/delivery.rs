//! Messages on their way, and the codes that arrived.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{
    Known, Names, SECONDS, fixed,
    grid::{Grid, Label},
    known, number_of,
};
use crate::domain::{Channel, Country, ErrorClass};

/// From a tenth of a second, in which a near gateway takes a message, to the end of a
/// code's longest life.
const DELAYS: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// The channels, in the order of [`Channel`].
const CHANNELS: [Channel; 5] = [
    Channel::Sms,
    Channel::Email,
    Channel::Voice,
    Channel::WhatsApp,
    Channel::Telegram,
];
/// What comes of an attempt: it was taken, or the class of the error.
const RESULTS: [&str; 6] = [
    "accepted",
    ErrorClass::Transient.name(),
    ErrorClass::Timeout.name(),
    ErrorClass::Permanent.name(),
    ErrorClass::BadDestination.name(),
    ErrorClass::NoBalance.name(),
];
/// How messages end, in the order of [`Ended`].
const ENDS: [&str; 3] = ["sent", "failed", "dropped"];

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A provider has taken it.
    Sent,
    /// No provider ever will.
    Failed,
    /// Its code died first.
    Dropped,
}

type Counters<const LABELS: usize> = Grid<Counter, fn() -> Counter, LABELS>;
type Histograms = Grid<Histogram, fn() -> Histogram, 1>;

/// How messages do. Clones count into the same.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    tables: Arc<RwLock<Tables>>,
    delays: Arc<Histograms>,
    ended: Arc<Counters<1>>,
}

/// What depends on the names that are known.
#[derive(Debug)]
struct Tables {
    sent: Counters<3>,
    verified: Counters<3>,
    attempts: Counters<3>,
    durations: Histograms,
}

impl Default for DeliveryMetrics {
    /// Metrics that nobody scrapes.
    fn default() -> Self {
        Self::new(&Known::default(), &mut Registry::default())
    }
}

impl DeliveryMetrics {
    pub(super) fn new(all: &Known, registry: &mut Registry) -> Self {
        let providers = known(&all.providers);
        let sent = Counters::new(
            "otpd_codes_sent",
            "Messages taken by a provider, and codes given to callers that deliver by themselves",
            codes_labels(&providers),
            Counter::default,
            registry,
        );
        let verified = Counters::new(
            "otpd_codes_verified",
            "Codes verified, by who delivered the last message of each",
            codes_labels(&providers),
            Counter::default,
            registry,
        );
        let attempts = Counters::new(
            "otpd_delivery_attempts",
            "Attempts to hand a message to a provider, by what came of them",
            attempts_labels(&providers),
            Counter::default,
            registry,
        );
        let durations = Histograms::new(
            "otpd_delivery_attempt_duration_seconds",
            "What one attempt took",
            [("provider", providers)],
            || Histogram::new(SECONDS),
            registry,
        );
        let delays = Histograms::new(
            "otpd_delivery_delay_seconds",
            "From the commit of a message until a provider took it, by the store's clock",
            [channels()],
            || Histogram::new(DELAYS),
            registry,
        );
        let ended = Counters::new(
            "otpd_messages_ended",
            "Messages that are final, by how they ended",
            [("result", fixed(ENDS))],
            Counter::default,
            registry,
        )
        .with_all_series();
        let tables = Tables {
            sent,
            verified,
            attempts,
            durations,
        };
        Self {
            tables: Arc::new(RwLock::new(tables)),
            delays: Arc::new(delays),
            ended: Arc::new(ended),
        }
    }

    pub(super) fn know(&self, all: &Known) {
        let providers = known(&all.providers);
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        *tables = Tables {
            sent: tables.sent.with(codes_labels(&providers)),
            verified: tables.verified.with(codes_labels(&providers)),
            attempts: tables.attempts.with(attempts_labels(&providers)),
            durations: tables.durations.with([("provider", providers)]),
        };
    }

    fn with(&self, count: impl FnOnce(&Tables)) {
        // Nobody panics half-way through a new table.
        count(&self.tables.read().unwrap_or_else(PoisonError::into_inner));
    }

    /// A provider was asked, and took the message or failed.
    pub fn attempted(
        &self,
        provider: &str,
        channel: Channel,
        took: Duration,
        error: Option<ErrorClass>,
    ) {
        self.with(|tables| {
            let number = number_of(tables.attempts.names(0), provider);
            let result = error.map_or("accepted", ErrorClass::name);
            let result = RESULTS.iter().position(|name| *name == result);
            let place = [number, channel as usize, result.unwrap_or_default()];
            tables.attempts.at(place).inc();
            tables.durations.at([number]).observe(took.as_secs_f64());
        });
    }

    /// A provider has taken a message, so long after it was written.
    pub fn sent(&self, provider: &str, channel: Channel, country: Country, delay: Duration) {
        self.delays
            .at([channel as usize])
            .observe(delay.as_secs_f64());
        self.given(provider, channel, country);
    }

    /// A code is on its way by somebody who writes down no attempts.
    pub fn given(&self, provider: &str, channel: Channel, country: Country) {
        self.with(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            let place = [channel as usize, country.number(), provider];
            tables.sent.at(place).inc();
        });
    }

    /// A code was verified that this provider had delivered.
    pub fn verified(&self, provider: &str, channel: Channel, country: Country) {
        self.with(|tables| {
            let provider = number_of(tables.verified.names(2), provider);
            let place = [channel as usize, country.number(), provider];
            tables.verified.at(place).inc();
        });
    }

    /// A message is final.
    pub fn ended(&self, how: Ended) {
        self.ended.at([how as usize]).inc();
    }
}

fn channels() -> Label {
    ("channel", fixed(CHANNELS.map(Channel::name)))
}

fn codes_labels(providers: &Names) -> [Label; 3] {
    let countries = (0..Country::COUNT).map(|number| Country::numbered(number).to_string());
    [
        channels(),
        ("country", countries.collect()),
        ("provider", Arc::clone(providers)),
    ]
}

fn attempts_labels(providers: &Names) -> [Label; 3] {
    [
        ("provider", Arc::clone(providers)),
        channels(),
        ("result", fixed(RESULTS)),
    ]
}
