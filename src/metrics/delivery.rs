//! Metrics of deliveries, and of the codes that were verified after them.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};

use super::{
    ConfiguredNames, LATENCY_BUCKETS, LabelValues, fixed_label_values,
    grid::{CounterGrid, LabelDomain},
    number_of, with_other,
};
use crate::labels::label_enum;
use otpd_rules::{Channel, CountryCode, DeliveryErrorKind, DeliveryState};

/// Buckets of delivery latencies: from a tenth of a second, in which a near gateway accepts a
/// message, to the longest lifetime of a code.
const LATENCIES: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Results of an attempt: accepted, or the kind of the error.
const RESULTS: [&str; 7] = [
    "accepted",
    DeliveryErrorKind::Transient.name(),
    DeliveryErrorKind::Timeout.name(),
    DeliveryErrorKind::Permanent.name(),
    DeliveryErrorKind::BadDestination.name(),
    DeliveryErrorKind::NoBalance.name(),
    DeliveryErrorKind::UnknownOutcome.name(),
];
label_enum! {
    /// Final outcome of a message.
    pub enum MessageOutcome {
        /// A provider accepted it.
        Sent = DeliveryState::Sent.name(),
        /// No provider will accept it.
        Failed = DeliveryState::Failed.name(),
        /// Its code expired or was used first.
        Dropped = DeliveryState::Dropped.name(),
        /// It may have arrived, and another attempt would exceed the bound on copies.
        Undecided = "undecided",
    }
}

type DeliveryCounters<const LABELS: usize> = CounterGrid<Counter, fn() -> Counter, LABELS>;
type DeliveryHistograms = CounterGrid<Histogram, fn() -> Histogram, 1>;

/// Metrics of deliveries. Clones share their counters.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    tables: Arc<RwLock<LabeledDelivery>>,
    latencies: Arc<DeliveryHistograms>,
    outcomes: Arc<DeliveryCounters<1>>,
}

/// Counters with label values from the configuration.
#[derive(Debug)]
struct LabeledDelivery {
    sent: DeliveryCounters<3>,
    verified: DeliveryCounters<3>,
    attempts: DeliveryCounters<3>,
    durations: DeliveryHistograms,
}

impl LabeledDelivery {
    fn count_sent(&self, provider: usize, channel: Channel, country: CountryCode) {
        let series = [channel as usize, country.number(), provider];
        self.sent.at(series).inc();
    }

    /// Counts an attempt and returns the number of its provider.
    fn count_attempt(
        &self,
        provider: &str,
        channel: Channel,
        error: Option<DeliveryErrorKind>,
    ) -> usize {
        let number = number_of(self.attempts.names(0), provider);
        let result = error.map_or("accepted", DeliveryErrorKind::name);
        let result = RESULTS.iter().position(|name| *name == result);
        let series = [number, channel as usize, result.unwrap_or_default()];
        self.attempts.at(series).inc();
        number
    }

    fn count_verified(&self, provider: usize, channel: Channel, country: CountryCode) {
        let series = [channel as usize, country.number(), provider];
        self.verified.at(series).inc();
    }
}

impl Default for DeliveryMetrics {
    /// Returns metrics that are not part of any registry.
    fn default() -> Self {
        Self::new(&LabelValues::default(), &mut Registry::default())
    }
}

impl DeliveryMetrics {
    pub(super) fn new(values: &LabelValues, registry: &mut Registry) -> Self {
        let providers = with_other(&values.providers);
        let sent = DeliveryCounters::new(
            "otpd_codes_sent",
            "Messages accepted by a provider, and codes returned to callers that deliver them",
            code_labels(&providers),
            Counter::default,
            registry,
        );
        let verified = DeliveryCounters::new(
            "otpd_codes_verified",
            "Verified codes by the provider of their last message",
            code_labels(&providers),
            Counter::default,
            registry,
        );
        let attempts = DeliveryCounters::new(
            "otpd_delivery_attempts",
            "Delivery attempts by result",
            attempt_labels(&providers),
            Counter::default,
            registry,
        );
        let durations = DeliveryHistograms::new(
            "otpd_delivery_attempt_duration_seconds",
            "Duration of one delivery attempt",
            [("provider", providers)],
            || Histogram::new(LATENCY_BUCKETS),
            registry,
        );
        let latencies = DeliveryHistograms::new(
            "otpd_delivery_latency_seconds",
            "Time from the commit of a message until a provider accepted it, by the store's clock",
            [channels()],
            || Histogram::new(LATENCIES),
            registry,
        );
        let outcomes = DeliveryCounters::new(
            "otpd_messages_completed",
            "Messages in a final state by outcome",
            [("result", fixed_label_values(MessageOutcome::names()))],
            Counter::default,
            registry,
        )
        .with_all_series();
        let tables = LabeledDelivery {
            sent,
            verified,
            attempts,
            durations,
        };
        Self {
            tables: Arc::new(RwLock::new(tables)),
            latencies: Arc::new(latencies),
            outcomes: Arc::new(outcomes),
        }
    }

    pub(super) fn set_label_values(&self, values: &LabelValues) {
        let providers = with_other(&values.providers);
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        *tables = LabeledDelivery {
            sent: tables.sent.with_labels(code_labels(&providers)),
            verified: tables.verified.with_labels(code_labels(&providers)),
            attempts: tables.attempts.with_labels(attempt_labels(&providers)),
            durations: tables.durations.with_labels([("provider", providers)]),
        };
    }

    fn with_tables<T>(&self, count: impl FnOnce(&LabeledDelivery) -> T) -> T {
        // A poisoned lock holds a complete table, because nothing panics while one is replaced.
        count(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records an attempt, with its error if it failed.
    pub fn attempted(
        &self,
        provider: &str,
        channel: Channel,
        duration: Duration,
        error: Option<DeliveryErrorKind>,
    ) {
        self.with_tables(|tables| {
            let number = tables.count_attempt(provider, channel, error);
            tables
                .durations
                .at([number])
                .observe(duration.as_secs_f64());
        });
    }

    /// Counts an attempt of a replica that was lost before it knew the outcome.
    pub fn interrupted(&self, provider: &str, channel: Channel) {
        let error = Some(DeliveryErrorKind::UnknownOutcome);
        self.with_tables(|tables| {
            tables.count_attempt(provider, channel, error);
        });
    }

    /// Counts a message that a provider accepted `latency` after its commit.
    pub fn sent(&self, provider: &str, channel: Channel, country: CountryCode, latency: Duration) {
        self.latencies
            .at([channel as usize])
            .observe(latency.as_secs_f64());
        self.with_tables(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            tables.count_sent(provider, channel, country);
        });
    }

    /// Counts a code that its caller delivers, which records no attempts.
    pub fn self_delivered(&self, provider: &str, channel: Channel, country: CountryCode) {
        self.with_tables(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            tables.count_sent(provider, channel, country);
        });
    }

    /// Counts a verified code that this provider had delivered.
    pub fn verified(&self, provider: &str, channel: Channel, country: CountryCode) {
        self.with_tables(|tables| {
            let provider = number_of(tables.verified.names(2), provider);
            tables.count_verified(provider, channel, country);
        });
    }

    /// Counts a message that reached a final state.
    pub fn ended(&self, outcome: MessageOutcome) {
        self.outcomes.at([outcome as usize]).inc();
    }
}

fn channels() -> LabelDomain {
    (
        "channel",
        fixed_label_values(Channel::ALL.map(Channel::name)),
    )
}

fn code_labels(providers: &ConfiguredNames) -> [LabelDomain; 3] {
    let countries = (0..CountryCode::COUNT).map(|number| CountryCode::numbered(number).to_string());
    [
        channels(),
        ("country", countries.collect()),
        ("provider", Arc::clone(providers)),
    ]
}

fn attempt_labels(providers: &ConfiguredNames) -> [LabelDomain; 3] {
    [
        ("provider", Arc::clone(providers)),
        channels(),
        ("result", fixed_label_values(RESULTS)),
    ]
}
