//! What the metrics look at, and where they are told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::app::App;
use crate::{
    config::ServeConfig,
    delivery::ProviderHandle,
    metrics::{CallbackSeries, DeliveryMetrics, LabelValues, MetricKind, Metrics, series},
    service::{ConversionTracker, PendingAttribution, SELF_DELIVERY_PROVIDER},
    store::{RecordStore as _, RecordStoreHandle, StoreError, StoreStats, health::StoreHealth},
    telemetry,
};
use otpd_rules::Purpose;

/// How long there is between two looks at how much there is, at least.
const CENSUS_PAUSE: Duration = Duration::from_secs(5);
/// How many times longer than a look: so that looking takes a hundredth of the time of
/// one connection, however much there is.
const CENSUS_SHARE: u32 = 100;

/// The names that the configuration has.
pub(super) fn label_values(config: &ServeConfig) -> LabelValues {
    let callers = config.callers.all();
    let mut purposes = BTreeSet::from([Purpose::default().as_str().to_owned()]);
    for caller in &callers {
        let own = caller.policies.purposes.keys();
        let own = own.chain(caller.purposes.iter().flatten());
        purposes.extend(own.map(|purpose| purpose.as_str().to_owned()));
    }
    let gateways = config.delivery.gateways.iter();
    let providers = gateways.map(|gateway| gateway.name.clone());
    LabelValues {
        callers: callers
            .into_iter()
            .map(|caller| caller.name.as_str().to_owned())
            .collect(),
        purposes,
        providers: providers
            .chain([SELF_DELIVERY_PROVIDER.to_owned()])
            .collect(),
    }
}

/// What the newest census counted; nothing before the first one, and while the store does
/// not answer.
pub(super) type LatestStats = Arc<Mutex<Option<StoreStats>>>;

/// Finds out what takes work to measure, for ever.
pub(super) async fn run(
    metrics: DeliveryMetrics,
    store: Arc<RecordStoreHandle>,
    availability: StoreHealth,
    verified: mpsc::Receiver<PendingAttribution>,
    newest: LatestStats,
) {
    let counting =
        ConversionTracker::count(metrics, verified, Arc::clone(&store), availability.clone());
    tokio::join!(counting, take_censuses(store, availability, newest));
}

/// Looks how much there is, for ever.
async fn take_censuses(
    store: Arc<RecordStoreHandle>,
    mut availability: StoreHealth,
    newest: LatestStats,
) {
    loop {
        let start = Instant::now();
        let census = if availability.is_available() {
            take_census(&store).await
        } else {
            Err(StoreError::Unavailable("it does not answer".to_owned()))
        };
        if let Err(error) = &census {
            tracing::debug!(%error, "[OTP] Store statistics refresh skipped");
        }
        // A number is written whole or not at all.
        *newest.lock().unwrap_or_else(PoisonError::into_inner) = census.ok();
        let pause = start.elapsed().saturating_mul(CENSUS_SHARE);
        tokio::select! {
            () = tokio::time::sleep(pause.max(CENSUS_PAUSE)) => {}
            _ = availability.changed() => {}
        }
    }
}

async fn take_census(store: &RecordStoreHandle) -> Result<StoreStats, StoreError> {
    let now = store.load(&[], &[]).await?.clock.now();
    store.stats(now).await
}

/// Has the metrics look at the parts of a server, whenever somebody scrapes.
pub(super) fn watch(metrics: &mut Metrics, parts: &App) {
    let running = parts.running.clone();
    gauge(
        metrics,
        "otpd_requests_in_flight",
        "Requests that are being worked on",
        move || Some(count(running.len())),
    );
    let outbox = parts.outbox.clone();
    gauge(
        metrics,
        "otpd_messages_leased",
        "Messages that this replica has the lease of",
        move || Some(count(outbox.in_flight())),
    );
    let batcher = parts.batcher.clone();
    gauge(
        metrics,
        "otpd_queue_depth",
        "What waits for its batch",
        move || Some(count(batcher.waiting())),
    );
    let availability = parts.availability.clone();
    gauge(
        metrics,
        "otpd_store_up",
        "Whether the store answered when last asked",
        move || Some(f64::from(u8::from(availability.is_available()))),
    );
    let (idle, used) = (Arc::clone(&parts.store), Arc::clone(&parts.store));
    metrics.register_callback(
        MetricKind::Gauge,
        "otpd_store_connections",
        "Connections to the store",
        vec![
            labelled("state", "idle", move || {
                Some(f64::from(idle.connections().0))
            }),
            labelled("state", "used", move || {
                Some(f64::from(used.connections().1))
            }),
        ],
    );
    let current = parts.current.clone();
    metrics.register_callback_family(
        "otpd_provider_breaker_state",
        "Whether a provider is asked: 0 it is, 1 to see whether it is back, 2 it is not",
        "provider",
        move || {
            let current = Arc::clone(&current.borrow());
            let gateways = current.service.outbox.delivery().gateways.iter();
            gateways.map(breaker).collect()
        },
    );
    let budget = parts.budget.clone();
    gauge(
        metrics,
        "otpd_connection_memory_reserved_bytes",
        "Memory reserved for connections and their requests",
        move || Some(count(budget.used())),
    );
    watch_census(metrics, &parts.census);
    metrics.register_callback(
        MetricKind::Counter,
        "otpd_log_lines_suppressed",
        "Repeated lines that were left out of the log",
        vec![series([], || Some(number(telemetry::suppressed_lines())))],
    );
    metrics.register_callback(
        MetricKind::Counter,
        "otpd_log_lines_dropped",
        "Log lines that were dropped because the sink did not take them in time",
        vec![
            labelled("sink", "stdout", || {
                Some(number(telemetry::lines_dropped().0))
            }),
            labelled("sink", "audit", || {
                Some(number(telemetry::lines_dropped().1))
            }),
        ],
    );
}

fn watch_census(metrics: &mut Metrics, newest: &LatestStats) {
    let of = |number: fn(StoreStats) -> f64| {
        let newest = Arc::clone(newest);
        move || {
            let census = *newest.lock().unwrap_or_else(PoisonError::into_inner);
            census.map(number)
        }
    };
    gauge(
        metrics,
        "otpd_messages_queued",
        "Messages of all replicas that wait or are being sent",
        of(|census| number(census.messages_queued)),
    );
    gauge(
        metrics,
        "otpd_outbox_oldest_message_age_seconds",
        "How long the oldest of them has been there",
        of(|census| number(census.oldest_queued) / 1_000.0),
    );
    metrics.register_callback(
        MetricKind::Gauge,
        "otpd_records",
        "Records in the store: live ones, and those that a sweep will remove",
        vec![
            labelled(
                "state",
                "active",
                of(|census| number(census.records_active)),
            ),
            labelled(
                "state",
                "purgeable",
                of(|census| number(census.records_purgeable)),
            ),
        ],
    );
}

fn gauge(
    metrics: &mut Metrics,
    name: &'static str,
    help: &'static str,
    look: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    metrics.register_callback(MetricKind::Gauge, name, help, vec![series([], look)]);
}

fn labelled(
    label: &'static str,
    value: &str,
    look: impl Fn() -> Option<f64> + Send + Sync + 'static,
) -> CallbackSeries {
    series([(label, value.to_owned())], look)
}

fn breaker(gateway: &Arc<ProviderHandle>) -> (String, f64) {
    (gateway.name.clone(), f64::from(gateway.breaker.state()))
}

fn count(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nothing that is counted here comes near 2^52"
)]
fn number(number: u64) -> f64 {
    number as f64
}
