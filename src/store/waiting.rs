//! Log lines about long waits.

use std::{future::Future, pin::pin, time::Duration};

/// Duration after which a wait is logged.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

/// Awaits `work`, and calls `notice` if that takes longer than [`NOTICE_AFTER`].
pub(super) async fn with_notice<T>(notice: impl FnOnce(), work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout(NOTICE_AFTER, &mut work).await {
        return done;
    }
    notice();
    work.await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_long_lock_waits_are_logged() {
        for (milliseconds, noticed) in [(900, false), (1_100, true)] {
            let seen = Cell::new(false);
            let wait = tokio::time::sleep(Duration::from_millis(milliseconds));
            with_notice(|| seen.set(true), wait).await;
            assert_eq!(seen.get(), noticed);
        }
    }
}
