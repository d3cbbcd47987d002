//! Leaves out what was just said: where something fails a thousand times for one cause,
//! the log has a line of it now and then, and how many there were.

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
use crate::log_targets::{AUDIT, STATE_CHANGE, STRANGER};

/// What tells the causes of lines of one place apart. All else, such as a message's id,
/// is of the single case.
const CAUSES: [&str; 9] = [
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
/// How many causes are told apart at most; those that come after them are told apart by
/// their place alone, until some are old.
const MOST: usize = 512;

/// What was said of late.
#[derive(Debug)]
pub(super) struct LogDeduplicator {
    after: Duration,
    said: Mutex<HashMap<DedupKey, LastLogged>>,
}

/// The place in the source that says it, and a digest of the cause.
type DedupKey = (Identifier, u64);

#[derive(Clone, Copy, Debug)]
struct LastLogged {
    at: Instant,
    left_out: u64,
}

impl LogDeduplicator {
    /// Leaves out what is said again less than `after` later.
    pub fn new(after: Duration) -> Self {
        Self {
            after,
            said: Mutex::default(),
        }
    }

    /// How many lines like this one were left out before it; `None`: it is to be left
    /// out, too. Only warnings and errors are: whatever else there is, is wanted.
    pub fn admit(&self, event: &Event<'_>) -> Option<u64> {
        let metadata = event.metadata();
        let unlimited = *metadata.level() > Level::WARN
            || self.after.is_zero()
            || [AUDIT, STATE_CHANGE, STRANGER].contains(&metadata.target());
        if unlimited {
            return Some(0);
        }
        let mut cause = CauseDigest(DefaultHasher::new());
        event.record(&mut cause);
        let admitted = self.say((metadata.callsite(), cause.0.finish()), Instant::now());
        if admitted.is_none() {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn say(&self, mut key: DedupKey, now: Instant) -> Option<u64> {
        let is_new = |said: &LastLogged| now.saturating_duration_since(said.at) < self.after;
        // Nothing here panics half-way.
        let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&key) {
            all.retain(|_, said| is_new(said));
            if all.len() >= MOST {
                key.1 = 0;
            }
        }
        match all.get_mut(&key) {
            Some(said) if is_new(said) => {
                said.left_out += 1;
                None
            }
            before => {
                let left_out = before.map_or(0, |said| said.left_out);
                let said = LastLogged {
                    at: now,
                    left_out: 0,
                };
                all.insert(key, said);
                Some(left_out)
            }
        }
    }
}

/// A digest of what was the cause.
struct CauseDigest(DefaultHasher);

impl Visit for CauseDigest {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if CAUSES.contains(&field.name()) {
            field.name().hash(&mut self.0);
            // A digest takes whatever is written.
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

    const PERIOD: Duration = Duration::from_secs(10);

    fn place() -> Identifier {
        // Any will do.
        tracing::callsite!(name: "a place", kind: tracing::metadata::Kind::EVENT, fields: )
            .metadata()
            .callsite()
    }

    #[test]
    fn first_line_of_a_window_reports_suppressed_count() {
        let repeats = LogDeduplicator::new(PERIOD);
        let (place, start) = (place(), Instant::now());
        let say = |cause, seconds| {
            repeats.say((place.clone(), cause), start + Duration::from_secs(seconds))
        };
        assert_eq!(say(1, 0), Some(0));
        assert_eq!(say(1, 1), None);
        assert_eq!(say(2, 1), Some(0));
        assert_eq!(say(1, 9), None);
        assert_eq!(say(1, 10), Some(2));
        assert_eq!(say(1, 19), None);
        assert_eq!(say(2, 60), Some(0));
        assert_eq!(say(1, 60), Some(1));
        assert_eq!(say(1, 70), Some(0));
    }

    #[test]
    fn unbounded_causes_are_still_rate_limited() {
        let repeats = LogDeduplicator::new(PERIOD);
        let (place, start) = (place(), Instant::now());
        let said =
            (1..10_000).filter(|cause| repeats.say((place.clone(), *cause), start).is_some());
        assert_eq!(said.count(), MOST + 1);
        assert!(repeats.said.lock().unwrap().len() <= MOST + 1);
        // When those are old, they make room.
        let later = start + PERIOD;
        assert_eq!(repeats.say((place, 20_000), later), Some(0));
        assert_eq!(repeats.said.lock().unwrap().len(), 1);
    }
}
