//! Deduplication of warnings. If an operation fails a thousand times for one cause, the log has one
//! line in each time window, with the number of lines that were left out.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Event, Level,
    callsite::Identifier,
    field::{Field, Visit},
};

use super::LEFT_OUT;
use otpd_base::log_targets::{AUDIT, STATE_CHANGE, UNAUTHENTICATED};

/// Fields that distinguish the causes of lines of one callsite. All others, such as a message's id,
/// belong to the single case.
const CAUSE_FIELDS: [&str; 9] = [
    "cause",
    "class",
    "error",
    "issuer",
    "next_update",
    "place",
    "provider",
    "reason",
    "rpc",
];
/// Maximum number of distinguished causes. Further ones are distinguished only by their callsite,
/// until older causes expire.
const MAX_CAUSES: usize = 512;

/// Recently logged warnings.
#[derive(Debug)]
pub(super) struct LogDeduplicator {
    window: Duration,
    logged: Mutex<HashMap<DedupKey, LastLogged>>,
}

/// Callsite of a line, and a digest of its cause.
type DedupKey = (Identifier, u64);

#[derive(Clone, Copy, Debug)]
struct LastLogged {
    at: Instant,
    left_out: u64,
}

impl LogDeduplicator {
    /// Returns a deduplicator that leaves out repetitions within `window`.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            logged: Mutex::default(),
        }
    }

    /// Returns the number of equal lines that were left out before this one, or `None` if this one
    /// is to be left out as well. Only warnings and errors are left out.
    pub fn admit(&self, event: &Event<'_>) -> Option<u64> {
        let metadata = event.metadata();
        let unlimited = *metadata.level() > Level::WARN
            || self.window.is_zero()
            || [AUDIT, STATE_CHANGE, UNAUTHENTICATED].contains(&metadata.target());
        if unlimited {
            return Some(0);
        }
        let mut cause = CauseDigest(DefaultHasher::new());
        event.record(&mut cause);
        let admitted = self.admit_at((metadata.callsite(), cause.0.finish()), Instant::now());
        if admitted.is_none() {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn admit_at(&self, mut key: DedupKey, now: Instant) -> Option<u64> {
        let is_recent = |last: &LastLogged| now.saturating_duration_since(last.at) < self.window;
        // A poisoned lock holds a consistent map, because no step of a change panics.
        let mut all = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_CAUSES && !all.contains_key(&key) {
            all.retain(|_, last| is_recent(last));
            if all.len() >= MAX_CAUSES {
                key.1 = 0;
            }
        }
        match all.get_mut(&key) {
            Some(last) if is_recent(last) => {
                last.left_out += 1;
                None
            }
            before => {
                let left_out = before.map_or(0, |last| last.left_out);
                let last = LastLogged {
                    at: now,
                    left_out: 0,
                };
                all.insert(key, last);
                Some(left_out)
            }
        }
    }
}

/// Digest of the cause of a line.
struct CauseDigest(DefaultHasher);

impl Visit for CauseDigest {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if CAUSE_FIELDS.contains(&field.name()) {
            field.name().hash(&mut self.0);
            // Writing to a digest cannot fail.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for CauseDigest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite as _;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// Returns any callsite.
    fn callsite() -> Identifier {
        tracing::callsite!(name: "a callsite", kind: tracing::metadata::Kind::EVENT, fields: )
            .metadata()
            .callsite()
    }

    #[test]
    fn first_line_of_a_window_reports_suppressed_count() {
        let log = LogDeduplicator::new(WINDOW);
        let (callsite, start) = (callsite(), Instant::now());
        let admit = |cause, seconds| {
            log.admit_at(
                (callsite.clone(), cause),
                start + Duration::from_secs(seconds),
            )
        };
        assert_eq!(admit(1, 0), Some(0));
        assert_eq!(admit(1, 1), None);
        assert_eq!(admit(2, 1), Some(0));
        assert_eq!(admit(1, 9), None);
        assert_eq!(admit(1, 10), Some(2));
        assert_eq!(admit(1, 19), None);
        assert_eq!(admit(2, 60), Some(0));
        assert_eq!(admit(1, 60), Some(1));
        assert_eq!(admit(1, 70), Some(0));
    }

    #[test]
    fn unbounded_causes_are_still_rate_limited() {
        let log = LogDeduplicator::new(WINDOW);
        let (callsite, start) = (callsite(), Instant::now());
        let admitted =
            (1..10_000).filter(|cause| log.admit_at((callsite.clone(), *cause), start).is_some());
        assert_eq!(admitted.count(), MAX_CAUSES + 1);
        assert!(log.logged.lock().unwrap().len() <= MAX_CAUSES + 1);
        // Expired causes make room.
        let later = start + WINDOW;
        assert_eq!(log.admit_at((callsite, 20_000), later), Some(0));
        assert_eq!(log.logged.lock().unwrap().len(), 1);
    }
}
