//! Updates of shared limits that commute, so that all replicas can charge one limit at the
//! same time. The design is in docs/design/limits.md.

use std::time::Duration;

use super::{Quota, RateLimitState, Timestamp};

/// Effect of a decision on all shared limits of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitCharge {
    /// None.
    Nothing,
    /// One cell of each is consumed, unless it is paid.
    Consume,
    /// Clamps states of more than a whole burst. A refused request has no other effect.
    Clamp,
}

impl LimitCharge {
    /// Update of one of the limits.
    pub fn update(self, limit: &RateLimitState, now: Timestamp) -> Option<LimitUpdate> {
        match self {
            Self::Consume if !limit.paid => Some(LimitUpdate::Consume(limit.rate)),
            Self::Clamp
                if limit
                    .rate
                    .clamp_after_rollback(limit.full_at?, now)
                    .is_some() =>
            {
                Some(LimitUpdate::Clamp(limit.rate))
            }
            Self::Nothing | Self::Consume | Self::Clamp => None,
        }
    }
}

/// Update of a shared limit by one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitUpdate {
    /// One cell is consumed.
    Consume(Quota),
    /// Part of a consumed cell that is refunded.
    Refund(Duration),
    /// A state more than a burst ahead is brought back to one burst ahead.
    Clamp(Quota),
}

/// Sum of the updates of one batch, as stores apply it to the state that they hold. Deltas
/// commute as long as they are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitDelta {
    /// Earliest state that `cost` is added to. An earlier one means the same: full.
    pub floor: Timestamp,
    /// Latest state that has room for every consumed cell.
    pub latest: Timestamp,
    /// Milliseconds to add; negative if more is refunded than consumed.
    pub cost: i64,
}

impl LimitDelta {
    /// Returns the state after the delta; `None` if the limit has no room for it. The
    /// statements of all stores express this one rule.
    pub fn apply(self, full_at: Option<Timestamp>) -> Option<Timestamp> {
        let full_at = full_at.unwrap_or(self.floor);
        let base = full_at.max(self.floor).milliseconds();
        let next = Timestamp::from_milliseconds(base.saturating_add(self.cost));
        (full_at <= self.latest).then_some(next)
    }
}

/// A shared limit within a batch: its state after the updates so far, and their sum.
#[derive(Clone, Copy, Debug)]
pub struct BatchedLimit {
    /// State after the updates so far, if no other replica updates it meanwhile.
    pub full_at: Timestamp,
    /// Sum of the updates so far; `None` if there are none.
    pub delta: Option<LimitDelta>,
    /// True if the sum is valid for the loaded state alone.
    pub is_clamped: bool,
}

impl BatchedLimit {
    /// A limit that was loaded in this state.
    pub fn new(full_at: Timestamp) -> Self {
        Self {
            full_at,
            delta: None,
            is_clamped: false,
        }
    }

    /// Adds an update that was decided at `now`.
    pub fn update(&mut self, update: LimitUpdate, now: Timestamp) {
        let delta = self.delta.get_or_insert(LimitDelta {
            floor: Timestamp::from_milliseconds(i64::MIN),
            latest: Timestamp::from_milliseconds(i64::MAX),
            cost: 0,
        });
        match update {
            LimitUpdate::Consume(rate) => {
                let interval = milliseconds(rate.interval());
                // The cells before it in the batch take their room first.
                let latest = now.saturating_add(rate.burst()).milliseconds();
                let latest = latest.saturating_sub(interval).saturating_sub(delta.cost);
                delta.latest = delta.latest.min(Timestamp::from_milliseconds(latest));
                delta.floor = now;
                delta.cost = delta.cost.saturating_add(interval);
                self.full_at = self.full_at.max(now).saturating_add(rate.interval());
            }
            LimitUpdate::Refund(amount) => {
                // The rest has been refilled meanwhile.
                let amount = amount.min(now.duration_until(self.full_at));
                delta.cost = delta.cost.saturating_sub(milliseconds(amount));
                self.full_at = self.full_at.saturating_sub(amount);
            }
            LimitUpdate::Clamp(rate) => {
                let excess = now
                    .saturating_add(rate.burst())
                    .duration_until(self.full_at);
                delta.cost = delta.cost.saturating_sub(milliseconds(excess));
                self.full_at = self.full_at.saturating_sub(excess);
                self.is_clamped |= !excess.is_zero();
            }
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RateLimitKind;

    const NOW: Timestamp = Timestamp::from_milliseconds(1_000_000);

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(milliseconds)
    }

    /// Ten cells of 100 ms.
    fn rate() -> Quota {
        Quota::new(10, Duration::from_secs(1)).unwrap()
    }

    /// Delta of `count` cells consumed at `now`.
    fn cells(count: usize, now: Timestamp) -> LimitDelta {
        let mut limit = BatchedLimit::new(at(0));
        for _ in 0..count {
            limit.update(LimitUpdate::Consume(rate()), now);
        }
        limit.delta.unwrap()
    }

    #[test]
    fn delta_is_granted_up_to_the_burst_for_every_loaded_state() {
        let three = cells(3, NOW);
        assert_eq!(
            three.apply(None),
            Some(NOW.saturating_add(Duration::from_millis(300)))
        );
        assert_eq!(three.apply(Some(at(5))), three.apply(None));
        let room_for_three = NOW.saturating_add(Duration::from_millis(700));
        let full = NOW.saturating_add(Duration::from_secs(1));
        assert_eq!(three.apply(Some(room_for_three)), Some(full));
        let later = room_for_three.saturating_add(Duration::from_millis(1));
        assert_eq!(three.apply(Some(later)), None);
    }

    #[test]
    fn refund_is_granted_for_every_loaded_state() {
        let mut limit = BatchedLimit::new(NOW.saturating_add(Duration::from_millis(150)));
        limit.update(LimitUpdate::Refund(Duration::from_millis(100)), NOW);
        let delta = limit.delta.unwrap();
        let far = NOW.saturating_add(Duration::from_hours(1));
        assert_eq!(
            delta.apply(Some(far)),
            Some(far.saturating_sub(Duration::from_millis(100)))
        );
        // More than is missing is not refunded.
        limit.update(LimitUpdate::Refund(Duration::from_millis(100)), NOW);
        assert_eq!(limit.full_at, NOW);
        assert_eq!(limit.delta.unwrap().cost, -150);
    }

    #[test]
    fn clamp_changes_only_a_state_beyond_a_burst() {
        let full = NOW.saturating_add(Duration::from_secs(1));
        let clamped = |full_at: Timestamp| {
            let mut limit = BatchedLimit::new(full_at);
            limit.update(LimitUpdate::Clamp(rate()), NOW);
            (limit.full_at, limit.is_clamped)
        };
        assert_eq!(clamped(full), (full, false));
        assert_eq!(
            clamped(full.saturating_add(Duration::from_hours(1))),
            (full, true)
        );
    }

    #[test]
    fn refused_request_clamps_and_consumes_nothing() {
        let limit = |full_at, paid| RateLimitState {
            name: RateLimitKind::IpSendsPerHour,
            rate: rate(),
            full_at,
            paid,
        };
        let full = NOW.saturating_add(Duration::from_secs(1));
        let ahead = full.saturating_add(Duration::from_millis(1));
        for (charge, limit, update) in [
            (LimitCharge::Nothing, limit(Some(ahead), false), None),
            (LimitCharge::Clamp, limit(None, false), None),
            (LimitCharge::Clamp, limit(Some(full), false), None),
            (
                LimitCharge::Clamp,
                limit(Some(ahead), true),
                Some(LimitUpdate::Clamp(rate())),
            ),
            (
                LimitCharge::Consume,
                limit(None, false),
                Some(LimitUpdate::Consume(rate())),
            ),
            (LimitCharge::Consume, limit(None, true), None),
        ] {
            assert_eq!(charge.update(&limit, NOW), update, "{charge:?} {limit:?}");
        }
    }

    #[test]
    fn strictest_rate_of_a_batch_decides() {
        let two = Quota::new(2, Duration::from_secs(1)).unwrap();
        let mut limit = BatchedLimit::new(NOW);
        limit.update(LimitUpdate::Consume(rate()), NOW);
        limit.update(LimitUpdate::Consume(two), NOW);
        // 100 ms and then 500 ms of a burst of one second.
        let delta = limit.delta.unwrap();
        assert_eq!(delta.latest, NOW.saturating_add(Duration::from_millis(400)));
        assert_eq!(delta.cost, 600);
    }

    fn updates() -> impl Strategy<Value = Vec<LimitUpdate>> {
        let update = prop_oneof![
            4 => Just(LimitUpdate::Consume(rate())),
            1 => (0_u64..150).prop_map(|part| LimitUpdate::Refund(Duration::from_millis(part))),
            1 => Just(LimitUpdate::Clamp(rate())),
        ];
        prop::collection::vec(update, 1..20)
    }

    proptest! {
        /// The state that the batch decided on is the state in the store, if no other
        /// replica interferes.
        #[test]
        fn delta_leads_to_the_state_decided_by_the_batch(
            loaded in -500_i64..3_000,
            updates in updates(),
        ) {
            let loaded = at(NOW.milliseconds() + loaded);
            let mut limit = BatchedLimit::new(loaded);
            for update in updates {
                let is_refused = matches!(update, LimitUpdate::Consume(_))
                    && rate().consume(Some(limit.full_at), NOW).is_err();
                if !is_refused {
                    limit.update(update, NOW);
                }
            }
            if let Some(delta) = limit.delta {
                prop_assert_eq!(delta.apply(Some(loaded)), Some(limit.full_at));
            }
        }

        /// Replicas with clocks read at different times charge one limit in any order: in no
        /// window of decision times more is granted than the burst and the refill.
        #[test]
        fn limit_is_never_exceeded_by_charges_in_any_order(
            charges in prop::collection::vec((0_i64..3_000, 1_usize..4), 1..60),
        ) {
            let mut full_at = None;
            let mut granted = Vec::new();
            for (time, count) in charges {
                if let Some(next) = cells(count, at(time)).apply(full_at) {
                    full_at = Some(next);
                    granted.push((time, i64::try_from(count).unwrap()));
                }
            }
            for (start, _) in &granted {
                for (end, _) in &granted {
                    let window = start..=end;
                    let inside = granted.iter().filter(|(time, _)| window.contains(&time));
                    let cost: i64 = inside.map(|(_, count)| count * 100).sum();
                    prop_assert!(cost <= 1_000 + (end - start).max(0));
                }
            }
        }

        /// The sum of the costs does not depend on the order.
        #[test]
        fn granted_charges_commute(
            loaded in 0_i64..200,
            (first, second) in (1_usize..4, 1_usize..4),
        ) {
            let loaded = Some(at(NOW.milliseconds() + loaded));
            let [first, second] = [first, second].map(|count| cells(count, NOW));
            prop_assert_eq!(
                second.apply(first.apply(loaded)),
                first.apply(second.apply(loaded))
            );
        }
    }
}
