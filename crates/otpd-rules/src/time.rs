//! Instants of the store's clock.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// An instant of the store's clock, in whole milliseconds since the Unix epoch,
/// rounded down.
///
/// Milliseconds, because SQLite's clock has nothing finer: with a finer unit a
/// writer could stamp a record later than the next reader's clock reads, and the
/// clock would seem to have stepped back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the instant `milliseconds` after the Unix epoch.
    pub const fn from_milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn milliseconds(self) -> i64 {
        self.0
    }

    /// Returns the instant `duration` later, or the last representable one.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(duration)))
    }

    /// Returns the instant `duration` earlier, or the first representable one.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(milliseconds(duration)))
    }

    /// Returns the duration from `self` to `later`; zero if that is not later.
    pub fn duration_until(self, later: Self) -> Duration {
        let milliseconds = later.0.saturating_sub(self.0).max(0);
        Duration::from_millis(milliseconds.unsigned_abs())
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        let after = Duration::from_millis(timestamp.0.max(0).unsigned_abs());
        let before = Duration::from_millis(timestamp.0.min(0).unsigned_abs());
        Self::UNIX_EPOCH + after - before
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_arithmetic_is_exact_and_saturates() {
        let start = Timestamp::from_milliseconds(1_000);
        let later = start.saturating_add(Duration::from_millis(1_500));
        assert_eq!(later.milliseconds(), 2_500);
        assert_eq!(start.duration_until(later), Duration::from_millis(1_500));
        assert_eq!(later.duration_until(start), Duration::ZERO);
        assert_eq!(start.saturating_add(Duration::MAX).milliseconds(), i64::MAX);
        assert_eq!(
            SystemTime::from(later),
            SystemTime::UNIX_EPOCH + Duration::from_millis(2_500)
        );
        assert_eq!(
            SystemTime::from(Timestamp::from_milliseconds(-7)),
            SystemTime::UNIX_EPOCH - Duration::from_millis(7)
        );
    }
}
