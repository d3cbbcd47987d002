//! Rule 6: limits of a record and limits shared by records.

use crate::{Context, HOUR, Nondeterminism, SharedLimits, TimeRange};

/// Limit that records share.
pub(super) struct Shared {
    key: (usize, &'static str, String),
    count: i64,
}

/// Returns the limits on sends of a client: of its network, which has 64 bits, and of the
/// site of that network, which has 48.
pub(super) fn sends(network: Option<&str>, context: &Context) -> Vec<Shared> {
    let policy = context.policy;
    let of_network = ("ip_sends_per_hour", policy.ip_sends_per_hour);
    let of_site = ("ip_site_sends_per_hour", policy.ip_site_sends_per_hour);
    shared(network, of_network, of_site, context)
}

/// Returns the limits on failed attempts of a client.
pub(super) fn failures(network: Option<&str>, context: &Context) -> Vec<Shared> {
    let policy = context.policy;
    let of_network = ("ip_failures_per_hour", policy.ip_failures_per_hour);
    let of_site = (
        "ip_site_failures_per_hour",
        policy.ip_site_failures_per_hour,
    );
    shared(network, of_network, of_site, context)
}

fn shared(
    network: Option<&str>,
    of_network: (&'static str, i64),
    of_site: (&'static str, i64),
    context: &Context,
) -> Vec<Shared> {
    let Some(network) = network else {
        return Vec::new();
    };
    let (site, _) = network.rsplit_once(':').expect("a network has four groups");
    [(of_network, network), (of_site, site)]
        .into_iter()
        .filter(|((_, count), _)| *count > 0)
        .map(|((limit, count), subject)| Shared {
            key: (context.call.record.caller, limit, subject.to_owned()),
            count,
        })
        .collect()
}

impl Shared {
    pub(super) fn name(&self) -> &'static str {
        self.key.1
    }

    pub(super) fn consume(
        &self,
        limits: &SharedLimits,
        context: &mut Context,
    ) -> Result<TimeRange, TimeRange> {
        let full_at = limits
            .get(&self.key)
            .copied()
            .unwrap_or(TimeRange::LONG_AGO);
        consume(full_at, self.count, HOUR, context.charged, context.choices)
    }
}

/// Consumes one cell of each limit and returns their states.
///
/// # Errors
/// The exceeded limits with their waits.
pub(super) fn consume_all(
    shared: &[Shared],
    limits: &SharedLimits,
    context: &mut Context,
) -> Result<Vec<TimeRange>, Vec<(&'static str, TimeRange)>> {
    let (mut consumed, mut waits) = (Vec::new(), Vec::new());
    for shared in shared {
        match shared.consume(limits, context) {
            Ok(next) => consumed.push(next),
            Err(wait) => waits.push((shared.name(), wait)),
        }
    }
    if waits.is_empty() {
        Ok(consumed)
    } else {
        Err(waits)
    }
}

/// Returns the longest of some waits, and of equal ones the last.
pub(super) fn longest(
    waits: Vec<(&'static str, TimeRange)>,
    choices: &mut Nondeterminism,
) -> Option<(&'static str, TimeRange)> {
    let mut longest: Option<(&'static str, TimeRange)> = None;
    for (name, wait) in waits {
        if longest.is_none_or(|(_, other)| !choices.before(wait, other)) {
            longest = Some((name, wait));
        }
    }
    longest
}

pub(super) fn charge(shared: Vec<Shared>, consumed: Vec<TimeRange>, limits: &mut SharedLimits) {
    for (shared, consumed) in shared.into_iter().zip(consumed) {
        limits.insert(shared.key, consumed);
    }
}

/// Rule 8 for the limits of a refused request: each is full again after one burst at most.
pub(super) fn clamp(shared: Vec<Shared>, limits: &mut SharedLimits, now: TimeRange) {
    for shared in shared {
        if let Some(full_at) = limits.get_mut(&shared.key) {
            *full_at = full_at.min(now.plus(burst(shared.count, HOUR)));
        }
    }
}

/// Returns the time to refill one cell, rounded up, so that no period has too many.
const fn interval(count: i64, period: i64) -> i64 {
    (period + count - 1) / count
}

const fn burst(count: i64, period: i64) -> i64 {
    interval(count, period) * count
}

/// Rule 8 for a limit of a record.
pub(super) fn clamped(full_at: TimeRange, count: i64, period: i64, now: TimeRange) -> TimeRange {
    if count == 0 {
        return full_at;
    }
    full_at.min(now.plus(burst(count, period)))
}

/// Rule 6, the generic cell rate algorithm: consumes one cell, and returns the time at which
/// all are available again. A `count` of 0 disables a limit.
///
/// # Errors
/// Time until a cell is available, if there is none.
pub(super) fn consume(
    full_at: TimeRange,
    count: i64,
    period: i64,
    now: TimeRange,
    choices: &mut Nondeterminism,
) -> Result<TimeRange, TimeRange> {
    if count == 0 {
        return Ok(full_at);
    }
    if !choices.before(now, full_at) {
        return Ok(now.plus(interval(count, period)));
    }
    let latest = now.plus(burst(count, period));
    let next = full_at.min(latest).plus(interval(count, period));
    if choices.before(latest, next) {
        Err(next.since(latest))
    } else {
        Ok(next)
    }
}
