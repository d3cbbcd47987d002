//! The shared limits beside those of the model.

use std::collections::BTreeMap;

use otpd_model::{self as model, Call, TimeRange};
use proptest::{prelude::*, test_runner::TestCaseResult};

use super::{conversion, world::World};
use crate::*;

impl World {
    /// Returns the shared limits of a call that the policy enables.
    pub(super) fn limits_of(&self, call: &Call) -> Vec<((RateLimitKind, String), RateLimitState)> {
        let subjects = conversion::shared_limits(call).into_iter();
        subjects
            .filter_map(|subject| {
                let limit = RateLimitState {
                    name: subject.0,
                    rate: self.policy.rate(subject.0)?,
                    full_at: self.limits.get(&subject).copied(),
                    paid: false,
                };
                Some((subject, limit))
            })
            .collect()
    }

    /// Applies the update of a decision to the shared limits of its call.
    pub(super) fn charge_limits(
        &mut self,
        limits: Vec<((RateLimitKind, String), RateLimitState)>,
        charge: LimitCharge,
    ) {
        for (subject, limit) in limits {
            if let Some(update) = charge.update(&limit, self.now) {
                let full_at = self.limits.entry(subject).or_insert(self.now);
                let mut batched = BatchedLimit::new(*full_at);
                batched.update(update, self.now);
                *full_at = batched.full_at;
            }
        }
    }

    /// The shared limits have the states of the model.
    pub(super) fn check_limits(&self) -> TestCaseResult {
        let limits: BTreeMap<_, _> = self
            .limits
            .iter()
            .map(|((kind, subject), full_at)| {
                let full_at = TimeRange::exact(full_at.milliseconds());
                ((0, kind.key(), subject.clone()), full_at)
            })
            .collect();
        prop_assert_eq!(&limits, self.model.limits());
        Ok(())
    }

    /// No window of time has more sends or failed attempts than a limit allows. The clock must
    /// not have stepped back.
    pub(super) fn check_windows(&self) -> TestCaseResult {
        let policy = &self.settings.policies[0];
        let times = |calls: &[(TimeRange, Option<u8>)], is_counted: fn(Option<u8>) -> bool| {
            calls
                .iter()
                .filter(|(_, network)| is_counted(*network))
                .map(|(at, _)| *at)
                .collect::<Vec<_>>()
        };
        let sends = |is_counted| times(&self.sends, is_counted);
        let failures = |is_counted| times(&self.failures, is_counted);
        for (times, count, period) in [
            (sends(|_| true), policy.sends_per_hour, model::HOUR),
            (sends(|_| true), policy.sends_per_day, model::DAY),
            (
                sends(|network| network == Some(0)),
                policy.ip_sends_per_hour,
                model::HOUR,
            ),
            (
                sends(|network| network.is_some()),
                policy.ip_site_sends_per_hour,
                model::HOUR,
            ),
            (
                failures(|network| network == Some(0)),
                policy.ip_failures_per_hour,
                model::HOUR,
            ),
            (
                failures(|network| network.is_some()),
                policy.ip_site_failures_per_hour,
                model::HOUR,
            ),
        ] {
            prop_assert_eq!(model::check_window(&times, count, period), Ok(()));
        }
        Ok(())
    }
}
