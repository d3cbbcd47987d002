//! Rate limit of a provider, in messages per second.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Rate limiter that spaces messages evenly; each replica counts its own.
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// Creates a limiter of `per_second` messages; 0 is no limit.
    pub fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1)
                .checked_div(per_second)
                .unwrap_or_default(),
            next: Mutex::default(),
        }
    }

    /// Waits for the next turn. A turn that is abandoned while waiting is lost, so that
    /// the rate is never exceeded.
    pub async fn turn(&self) {
        if self.interval.is_zero() {
            return;
        }
        let mine = {
            // An instant is written whole or not at all.
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            *next = Some(mine + self.interval);
            mine
        };
        tokio::time::sleep_until(mine).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slots_are_evenly_spaced_and_unused_ones_not_saved() {
        let start = Instant::now();
        let pace = RateLimiter::new(10);
        for _ in 0..11 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_mins(1)).await;
        let later = Instant::now();
        for _ in 0..3 {
            pace.turn().await;
        }
        assert_eq!(later.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn unset_rate_never_waits() {
        let start = Instant::now();
        let pace = RateLimiter::new(0);
        for _ in 0..1_000 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
