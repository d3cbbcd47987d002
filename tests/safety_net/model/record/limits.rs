//! Rule 6: limits of a record and limits shared by records.

use super::super::{Case, Doubt, HOUR, Limits, Moment};

/// A limit that records share.
pub(super) struct Shared {
    key: (usize, &'static str, String),
    count: i64,
}

/// Sends of a client: of its network, which has 64 bits, and of the site of that, 48.
pub(super) fn sends(network: Option<&str>, case: &Case) -> Vec<Shared> {
    let policy = case.policy;
    let of_network = ("ip_sends_per_hour", policy.ip_sends_per_hour);
    let of_site = ("ip_site_sends_per_hour", policy.ip_site_sends_per_hour);
    shared(network, of_network, of_site, case)
}

/// Wrong answers of a client.
pub(super) fn failures(network: Option<&str>, case: &Case) -> Vec<Shared> {
    let policy = case.policy;
    let of_network = ("ip_failures_per_hour", policy.ip_failures_per_hour);
    let of_site = (
        "ip_site_failures_per_hour",
        policy.ip_site_failures_per_hour,
    );
    shared(network, of_network, of_site, case)
}

fn shared(
    network: Option<&str>,
    of_network: (&'static str, i64),
    of_site: (&'static str, i64),
    case: &Case,
) -> Vec<Shared> {
    let Some(network) = network else {
        return Vec::new();
    };
    let (site, _) = network.rsplit_once(':').expect("it has four groups");
    [(of_network, network), (of_site, site)]
        .map(|((limit, count), of)| Shared {
            key: (case.call.name.caller, limit, of.to_owned()),
            count,
        })
        .into()
}

impl Shared {
    pub(super) fn name(&self) -> &'static str {
        self.key.1
    }

    pub(super) fn take(&self, limits: &Limits, case: &mut Case) -> Result<Moment, Moment> {
        let full_at = limits.get(&self.key).copied().unwrap_or(Moment::LONG_AGO);
        take(full_at, self.count, HOUR, case.paid, case.doubt)
    }
}

/// Takes one of each; or returns the waits, by the limits that ask for them.
pub(super) fn take_each(
    shared: &[Shared],
    limits: &Limits,
    case: &mut Case,
) -> Result<Vec<Moment>, Vec<(&'static str, Moment)>> {
    let (mut taken, mut waits) = (Vec::new(), Vec::new());
    for shared in shared {
        match shared.take(limits, case) {
            Ok(next) => taken.push(next),
            Err(wait) => waits.push((shared.name(), wait)),
        }
    }
    if waits.is_empty() {
        Ok(taken)
    } else {
        Err(waits)
    }
}

/// The longest of some waits, and of equal ones the last.
pub(super) fn longest(
    waits: Vec<(&'static str, Moment)>,
    doubt: &mut Doubt,
) -> Option<(&'static str, Moment)> {
    let mut longest: Option<(&'static str, Moment)> = None;
    for (name, wait) in waits {
        if longest.is_none_or(|(_, other)| !doubt.before(wait, other)) {
            longest = Some((name, wait));
        }
    }
    longest
}

pub(super) fn charge(shared: Vec<Shared>, taken: Vec<Moment>, limits: &mut Limits) {
    for (shared, taken) in shared.into_iter().zip(taken) {
        limits.insert(shared.key, taken);
    }
}

/// Rule 8 for a limit that a refused request looked at: it is full again after one
/// burst at most.
pub(super) fn settle(shared: Vec<Shared>, limits: &mut Limits, now: Moment) {
    for shared in shared {
        if let Some(full_at) = limits.get_mut(&shared.key) {
            *full_at = full_at.min(now.plus(burst(shared.count, HOUR)));
        }
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
