//! Order in which the reclaimer scans the lanes of queued messages.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::store::{FoundMessage, LaneCursor, Place};
use otpd_rules::{CallerName, MessageId};

/// Maximum number of messages that are reclaimed at once: few, so that replicas that poll
/// at the same moment have few conflicts.
pub(super) const MAX_RECLAIM_BATCH: usize = 16;

/// Time for which a message that was left to other replicas is skipped.
const SKIP_FOR: Duration = Duration::from_secs(10);
/// Maximum number of remembered messages to skip. A message that is not remembered costs
/// one more read.
const MAX_SKIPPED: usize = 16_384;

/// Scan of all lanes at once, each from its oldest message on. It passes messages that
/// cannot be reclaimed, so that they do not block the messages behind them.
#[derive(Debug)]
pub(super) struct LaneScan {
    lanes: Vec<CallerLane>,
    started_at: Instant,
    /// Duration of a scan, after which older messages that became due meanwhile come first.
    restart_after: Duration,
    /// True after a message was reclaimed or completed, or if there is no capacity to
    /// continue.
    may_restart: bool,
    skipped: HashMap<MessageId, Instant>,
}

/// Lane of a caller that may contain more messages.
#[derive(Debug)]
pub(super) struct CallerLane {
    pub caller: CallerName,
    /// Last message that was passed.
    pub after: Option<Place>,
}

impl LaneScan {
    /// Creates a scan that has not started.
    pub fn new(restart_after: Duration) -> Self {
        Self {
            lanes: Vec::new(),
            started_at: Instant::now(),
            restart_after,
            may_restart: false,
            skipped: HashMap::new(),
        }
    }

    /// Starts at the oldest message of each of these lanes.
    pub fn start(&mut self, lanes: Vec<CallerName>) {
        let lane = |caller| CallerLane {
            caller,
            after: None,
        };
        self.lanes = lanes.into_iter().map(lane).collect();
        self.started_at = Instant::now();
        self.may_restart = false;
        self.skipped.retain(|_, at| at.elapsed() < SKIP_FOR);
    }

    /// Ends the scan.
    pub fn end(&mut self) {
        self.lanes.clear();
    }

    /// Returns whether every lane was scanned to its end.
    pub fn is_at_end(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Returns whether the next scan must start. A scan that reclaimed no message continues
    /// to its end, however long that takes.
    pub fn is_over(&self) -> bool {
        self.is_at_end() || (self.may_restart && self.started_at.elapsed() >= self.restart_after)
    }

    /// Returns the lanes that may contain more messages.
    pub fn lanes(&self) -> &[CallerLane] {
        &self.lanes
    }

    /// Advances the lanes of these cursors behind the messages that were found.
    pub fn advance(&mut self, cursors: &[LaneCursor], found: &[FoundMessage]) {
        for cursor in cursors {
            let in_lane = found.iter().filter(|found| found.lane == cursor.lane);
            let (mut number, mut last) = (0, cursor.after);
            for found in in_lane {
                number += 1;
                last = last.max(Some(found.place));
            }
            if number < cursor.most {
                self.lanes.retain(|lane| lane.caller != cursor.lane);
            } else if let Some(lane) = self
                .lanes
                .iter_mut()
                .find(|lane| lane.caller == cursor.lane)
            {
                lane.after = last;
            }
        }
    }

    /// Allows a restart, because a message was reclaimed or completed, or because there is
    /// no capacity to continue.
    pub fn allow_restart(&mut self) {
        self.may_restart = true;
    }

    /// Skips a message for a while, and leaves it to other replicas.
    pub fn skip(&mut self, id: MessageId) {
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.insert(id, Instant::now());
        }
    }

    /// Returns whether a message is skipped.
    pub fn is_skipped(&self, id: MessageId) -> bool {
        self.skipped
            .get(&id)
            .is_some_and(|at| at.elapsed() < SKIP_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use otpd_rules::{RecordKey, Timestamp};

    fn cursor(lane: &str, most: u32) -> LaneCursor {
        LaneCursor {
            lane: CallerName::new(lane),
            after: None,
            most,
        }
    }

    fn found(lane: &str, number: u8) -> FoundMessage {
        FoundMessage {
            key: RecordKey([number; 32]),
            lane: CallerName::new(lane),
            place: Place {
                created_at: Timestamp::from_milliseconds(number.into()),
                id: MessageId([number; 16]),
            },
            message: Err(StoreError::Corrupt("not used here".to_owned())),
        }
    }

    fn lanes(scan: &LaneScan) -> Vec<(&str, Option<i64>)> {
        let lanes = scan.lanes().iter();
        lanes
            .map(|lane| {
                let after = lane.after.map(|place| place.created_at.milliseconds());
                (lane.caller.as_str(), after)
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn lane_scan_skips_postponed_messages_and_restarts_from_the_oldest() {
        let mut scan = LaneScan::new(Duration::from_secs(1));
        assert!(scan.is_over());
        scan.start(["a", "b", "c"].map(CallerName::new).into());
        scan.advance(
            &[cursor("a", 2), cursor("b", 2)],
            &[found("a", 1), found("b", 2), found("a", 3)],
        );
        // The lane of c was not scanned, that of b has ended.
        assert_eq!(lanes(&scan), [("a", Some(3)), ("c", None)]);
        // No message was reclaimed: the scan continues, however long that takes.
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(!scan.is_over());
        scan.allow_restart();
        assert!(scan.is_over());
        scan.start(vec![CallerName::new("a")]);
        assert!(!scan.is_over());
        assert_eq!(lanes(&scan), [("a", None)]);
        scan.advance(&[cursor("a", 2)], &[found("a", 1)]);
        assert!(scan.is_at_end() && scan.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn postponed_message_is_scanned_again_later() {
        let mut scan = LaneScan::new(Duration::from_secs(1));
        let id = MessageId([7; 16]);
        assert!(!scan.is_skipped(id));
        scan.skip(id);
        assert!(scan.is_skipped(id));
        tokio::time::advance(SKIP_FOR).await;
        assert!(!scan.is_skipped(id));
        scan.start(Vec::new());
        assert!(scan.skipped.is_empty());
        for number in 0..=MAX_SKIPPED {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            scan.skip(MessageId(id));
        }
        assert_eq!(scan.skipped.len(), MAX_SKIPPED);
    }
}
