//! Rate limits of sends to one record, which lie in the record itself.

use super::{PurposePolicy, RateLimitKind, RateLimitState, Timestamp, rate_limit::clamp_all};

/// Times at which the limits of a record are full again; long ago for unused ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimits {
    /// State of `sends_per_hour`.
    pub hour_full_at: Timestamp,
    /// State of `sends_per_day`.
    pub day_full_at: Timestamp,
}

impl Default for SendLimits {
    fn default() -> Self {
        let long_ago = Timestamp::from_milliseconds(0);
        Self {
            hour_full_at: long_ago,
            day_full_at: long_ago,
        }
    }
}

impl SendLimits {
    /// Returns the limits that are enabled.
    pub(super) fn shared(self, policy: &PurposePolicy) -> Vec<RateLimitState> {
        let hour = (RateLimitKind::SendsPerHour, self.hour_full_at);
        let day = (RateLimitKind::SendsPerDay, self.day_full_at);
        [hour, day]
            .into_iter()
            .filter_map(|(name, full_at)| {
                let rate = policy.rate(name)?;
                Some(RateLimitState {
                    name,
                    rate,
                    full_at: Some(full_at),
                    paid: false,
                })
            })
            .collect()
    }

    /// Returns the limits with these new states.
    pub(super) fn taken(
        mut self,
        limits: &[RateLimitState],
        charges: &[Option<Timestamp>],
    ) -> Self {
        for (limit, charge) in limits.iter().zip(charges) {
            let full_at = match limit.name {
                RateLimitKind::SendsPerHour => &mut self.hour_full_at,
                _ => &mut self.day_full_at,
            };
            *full_at = charge.unwrap_or(*full_at);
        }
        self
    }

    /// Returns the limits after the clock stepped back to `now`.
    pub(super) fn stepped_back_to(self, policy: &PurposePolicy, now: Timestamp) -> Self {
        let limits = self.shared(policy);
        self.taken(&limits, &clamp_all(&limits, now))
    }
}
