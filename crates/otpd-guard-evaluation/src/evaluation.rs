//! Scenarios, run on several seeds.

use std::ops::RangeInclusive;

use otpd_rules::guard::GuardPolicy;

use crate::{
    guarded::GuardedService,
    simulation::{DayOutcome, simulate, warm_up},
    thresholds::FixedThresholds,
    traffic::{AttackPlan, HonestTraffic},
    world::EvaluatedGuard,
};

/// Seeds on which the parameters of the rule were chosen.
pub const TRAINING_SEEDS: RangeInclusive<u64> = 1..=5;
/// Seeds of the published figures.
pub const REPORT_SEEDS: RangeInclusive<u64> = 101..=110;

/// A guard after its warm-up, once for each seed.
#[derive(Clone, Debug)]
pub struct WarmedUp<D> {
    states: Vec<(u64, D)>,
}

impl<D: EvaluatedGuard> WarmedUp<D> {
    fn new(defence: &D, seeds: RangeInclusive<u64>) -> Self {
        let states = seeds.map(|seed| {
            let mut defence = defence.clone();
            warm_up(&mut defence, seed);
            (seed, defence)
        });
        Self {
            states: states.collect(),
        }
    }

    /// Runs a scenario on each seed.
    pub fn run(&self, honest: HonestTraffic, attack: Option<&AttackPlan>) -> Vec<DayOutcome> {
        let outcomes = self.states.iter().map(|(seed, defence)| {
            let mut defence = defence.clone();
            simulate(&mut defence, honest, attack, *seed)
        });
        outcomes.collect()
    }
}

/// Prepares the guard with a policy.
pub fn guarded(
    policy: GuardPolicy,
    daily_budget: Option<u32>,
    seeds: RangeInclusive<u64>,
) -> WarmedUp<GuardedService> {
    WarmedUp::new(&GuardedService::new(policy, daily_budget), seeds)
}

/// Prepares the fixed thresholds, multiplied by a factor.
pub fn thresholds(factor: f64, seeds: RangeInclusive<u64>) -> WarmedUp<FixedThresholds> {
    WarmedUp::new(&FixedThresholds::new(factor), seeds)
}

/// Returns the mean of a figure over the seeds.
pub fn mean(outcomes: &[DayOutcome], figure: impl Fn(&DayOutcome) -> u32) -> f64 {
    let sum: f64 = outcomes
        .iter()
        .map(|outcome| f64::from(figure(outcome)))
        .sum();
    let count = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
    sum / f64::from(count.max(1))
}

/// Returns the largest value of a figure over the seeds.
pub fn most(outcomes: &[DayOutcome], figure: impl Fn(&DayOutcome) -> u32) -> u32 {
    outcomes.iter().map(figure).max().unwrap_or(0)
}

/// Returns the percentage of refused first-time users, in all countries or in one.
pub fn refused(outcomes: &[DayOutcome], country: Option<usize>) -> f64 {
    let users = outcomes.iter().flat_map(|outcome| {
        let users = outcome.users.iter().enumerate();
        users.filter(|(number, _)| country.is_none_or(|country| country == *number))
    });
    let (refused, all) = users.fold((0, 0), |(refused, all), (_, users)| {
        (refused + users.refused, all + users.first_time)
    });
    100.0 * f64::from(refused) / f64::from(all.max(1))
}

/// Returns the number of refused returning users.
pub fn returning_refused(outcomes: &[DayOutcome]) -> u32 {
    let users = outcomes.iter().flat_map(|outcome| outcome.users);
    users.map(|users| users.returning_refused).sum()
}
