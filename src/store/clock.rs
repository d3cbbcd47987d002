//! The one clock that decisions are made by.

use tokio::time::Instant;

use otpd_rules::Timestamp;

/// The store's clock, read once and carried on by this machine's monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct StoreClock {
    read: Timestamp,
    read_at: Instant,
    asked_at: Instant,
}

impl StoreClock {
    /// The store's clock as it read just now, in reply to what was asked at `requested_at`.
    pub fn from_reading(read: Timestamp, asked_at: Instant) -> Self {
        Self {
            read,
            read_at: Instant::now(),
            asked_at,
        }
    }

    /// When it was asked for, by this machine's monotonic clock. A reply may be late, so
    /// only what happened before is sure to be in what was loaded with it.
    pub fn requested_at(&self) -> Instant {
        self.asked_at
    }

    /// What the store's clock says now.
    pub fn now(&self) -> Timestamp {
        self.read.saturating_add(self.read_at.elapsed())
    }
}
