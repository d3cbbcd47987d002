//! Metrics of deliveries, and of the codes that were verified after them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
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
use otpd_rules::{ChallengeNonce, Channel, CountryCode, DeliveryErrorKind, DeliveryState};

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
/// Labels of message outcomes, in the order of [`MessageOutcome`].
const OUTCOMES: [&str; 4] = [
    DeliveryState::Sent.name(),
    DeliveryState::Failed.name(),
    DeliveryState::Dropped.name(),
    "undecided",
];

/// Final outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    /// A provider accepted it.
    Sent,
    /// No provider will accept it.
    Failed,
    /// Its code expired or was used first.
    Dropped,
    /// It may have arrived, and another attempt would exceed the bound on copies.
    Undecided,
}

type DeliveryCounters<const LABELS: usize> = CounterGrid<Counter, fn() -> Counter, LABELS>;
type DeliveryHistograms = CounterGrid<Histogram, fn() -> Histogram, 1>;

/// Metrics of deliveries. Clones share their counters.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    tables: Arc<RwLock<LabeledDelivery>>,
    latencies: Arc<DeliveryHistograms>,
    outcomes: Arc<DeliveryCounters<1>>,
    recent: Arc<OnceLock<RecentDeliveries>>,
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

/// Maximum number of codes in a generation of [`RecentDeliveries`]: some megabytes.
const GENERATION_SIZE: usize = 32_768;

/// Providers, by number, that accepted the last message of recent codes which were not verified yet.
#[derive(Debug, Default)]
struct RecentDeliveries(Mutex<TwoGenerations>);

#[derive(Debug, Default)]
struct TwoGenerations {
    young: HashMap<[u8; 16], (usize, Channel)>,
    old: HashMap<[u8; 16], (usize, Channel)>,
}

impl RecentDeliveries {
    fn insert(&self, challenge: ChallengeNonce, delivery: (usize, Channel)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.young.len() >= GENERATION_SIZE {
            all.old = std::mem::take(&mut all.young);
        }
        all.young.insert(challenge.0, delivery);
    }

    fn take(&self, challenge: ChallengeNonce) -> Option<(usize, Channel)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = all.old.remove(&challenge.0);
        all.young.remove(&challenge.0).or(old)
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = TwoGenerations::default();
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
            [("result", fixed_label_values(OUTCOMES))],
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
            recent: Arc::default(),
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
        // The numbers of the providers have changed. Codes sent before are attributed by the store.
        if let Some(recent) = self.recent.get() {
            recent.clear();
        }
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

    /// Keeps the providers of recent [`sent`](Self::sent) messages from now on, so that a code which
    /// the same replica verifies is attributed at once.
    pub fn remember(&self) {
        self.recent.get_or_init(RecentDeliveries::default);
    }

    /// Counts a message of the challenge that a provider accepted `latency` after its commit.
    pub fn sent(
        &self,
        challenge: ChallengeNonce,
        provider: &str,
        channel: Channel,
        country: CountryCode,
        latency: Duration,
    ) {
        self.latencies
            .at([channel as usize])
            .observe(latency.as_secs_f64());
        self.with_tables(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            tables.count_sent(provider, channel, country);
            if let Some(recent) = self.recent.get() {
                recent.insert(challenge, (provider, channel));
            }
        });
    }

    /// Counts a code that its caller delivers, which records no attempts.
    pub fn self_delivered(&self, provider: &str, channel: Channel, country: CountryCode) {
        self.with_tables(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            tables.count_sent(provider, channel, country);
        });
    }

    /// Counts a verified code if this replica knows its provider, and returns whether it does.
    pub fn verified_here(&self, challenge: ChallengeNonce, country: CountryCode) -> bool {
        let Some(recent) = self.recent.get() else {
            return false;
        };
        // Under one lock, because a provider's number is valid only for these tables.
        self.with_tables(|tables| {
            let Some((provider, channel)) = recent.take(challenge) else {
                return false;
            };
            tables.count_verified(provider, channel, country);
            true
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(number: usize) -> ChallengeNonce {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        ChallengeNonce(nonce)
    }

    #[test]
    fn last_provider_of_a_recent_code_is_taken_once() {
        let recent = RecentDeliveries::default();
        recent.insert(nonce(1), (1, Channel::Sms));
        recent.insert(nonce(1), (2, Channel::Voice));
        assert_eq!(recent.take(nonce(1)), Some((2, Channel::Voice)));
        assert_eq!(recent.take(nonce(1)), None);
    }

    #[test]
    fn configuration_change_attributes_no_code_to_another_provider() {
        let values = |providers: &[&str]| LabelValues {
            providers: providers.iter().map(ToString::to_string).collect(),
            ..LabelValues::default()
        };
        let metrics = DeliveryMetrics::new(&values(&["smtp"]), &mut Registry::default());
        metrics.remember();
        let country = CountryCode::numbered(0);
        let send = |number| {
            metrics.sent(
                nonce(number),
                "smtp",
                Channel::Email,
                country,
                Duration::ZERO,
            );
        };
        send(1);
        assert!(metrics.verified_here(nonce(1), country));
        send(2);
        // Now "smtp" has another number.
        metrics.set_label_values(&values(&["gateway", "smtp"]));
        let attributed = metrics.verified_here(nonce(2), country);
        assert!(!attributed, "the store attributes it");
    }

    #[test]
    fn tracked_codes_are_bounded() {
        let recent = RecentDeliveries::default();
        for number in 0..GENERATION_SIZE * 5 {
            recent.insert(nonce(number), (0, Channel::Sms));
        }
        let all = recent.0.lock().unwrap();
        assert!(all.young.len() + all.old.len() <= GENERATION_SIZE * 2);
        drop(all);
        assert!(recent.take(nonce(GENERATION_SIZE * 5 - 1)).is_some());
        assert!(recent.take(nonce(0)).is_none());
    }
}
