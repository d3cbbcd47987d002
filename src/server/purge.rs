//! Purge of records that no response depends on any more.

use std::{sync::Arc, time::Duration};

use crate::store::{RecordStore, StoreClock, StoreError, health::StoreHealth};
use otpd_rules::Timestamp;

/// Maximum number of records that one statement deletes.
const PURGE_BATCH: u32 = 1_000;

/// Purges expired records at each interval; never completes.
pub(super) async fn purge_at_intervals(
    store: Arc<dyn RecordStore>,
    availability: StoreHealth,
    interval: Duration,
) {
    let mut clock = PurgeClock::default();
    loop {
        tokio::time::sleep(interval).await;
        if !availability.is_available() {
            continue;
        }
        match purge_once(&*store, &mut clock).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "[OTP] Expired records purged"),
            Err(error) => tracing::debug!(%error, "[OTP] Purge failed, will retry"),
        }
    }
}

/// Purges all expired records, and returns their number.
async fn purge_once(store: &dyn RecordStore, clock: &mut PurgeClock) -> Result<u64, StoreError> {
    let reading = store.load(&[], &[]).await?.clock;
    let Some(now) = clock.confirm(reading) else {
        return Ok(0);
    };
    let mut removed = 0;
    loop {
        let batch = store.purge(now, PURGE_BATCH).await?.all();
        removed += batch;
        if batch < u64::from(PURGE_BATCH) {
            return Ok(removed);
        }
    }
}

/// Clock of the purge. A purge cannot be undone, so it does not follow a forward jump of the
/// store's clock until the next reading, one interval later, confirms the jump.
#[derive(Debug, Default)]
struct PurgeClock {
    last: Option<StoreClock>,
}

impl PurgeClock {
    /// Latest instant that both this reading and the one before it, carried on by monotonic
    /// time, have reached; `None` at the first reading.
    fn confirm(&mut self, reading: StoreClock) -> Option<Timestamp> {
        let last = self.last.replace(reading)?;
        Some(last.now().min(reading.now()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const INTERVAL: Duration = Duration::from_mins(1);
    const JUMP: Duration = Duration::from_hours(24 * 40);
    const START: Timestamp = Timestamp::from_milliseconds(1_800_000_000_000);

    async fn confirm_after_interval(
        clock: &mut PurgeClock,
        reading: Timestamp,
    ) -> Option<Timestamp> {
        tokio::time::advance(INTERVAL).await;
        clock.confirm(StoreClock::from_reading(reading, Instant::now()))
    }

    #[tokio::test(start_paused = true)]
    async fn purge_follows_a_clock_jump_only_after_confirmation() {
        let minutes = |count| START.saturating_add(INTERVAL * count);
        let mut clock = PurgeClock::default();
        assert_eq!(confirm_after_interval(&mut clock, minutes(0)).await, None);
        assert_eq!(
            confirm_after_interval(&mut clock, minutes(1)).await,
            Some(minutes(1))
        );
        // The clock is ahead for one reading.
        let ahead = minutes(2).saturating_add(JUMP);
        assert_eq!(
            confirm_after_interval(&mut clock, ahead).await,
            Some(minutes(2))
        );
        assert_eq!(
            confirm_after_interval(&mut clock, minutes(3)).await,
            Some(minutes(3))
        );
        // It stays ahead.
        let ahead = |count| minutes(count).saturating_add(JUMP);
        assert_eq!(
            confirm_after_interval(&mut clock, ahead(4)).await,
            Some(minutes(4))
        );
        assert_eq!(
            confirm_after_interval(&mut clock, ahead(5)).await,
            Some(ahead(5))
        );
        // It steps back.
        assert_eq!(
            confirm_after_interval(&mut clock, minutes(6)).await,
            Some(minutes(6))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn first_purge_of_a_replica_removes_nothing() {
        let mut clock = PurgeClock::default();
        assert_eq!(
            confirm_after_interval(&mut clock, START.saturating_add(JUMP)).await,
            None
        );
        assert_eq!(confirm_after_interval(&mut clock, START).await, Some(START));
    }
}
