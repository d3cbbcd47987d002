//! Removing what no answer depends on any more.

use std::{sync::Arc, time::Duration};

use crate::store::{RecordStore as _, Store, StoreError, availability::Availability};

/// How many records one sweep removes at most, before it looks at the clock again.
const SWEEP_BATCH: u32 = 1_000;

/// Removes what no answer depends on, for ever.
pub(super) async fn sweep(store: Arc<Store>, availability: Availability, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if !availability.answers() {
            continue;
        }
        match sweep_once(&store).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "[OTP] Swept"),
            Err(error) => tracing::debug!(%error, "[OTP] Sweep gave up until its next turn"),
        }
    }
}

/// Removes all records that no answer depends on, and returns how many.
async fn sweep_once(store: &Store) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let now = store.load(&[], &[]).await?.clock.now();
        let batch = store.sweep(now, SWEEP_BATCH).await?.all();
        removed += batch;
        if batch < u64::from(SWEEP_BATCH) {
            return Ok(removed);
        }
    }
}
