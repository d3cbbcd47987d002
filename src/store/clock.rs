//! Clock that every decision uses.

use tokio::time::Instant;

use otpd_rules::Timestamp;

/// Reading of the store's clock, continued by the monotonic clock of this machine.
#[derive(Clone, Copy, Debug)]
pub struct StoreClock {
    reading: Timestamp,
    read_at: Instant,
    requested_at: Instant,
}

impl StoreClock {
    /// Returns the clock of a `reading` that has just arrived and was requested at
    /// `requested_at`.
    pub fn from_reading(reading: Timestamp, requested_at: Instant) -> Self {
        Self {
            reading,
            read_at: Instant::now(),
            requested_at,
        }
    }

    /// Returns the time of the request for the reading, by the monotonic clock of this machine.
    /// A reply may be late, so only writes before this time are sure to be in the state that was
    /// loaded with the reading.
    pub fn requested_at(&self) -> Instant {
        self.requested_at
    }

    /// Returns the present time of the store's clock.
    pub fn now(&self) -> Timestamp {
        self.reading.saturating_add(self.read_at.elapsed())
    }
}
