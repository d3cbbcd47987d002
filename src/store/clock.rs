//! The one clock that decisions are made by.

use tokio::time::Instant;

use crate::domain::Timestamp;

/// The store's clock, read once and carried on by this machine's monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    read: Timestamp,
    read_at: Instant,
}

impl Clock {
    /// The store's clock as it read just now.
    pub fn read_now(read: Timestamp) -> Self {
        Self {
            read,
            read_at: Instant::now(),
        }
    }

    /// When it was read, by this machine's monotonic clock.
    pub fn read_at(&self) -> Instant {
        self.read_at
    }

    /// What the store's clock says now.
    pub fn now(&self) -> Timestamp {
        self.read.plus(self.read_at.elapsed())
    }
}
