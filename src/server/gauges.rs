//! Gauges and counters that are read from the parts of a server at each scrape.

use std::sync::{Arc, PoisonError};

use super::{app::App, store_stats::LatestStats};
use crate::{
    metrics::{CallbackSeries, MetricKind, Metrics, series},
    store::StoreStats,
    telemetry,
};
use otpd_delivery::ProviderHandle;

/// Registers the metrics that read from the parts of a server at each scrape.
pub(super) fn register(metrics: &mut Metrics, parts: &App) {
    let running = parts.running.clone();
    gauge(
        metrics,
        "otpd_requests_in_flight",
        "Requests in progress",
        move || Some(count(running.len())),
    );
    let outbox = parts.outbox.clone();
    gauge(
        metrics,
        "otpd_messages_leased",
        "Messages whose lease this replica holds",
        move || Some(count(outbox.in_flight())),
    );
    let batcher = parts.batcher.clone();
    gauge(
        metrics,
        "otpd_queue_depth",
        "Requests and writes that wait for their batch",
        move || Some(count(batcher.waiting())),
    );
    let availability = parts.availability.clone();
    gauge(
        metrics,
        "otpd_store_up",
        "1 if the last health check of the store succeeded, else 0",
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
        "State of the circuit breaker: 0 closed, 1 half-open, 2 open",
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
    register_store_stats(metrics, &parts.store_stats);
    metrics.register_callback(
        MetricKind::Counter,
        "otpd_log_lines_suppressed",
        "Repeated log lines that were suppressed",
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

fn register_store_stats(metrics: &mut Metrics, latest: &LatestStats) {
    let stat = |number: fn(StoreStats) -> f64| {
        let latest = Arc::clone(latest);
        move || {
            let stats = *latest.lock().unwrap_or_else(PoisonError::into_inner);
            stats.map(number)
        }
    };
    gauge(
        metrics,
        "otpd_messages_queued",
        "Messages of all replicas that are queued or being sent",
        stat(|stats| number(stats.messages_queued)),
    );
    gauge(
        metrics,
        "otpd_outbox_oldest_message_age_seconds",
        "Age of the oldest queued message",
        stat(|stats| number(stats.oldest_queued) / 1_000.0),
    );
    metrics.register_callback(
        MetricKind::Gauge,
        "otpd_records",
        "Records in the store: active ones, and those that the next purge removes",
        vec![
            labelled(
                "state",
                "active",
                stat(|stats| number(stats.records_active)),
            ),
            labelled(
                "state",
                "purgeable",
                stat(|stats| number(stats.records_purgeable)),
            ),
        ],
    );
}

fn gauge(
    metrics: &mut Metrics,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    metrics.register_callback(MetricKind::Gauge, name, help, vec![series([], read)]);
}

fn labelled(
    label: &'static str,
    value: &str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) -> CallbackSeries {
    series([(label, value.to_owned())], read)
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
