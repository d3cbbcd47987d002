//! Messages on their way, and the codes that arrived.

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
    ConfiguredNames, LabelValues, SECONDS, fixed,
    grid::{CounterGrid, LabelDomain},
    known, number_of,
};
use otpd_rules::{ChallengeNonce, Channel, CountryCode, DeliveryErrorKind};

/// From a tenth of a second, in which a near gateway takes a message, to the end of a
/// code's longest life.
const DELAYS: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// What comes of an attempt: it was taken, or the class of the error.
const RESULTS: [&str; 7] = [
    "accepted",
    DeliveryErrorKind::Transient.name(),
    DeliveryErrorKind::Timeout.name(),
    DeliveryErrorKind::Permanent.name(),
    DeliveryErrorKind::BadDestination.name(),
    DeliveryErrorKind::NoBalance.name(),
    DeliveryErrorKind::UnknownOutcome.name(),
];
/// How messages end, in the order of [`MessageOutcome`].
const ENDS: [&str; 4] = ["sent", "failed", "dropped", "undecided"];

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    /// A provider has taken it.
    Sent,
    /// No provider ever will.
    Failed,
    /// Its code died first.
    Dropped,
    /// It may have arrived, and a further attempt would exceed the bound on copies.
    Undecided,
}

type DeliveryCounters<const LABELS: usize> = CounterGrid<Counter, fn() -> Counter, LABELS>;
type DeliveryHistograms = CounterGrid<Histogram, fn() -> Histogram, 1>;

/// How messages do. Clones count into the same.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    tables: Arc<RwLock<LabeledDelivery>>,
    delays: Arc<DeliveryHistograms>,
    ended: Arc<DeliveryCounters<1>>,
    recent: Arc<OnceLock<RecentDeliveries>>,
}

/// What depends on the names that are known.
#[derive(Debug)]
struct LabeledDelivery {
    sent: DeliveryCounters<3>,
    verified: DeliveryCounters<3>,
    attempts: DeliveryCounters<3>,
    durations: DeliveryHistograms,
}

impl LabeledDelivery {
    fn count_sent(&self, provider: usize, channel: Channel, country: CountryCode) {
        let place = [channel as usize, country.number(), provider];
        self.sent.at(place).inc();
    }

    /// Returns the number of the provider.
    fn count_attempt(
        &self,
        provider: &str,
        channel: Channel,
        error: Option<DeliveryErrorKind>,
    ) -> usize {
        let number = number_of(self.attempts.names(0), provider);
        let result = error.map_or("accepted", DeliveryErrorKind::name);
        let result = RESULTS.iter().position(|name| *name == result);
        let place = [number, channel as usize, result.unwrap_or_default()];
        self.attempts.at(place).inc();
        number
    }

    fn count_verified(&self, provider: usize, channel: Channel, country: CountryCode) {
        let place = [channel as usize, country.number(), provider];
        self.verified.at(place).inc();
    }
}

/// How many codes a generation of [`RecentDeliveries`] has: some megabytes at most.
const GENERATION: usize = 32_768;

/// Which provider, by its number, took the last message of a code; of the last codes
/// that were not verified yet.
#[derive(Debug, Default)]
struct RecentDeliveries(Mutex<TwoGenerations>);

#[derive(Debug, Default)]
struct TwoGenerations {
    young: HashMap<[u8; 16], (usize, Channel)>,
    old: HashMap<[u8; 16], (usize, Channel)>,
}

impl RecentDeliveries {
    fn note(&self, challenge: ChallengeNonce, by: (usize, Channel)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.young.len() >= GENERATION {
            all.old = std::mem::take(&mut all.young);
        }
        all.young.insert(challenge.0, by);
    }

    fn take(&self, challenge: ChallengeNonce) -> Option<(usize, Channel)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = all.old.remove(&challenge.0);
        all.young.remove(&challenge.0).or(old)
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = TwoGenerations::default();
    }
}

impl Default for DeliveryMetrics {
    /// Metrics that nobody scrapes.
    fn default() -> Self {
        Self::new(&LabelValues::default(), &mut Registry::default())
    }
}

impl DeliveryMetrics {
    pub(super) fn new(all: &LabelValues, registry: &mut Registry) -> Self {
        let providers = known(&all.providers);
        let sent = DeliveryCounters::new(
            "otpd_codes_sent",
            "Messages taken by a provider, and codes given to callers that deliver by themselves",
            codes_labels(&providers),
            Counter::default,
            registry,
        );
        let verified = DeliveryCounters::new(
            "otpd_codes_verified",
            "Codes verified, by who delivered the last message of each",
            codes_labels(&providers),
            Counter::default,
            registry,
        );
        let attempts = DeliveryCounters::new(
            "otpd_delivery_attempts",
            "Attempts to hand a message to a provider, by what came of them",
            attempts_labels(&providers),
            Counter::default,
            registry,
        );
        let durations = DeliveryHistograms::new(
            "otpd_delivery_attempt_duration_seconds",
            "What one attempt took",
            [("provider", providers)],
            || Histogram::new(SECONDS),
            registry,
        );
        let delays = DeliveryHistograms::new(
            "otpd_delivery_latency_seconds",
            "From the commit of a message until a provider took it, by the store's clock",
            [channels()],
            || Histogram::new(DELAYS),
            registry,
        );
        let ended = DeliveryCounters::new(
            "otpd_messages_completed",
            "Messages that are final, by how they ended",
            [("result", fixed(ENDS))],
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
            delays: Arc::new(delays),
            ended: Arc::new(ended),
            recent: Arc::default(),
        }
    }

    pub(super) fn know(&self, all: &LabelValues) {
        let providers = known(&all.providers);
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        *tables = LabeledDelivery {
            sent: tables.sent.with(codes_labels(&providers)),
            verified: tables.verified.with(codes_labels(&providers)),
            attempts: tables.attempts.with(attempts_labels(&providers)),
            durations: tables.durations.with([("provider", providers)]),
        };
        // The numbers of providers are others now; the store knows who delivered a code.
        if let Some(recent) = self.recent.get() {
            recent.forget();
        }
    }

    fn with<T>(&self, count: impl FnOnce(&LabeledDelivery) -> T) -> T {
        // Nobody panics half-way through a new table.
        count(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A provider was asked, and took the message or failed.
    pub fn attempted(
        &self,
        provider: &str,
        channel: Channel,
        took: Duration,
        error: Option<DeliveryErrorKind>,
    ) {
        self.with(|tables| {
            let number = tables.count_attempt(provider, channel, error);
            tables.durations.at([number]).observe(took.as_secs_f64());
        });
    }

    /// Counts an attempt of a replica that was lost before it knew the outcome.
    pub fn interrupted(&self, provider: &str, channel: Channel) {
        let error = Some(DeliveryErrorKind::UnknownOutcome);
        self.with(|tables| {
            tables.count_attempt(provider, channel, error);
        });
    }

    /// Remembers from now on what is [`sent`](Self::sent), so that who delivered a code
    /// is known at once where the same replica verifies it.
    pub fn remember(&self) {
        self.recent.get_or_init(RecentDeliveries::default);
    }

    /// A provider has taken a message of that challenge, so long after it was written.
    pub fn sent(
        &self,
        challenge: ChallengeNonce,
        provider: &str,
        channel: Channel,
        country: CountryCode,
        delay: Duration,
    ) {
        self.delays
            .at([channel as usize])
            .observe(delay.as_secs_f64());
        self.with(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            tables.count_sent(provider, channel, country);
            if let Some(recent) = self.recent.get() {
                recent.note(challenge, (provider, channel));
            }
        });
    }

    /// A code is on its way by somebody who writes down no attempts.
    pub fn self_delivered(&self, provider: &str, channel: Channel, country: CountryCode) {
        self.with(|tables| {
            let provider = number_of(tables.sent.names(2), provider);
            tables.count_sent(provider, channel, country);
        });
    }

    /// A code was verified. Says whether it is known, and so counted, who had delivered
    /// it.
    pub fn verified_here(&self, challenge: ChallengeNonce, country: CountryCode) -> bool {
        let Some(recent) = self.recent.get() else {
            return false;
        };
        // Both under one lock, for a number is that of these tables.
        self.with(|tables| {
            let Some((provider, channel)) = recent.take(challenge) else {
                return false;
            };
            tables.count_verified(provider, channel, country);
            true
        })
    }

    /// A code was verified that this provider had delivered.
    pub fn verified(&self, provider: &str, channel: Channel, country: CountryCode) {
        self.with(|tables| {
            let provider = number_of(tables.verified.names(2), provider);
            tables.count_verified(provider, channel, country);
        });
    }

    /// A message is final.
    pub fn ended(&self, how: MessageOutcome) {
        self.ended.at([how as usize]).inc();
    }
}

fn channels() -> LabelDomain {
    ("channel", fixed(Channel::ALL.map(Channel::name)))
}

fn codes_labels(providers: &ConfiguredNames) -> [LabelDomain; 3] {
    let countries = (0..CountryCode::COUNT).map(|number| CountryCode::numbered(number).to_string());
    [
        channels(),
        ("country", countries.collect()),
        ("provider", Arc::clone(providers)),
    ]
}

fn attempts_labels(providers: &ConfiguredNames) -> [LabelDomain; 3] {
    [
        ("provider", Arc::clone(providers)),
        channels(),
        ("result", fixed(RESULTS)),
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
        recent.note(nonce(1), (1, Channel::Sms));
        recent.note(nonce(1), (2, Channel::Voice));
        assert_eq!(recent.take(nonce(1)), Some((2, Channel::Voice)));
        assert_eq!(recent.take(nonce(1)), None);
    }

    #[test]
    fn configuration_change_attributes_no_code_to_another_provider() {
        let known = |providers: &[&str]| LabelValues {
            providers: providers.iter().map(ToString::to_string).collect(),
            ..LabelValues::default()
        };
        let metrics = DeliveryMetrics::new(&known(&["smtp"]), &mut Registry::default());
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
        metrics.know(&known(&["gateway", "smtp"]));
        assert!(!metrics.verified_here(nonce(2), country), "the store knows");
    }

    #[test]
    fn tracked_codes_are_bounded() {
        let recent = RecentDeliveries::default();
        for number in 0..GENERATION * 5 {
            recent.note(nonce(number), (0, Channel::Sms));
        }
        let all = recent.0.lock().unwrap();
        assert!(all.young.len() + all.old.len() <= GENERATION * 2);
        drop(all);
        assert!(recent.take(nonce(GENERATION * 5 - 1)).is_some());
        assert!(recent.take(nonce(0)).is_none());
    }
}
