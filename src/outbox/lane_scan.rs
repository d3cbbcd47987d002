//! The order in which the lanes of waiting messages are looked through.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::store::{FoundMessage, LaneCursor, Place};
use otpd_rules::{CallerName, MessageId};

/// Maximum number of messages that are taken over at once: few, so that replicas which
/// look at the same moment lose little to each other.
pub(super) const MOST_AT_ONCE: usize = 16;

/// Time for which a message that was left to other replicas is not looked at again.
const LEFT_FOR: Duration = Duration::from_secs(10);
/// Maximum number of left messages that are remembered. A message that is not remembered
/// costs one more look.
const MOST_LEFT: usize = 16_384;

/// One walk through all lanes at once, each from its oldest message on. It passes by what
/// cannot be taken over, so that nothing keeps a message behind it waiting.
#[derive(Debug)]
pub(super) struct LaneScan {
    lanes: Vec<CallerLane>,
    started_at: Instant,
    /// Duration of a walk, after which older messages that became due meanwhile come first.
    lasts: Duration,
    /// True once a message was taken over or ended, or there is no room to go on.
    may_restart: bool,
    left: HashMap<MessageId, Instant>,
}

/// Caller's lane that may hold more messages.
#[derive(Debug)]
pub(super) struct CallerLane {
    pub caller: CallerName,
    /// Last message that was passed.
    pub after: Option<Place>,
}

impl LaneScan {
    /// A walk that has not begun.
    pub fn new(lasts: Duration) -> Self {
        Self {
            lanes: Vec::new(),
            started_at: Instant::now(),
            lasts,
            may_restart: false,
            left: HashMap::new(),
        }
    }

    /// Begins at the oldest message of each of these lanes.
    pub fn start(&mut self, lanes: Vec<CallerName>) {
        let lane = |caller| CallerLane {
            caller,
            after: None,
        };
        self.lanes = lanes.into_iter().map(lane).collect();
        self.started_at = Instant::now();
        self.may_restart = false;
        self.left.retain(|_, at| at.elapsed() < LEFT_FOR);
    }

    /// Ends the walk.
    pub fn end(&mut self) {
        self.lanes.clear();
    }

    /// Returns whether every lane was looked through to its end.
    pub fn is_at_end(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Returns whether the next walk is to begin. One that only passed by messages goes on
    /// to its end, however long that takes.
    pub fn is_over(&self) -> bool {
        self.is_at_end() || (self.may_restart && self.started_at.elapsed() >= self.lasts)
    }

    /// Lanes that may hold more messages.
    pub fn lanes(&self) -> &[CallerLane] {
        &self.lanes
    }

    /// Notes how far these turns have led.
    pub fn passed(&mut self, turns: &[LaneCursor], found: &[FoundMessage]) {
        for turn in turns {
            let of_it = found.iter().filter(|found| found.lane == turn.lane);
            let (mut number, mut last) = (0, turn.after);
            for found in of_it {
                number += 1;
                last = last.max(Some(found.place));
            }
            if number < turn.most {
                self.lanes.retain(|lane| lane.caller != turn.lane);
            } else if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.caller == turn.lane) {
                lane.after = last;
            }
        }
    }

    /// Notes that a message was taken over or ended, or that there is no room to go on.
    pub fn allow_restart(&mut self) {
        self.may_restart = true;
    }

    /// Notes that a message is left to other replicas for a while.
    pub fn leave(&mut self, id: MessageId) {
        if self.left.len() < MOST_LEFT {
            self.left.insert(id, Instant::now());
        }
    }

    /// Returns whether a message was left a short while ago.
    pub fn has_left(&self, id: MessageId) -> bool {
        self.left.get(&id).is_some_and(|at| at.elapsed() < LEFT_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use otpd_rules::{RecordKey, Timestamp};

    fn turn(lane: &str, most: u32) -> LaneCursor {
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
            message: Err(StoreError::Corrupt("of no interest".to_owned())),
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
        scan.passed(
            &[turn("a", 2), turn("b", 2)],
            &[found("a", 1), found("b", 2), found("a", 3)],
        );
        // The lane of c was not looked at, that of b has ended.
        assert_eq!(lanes(&scan), [("a", Some(3)), ("c", None)]);
        // Nothing was taken over: it goes on, however long that takes.
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(!scan.is_over());
        scan.allow_restart();
        assert!(scan.is_over());
        scan.start(vec![CallerName::new("a")]);
        assert!(!scan.is_over());
        assert_eq!(lanes(&scan), [("a", None)]);
        scan.passed(&[turn("a", 2)], &[found("a", 1)]);
        assert!(scan.is_at_end() && scan.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn postponed_message_is_scanned_again_later() {
        let mut scan = LaneScan::new(Duration::from_secs(1));
        let id = MessageId([7; 16]);
        assert!(!scan.has_left(id));
        scan.leave(id);
        assert!(scan.has_left(id));
        tokio::time::advance(LEFT_FOR).await;
        assert!(!scan.has_left(id));
        scan.start(Vec::new());
        assert!(scan.left.is_empty());
        for number in 0..=MOST_LEFT {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            scan.leave(MessageId(id));
        }
        assert_eq!(scan.left.len(), MOST_LEFT);
    }
}
