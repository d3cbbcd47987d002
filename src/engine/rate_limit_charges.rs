//! Charges of a request on its rate limits, and their refund. The design is in
//! docs/design/limits.md.

use std::time::Duration;

use super::{NotCommitted, WorkingSetView};
use crate::store::RowVersion;
use otpd_rules::{
    LimitCharge, LimitKey, LimitUpdate, Quota, RateLimitKind, RateLimitState, Timestamp,
};

/// A rate limit of a request, besides those of its record.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Key of its state in the store.
    pub key: LimitKey,
    /// Kind of limit.
    pub name: RateLimitKind,
    /// Configured rate.
    pub rate: Quota,
}

/// Rate limits of a request, and the charges that it has paid.
pub(super) struct RateLimitCharges {
    entries: Vec<ChargedLimit>,
    /// Whether the outcome of a write is unknown. Then nothing is refunded, because the record
    /// that it was paid for may have been written.
    in_doubt: bool,
}

struct ChargedLimit {
    limit: RateLimit,
    /// Whether an earlier attempt, whose record was not written, has paid it.
    paid: bool,
    /// State of the limit after that payment; `None` if it is not known.
    paid_state: Option<Timestamp>,
    /// Version of the write by which this request charged it last. A row that still has
    /// this version shows that it was charged, even if the acknowledgement was lost.
    charged_by: Option<RowVersion>,
    /// Update by the last decision.
    step: PendingCharge,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PendingCharge {
    Nothing,
    Charge,
    Refund,
}

impl RateLimitCharges {
    pub fn new(limits: &[RateLimit]) -> Self {
        let entry = |limit: &RateLimit| ChargedLimit {
            limit: *limit,
            paid: false,
            paid_state: None,
            charged_by: None,
            step: PendingCharge::Nothing,
        };
        Self {
            entries: limits.iter().map(entry).collect(),
            in_doubt: false,
        }
    }

    /// Returns the states of the limits, as the rules take them.
    pub fn states(&mut self, view: &WorkingSetView<'_>) -> Vec<RateLimitState> {
        let state = |entry: &mut ChargedLimit| {
            let loaded = view.loaded_limit(&entry.limit.key);
            entry.paid |= loaded.is_some() && loaded == entry.charged_by;
            RateLimitState {
                name: entry.limit.name,
                rate: entry.limit.rate,
                full_at: view.limit(&entry.limit.key),
                paid: entry.paid,
            }
        };
        self.entries.iter_mut().map(state).collect()
    }

    /// Returns the updates of the limits by a decision. If it consumes nothing, the charges of
    /// earlier attempts are refunded.
    pub fn updates(
        &mut self,
        view: &WorkingSetView<'_>,
        states: &[RateLimitState],
        charge: LimitCharge,
    ) -> Vec<(LimitKey, LimitUpdate)> {
        let mut updates = Vec::new();
        for (entry, limit) in self.entries.iter_mut().zip(states) {
            let key = entry.limit.key;
            entry.step = PendingCharge::Nothing;
            let update = charge.update(limit, view.now());
            updates.extend(update.map(|update| (key, update)));
            if charge == LimitCharge::Consume {
                if update.is_some() {
                    entry.charged_by = Some(view.version());
                    entry.step = PendingCharge::Charge;
                }
            } else if let Some(amount) = entry.refund(view).filter(|_| !self.in_doubt) {
                entry.step = PendingCharge::Refund;
                updates.push((key, LimitUpdate::Refund(amount)));
            }
        }
        updates
    }

    /// Notes the charges that were written although the last decision was not committed.
    pub fn on_not_committed(&mut self, loss: NotCommitted<'_>) {
        for entry in &mut self.entries {
            let written = match loss {
                NotCommitted::Conflict(written) => written.limits.get(&entry.limit.key).copied(),
                NotCommitted::InDoubt => None,
            };
            match entry.step {
                // If the outcome is unknown, the version of the row shows it at the next load.
                PendingCharge::Charge if written.is_some() => {
                    entry.paid = true;
                    entry.paid_state = written;
                }
                // A charge that may have been refunded counts as not paid.
                PendingCharge::Refund
                    if written.is_some() || matches!(loss, NotCommitted::InDoubt) =>
                {
                    entry.paid = false;
                    entry.charged_by = None;
                }
                _ => {}
            }
        }
        self.in_doubt |= matches!(loss, NotCommitted::InDoubt);
    }

    /// Returns whether a charge is to be refunded if the request fails.
    pub fn has_refund_due(&self) -> bool {
        !self.in_doubt && self.entries.iter().any(|entry| entry.paid)
    }
}

impl ChargedLimit {
    /// Returns the refund of the paid charge, if there is anything to refund.
    fn refund(&self, view: &WorkingSetView<'_>) -> Option<Duration> {
        let state = self.paid_state.filter(|_| self.paid)?;
        // A limit without a row is full.
        view.limit(&self.limit.key)?;
        let amount = self.limit.rate.refund(state, view.now());
        (!amount.is_zero()).then_some(amount)
    }
}
