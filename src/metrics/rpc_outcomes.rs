//! Outcomes of RPCs by caller and purpose.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    ConfiguredNames, LabelValues, fixed_label_values,
    grid::{CounterGrid, LabelDomain},
    number_of,
    rpc_labels::{ReceiptOutcome, RpcName, RpcOutcome},
    with_other,
};
use otpd_rules::{CallerName, Purpose, RateLimitKind};

/// Label of every unknown value.
const OTHER: &str = "other";

/// Label of a caller or purpose that could not be read.
const UNREAD: &str = OTHER;

type OutcomeCounters<const LABELS: usize> = CounterGrid<Counter, fn() -> Counter, LABELS>;

/// Counters of outcomes. Clones share their counters.
#[derive(Clone, Debug)]
pub struct RpcOutcomeCounters(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tables: RwLock<LabeledCounters>,
    auth_failures: OutcomeCounters<1>,
}

/// Counters with label values from the configuration.
#[derive(Debug)]
struct LabeledCounters {
    outcomes: OutcomeCounters<4>,
    rate_limited: OutcomeCounters<2>,
    lockouts: OutcomeCounters<2>,
    lockout_resets: OutcomeCounters<1>,
    receipts: OutcomeCounters<2>,
}

impl RpcOutcomeCounters {
    pub(super) fn new(values: &LabelValues, registry: &mut Registry) -> Self {
        let callers = with_other(&values.callers);
        let purposes = with_other(&values.purposes);
        let reasons = (
            "reason",
            fixed_label_values(["no_proof", "token", "certificate"]),
        );
        let auth_failures = OutcomeCounters::new(
            "otpd_auth_failures",
            "Requests whose caller could not be authenticated",
            [reasons],
            Counter::default,
            registry,
        )
        .with_all_series();
        let outcomes = OutcomeCounters::new(
            "otpd_requests",
            "Requests by outcome: their result, or the reason of the refusal",
            outcome_labels(&callers, purposes),
            Counter::default,
            registry,
        );
        let rate_limited = OutcomeCounters::new(
            "otpd_rate_limited",
            "Requests refused by a rate limit",
            rate_limit_labels(&callers),
            Counter::default,
            registry,
        )
        .with_all_series();
        let lockouts = OutcomeCounters::new(
            "otpd_lockouts",
            "Failed attempts that delayed the next attempt or locked the record",
            lockout_labels(&callers),
            Counter::default,
            registry,
        )
        .with_all_series();
        let lockout_resets = OutcomeCounters::new(
            "otpd_lockout_resets",
            "Resets of failed attempts by a caller",
            [("caller", Arc::clone(&callers))],
            Counter::default,
            registry,
        )
        .with_all_series();
        let receipts = OutcomeCounters::new(
            "otpd_receipts",
            "Receipts that were asked for and whose code was verified, by outcome",
            receipt_labels(&callers),
            Counter::default,
            registry,
        )
        .with_all_series();
        let tables = LabeledCounters {
            outcomes,
            rate_limited,
            lockouts,
            lockout_resets,
            receipts,
        };
        Self(Arc::new(Shared {
            tables: RwLock::new(tables),
            auth_failures,
        }))
    }

    pub(super) fn set_label_values(&self, values: &LabelValues) {
        let callers = with_other(&values.callers);
        let mut tables = self
            .0
            .tables
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *tables = LabeledCounters {
            outcomes: tables
                .outcomes
                .with_labels(outcome_labels(&callers, with_other(&values.purposes))),
            rate_limited: tables
                .rate_limited
                .with_labels(rate_limit_labels(&callers))
                .with_all_series(),
            lockouts: tables
                .lockouts
                .with_labels(lockout_labels(&callers))
                .with_all_series(),
            lockout_resets: tables
                .lockout_resets
                .with_labels([("caller", Arc::clone(&callers))])
                .with_all_series(),
            receipts: tables
                .receipts
                .with_labels(receipt_labels(&callers))
                .with_all_series(),
        };
    }

    fn with_tables(&self, count: impl FnOnce(&LabeledCounters) -> u64) {
        // A poisoned lock holds a complete table, because nothing panics while one is replaced.
        let tables = self.0.tables.read();
        count(&tables.unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts the outcome of a request; `purpose` is known once the request has been read.
    pub fn count(
        &self,
        rpc: RpcName,
        caller: &CallerName,
        purpose: Option<&Purpose>,
        outcome: impl Into<RpcOutcome>,
    ) {
        let outcome = outcome.into();
        self.with_tables(|tables| {
            let outcomes = &tables.outcomes;
            let caller = number_of(outcomes.names(1), caller.as_str());
            let purpose = number_of(outcomes.names(2), purpose.map_or(UNREAD, Purpose::as_str));
            outcomes
                .at([rpc as usize, caller, purpose, outcome.number()])
                .inc()
        });
    }

    /// Counts the outcome of a request that did not reach its handler.
    pub fn count_rejection(
        &self,
        rpc: Option<RpcName>,
        caller: Option<&CallerName>,
        outcome: impl Into<RpcOutcome>,
    ) {
        let outcome = outcome.into();
        self.with_tables(|tables| {
            let outcomes = &tables.outcomes;
            let rpc = rpc.map_or(RpcName::ALL.len(), |rpc| rpc as usize);
            let caller = number_of(outcomes.names(1), caller.map_or(UNREAD, CallerName::as_str));
            let purpose = number_of(outcomes.names(2), UNREAD);
            outcomes.at([rpc, caller, purpose, outcome.number()]).inc()
        });
    }

    /// Counts a failed authentication; `reason` is `no_proof`, `token` or `certificate`.
    pub fn unknown(&self, reason: &str) {
        let reasons = self.0.auth_failures.names(0);
        let number = reasons.iter().position(|known| known == reason);
        self.0.auth_failures.at([number.unwrap_or_default()]).inc();
    }

    /// Counts a request that a rate limit refused.
    pub fn limited(&self, limit: RateLimitKind, caller: &CallerName) {
        self.with_tables(|tables| {
            let limits = &tables.rate_limited;
            let number = limits.names(0).iter().position(|name| name == limit.key());
            let caller = number_of(limits.names(1), caller.as_str());
            limits.at([number.unwrap_or_default(), caller]).inc()
        });
    }

    /// Counts a failed attempt that delayed the next attempt, or `locked` the record.
    pub fn lockout(&self, locked: bool, caller: &CallerName) {
        self.with_tables(|tables| {
            let caller = number_of(tables.lockouts.names(1), caller.as_str());
            tables.lockouts.at([usize::from(locked), caller]).inc()
        });
    }

    /// Counts a receipt that was asked for.
    pub fn receipt(&self, outcome: ReceiptOutcome, caller: &CallerName) {
        self.with_tables(|tables| {
            let caller = number_of(tables.receipts.names(1), caller.as_str());
            tables.receipts.at([outcome as usize, caller]).inc()
        });
    }

    /// Counts a reset of failed attempts by a caller.
    pub fn reset(&self, caller: &CallerName) {
        self.with_tables(|tables| {
            let caller = number_of(tables.lockout_resets.names(0), caller.as_str());
            tables.lockout_resets.at([caller]).inc()
        });
    }
}

fn outcome_labels(callers: &ConfiguredNames, purposes: ConfiguredNames) -> [LabelDomain; 4] {
    let rpcs = RpcName::names().chain([OTHER]);
    [
        ("rpc", fixed_label_values(rpcs)),
        ("caller", Arc::clone(callers)),
        ("purpose", purposes),
        ("outcome", fixed_label_values(RpcOutcome::names())),
    ]
}

fn rate_limit_labels(callers: &ConfiguredNames) -> [LabelDomain; 2] {
    let limits = [
        RateLimitKind::SendsPerHour,
        RateLimitKind::SendsPerDay,
        RateLimitKind::IpSendsPerHour,
        RateLimitKind::IpFailuresPerHour,
        RateLimitKind::IpSiteSendsPerHour,
        RateLimitKind::IpSiteFailuresPerHour,
        RateLimitKind::PrefixSendsPerDay,
        RateLimitKind::CallerSendsPerDay,
    ];
    [
        ("limit", fixed_label_values(limits.map(RateLimitKind::key))),
        ("caller", Arc::clone(callers)),
    ]
}

fn receipt_labels(callers: &ConfiguredNames) -> [LabelDomain; 2] {
    [
        ("outcome", fixed_label_values(ReceiptOutcome::names())),
        ("caller", Arc::clone(callers)),
    ]
}

fn lockout_labels(callers: &ConfiguredNames) -> [LabelDomain; 2] {
    [
        ("kind", fixed_label_values(["delayed", "locked"])),
        ("caller", Arc::clone(callers)),
    ]
}
