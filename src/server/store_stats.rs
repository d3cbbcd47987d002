//! Statistics that take work to measure: the content of the store, and conversions.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    metrics::DeliveryMetrics,
    service::{ConversionTracker, PendingAttribution},
    store::{RecordStore, StoreError, StoreStats, health::StoreHealth},
};

/// Minimum interval between two refreshes of the statistics.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Ratio of the interval to the duration of a refresh, so that refreshes take a hundredth of
/// the time of one connection, however many records there are.
const INTERVAL_RATIO: u32 = 100;

/// Latest statistics of the store; none before the first refresh, and while the store is
/// unavailable.
pub(super) type LatestStats = Arc<Mutex<Option<StoreStats>>>;

/// Keeps conversions and statistics up to date; never completes.
pub(super) async fn run(
    metrics: DeliveryMetrics,
    store: Arc<dyn RecordStore>,
    availability: StoreHealth,
    verified: mpsc::Receiver<PendingAttribution>,
    latest: LatestStats,
) {
    let counting =
        ConversionTracker::count(metrics, verified, Arc::clone(&store), availability.clone());
    tokio::join!(counting, refresh_stats(store, availability, latest));
}

/// Refreshes the statistics of the store; never completes.
async fn refresh_stats(
    store: Arc<dyn RecordStore>,
    mut availability: StoreHealth,
    latest: LatestStats,
) {
    loop {
        let start = Instant::now();
        let stats = if availability.is_available() {
            read_stats(&*store).await
        } else {
            Err(StoreError::Unavailable(
                "the last health check failed".to_owned(),
            ))
        };
        if let Err(error) = &stats {
            tracing::debug!(%error, "[OTP] Store statistics refresh skipped");
        }
        // A poisoned lock is consistent, because the value is replaced as a whole.
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = stats.ok();
        let pause = start.elapsed().saturating_mul(INTERVAL_RATIO);
        tokio::select! {
            () = tokio::time::sleep(pause.max(REFRESH_INTERVAL_MIN)) => {}
            _ = availability.changed() => {}
        }
    }
}

async fn read_stats(store: &dyn RecordStore) -> Result<StoreStats, StoreError> {
    let now = store.load(&[], &[]).await?.clock.now();
    store.stats(now).await
}
