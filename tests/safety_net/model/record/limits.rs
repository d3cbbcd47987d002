//! Rule 6: limits, those of a record and those that records share.

use super::super::{Case, Doubt, HOUR, Limits, Moment};

/// A limit that records share.
pub(super) struct Shared {
    key: (usize, &'static str, String),
    count: i64,
}

pub(super) fn shared(network: Option<&str>, limit: &'static str, case: &Case) -> Option<Shared> {
    let count = match limit {
        "ip_sends_per_hour" => case.policy.ip_sends_per_hour,
        _ => case.policy.ip_failures_per_hour,
    };
    let key = (case.call.name.caller, limit, network?.to_owned());
    Some(Shared { key, count })
}

impl Shared {
    pub(super) fn take(&self, limits: &Limits, case: &mut Case) -> Result<Moment, Moment> {
        let full_at = limits.get(&self.key).copied().unwrap_or(Moment::LONG_AGO);
        take(full_at, self.count, HOUR, case.paid, case.doubt)
    }
}

pub(super) fn charge(shared: Option<Shared>, taken: Option<Moment>, limits: &mut Limits) {
    if let (Some(shared), Some(taken)) = (shared, taken) {
        limits.insert(shared.key, taken);
    }
}

/// Rule 8 for a limit that a refused request looked at: it is full again after one
/// burst at most.
pub(super) fn settle(shared: Option<Shared>, limits: &mut Limits, now: Moment) {
    if let Some(shared) = shared
        && let Some(full_at) = limits.get_mut(&shared.key)
    {
        *full_at = full_at.min(now.plus(burst(shared.count, HOUR)));
    }
}

/// How long it takes to refill one, rounded up, so that no period holds too many.
pub(super) const fn interval(count: i64, period: i64) -> i64 {
    (period + count - 1) / count
}

pub(super) const fn burst(count: i64, period: i64) -> i64 {
    interval(count, period) * count
}

/// Rule 6, the generic cell rate algorithm: takes one, and tells when all will be there
/// again; or tells how long to wait for one.
pub(super) fn take(
    full_at: Moment,
    count: i64,
    period: i64,
    now: Moment,
    doubt: &mut Doubt,
) -> Result<Moment, Moment> {
    if !doubt.before(now, full_at) {
        return Ok(now.plus(interval(count, period)));
    }
    let latest = now.plus(burst(count, period));
    let next = full_at.min(latest).plus(interval(count, period));
    if doubt.before(latest, next) {
        Err(next.since(latest))
    } else {
        Ok(next)
    }
}
