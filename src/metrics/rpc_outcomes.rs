//! Outcomes of RPCs by caller and purpose.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    ConfiguredNames, LabelValues, fixed_label_values,
    grid::{CounterGrid, LabelDomain},
    number_of, with_other,
};
use otpd_rules::{CallerName, Purpose, RateLimitKind};

/// RPC of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcName {
    /// `SendOtp`.
    Send,
    /// `VerifyOtp`.
    Verify,
    /// `CancelOtp`.
    Cancel,
    /// `GetOtpStatus`.
    Status,
}

/// Names in the order of [`RpcName`], followed by that of every other method.
const RPCS: [&str; 5] = ["SendOtp", "VerifyOtp", "CancelOtp", "GetOtpStatus", OTHER];

/// Label of every unknown value.
const OTHER: &str = "other";

impl RpcName {
    /// Returns its name in the contract.
    pub const fn name(self) -> &'static str {
        RPCS[self as usize]
    }

    /// Returns the RPC at a path, such as `/otp.v1.OtpService/SendOtp`, and the path.
    pub fn at(path: &str) -> Option<(Self, &'static str)> {
        const PATHS: [(RpcName, &str); 4] = [
            (RpcName::Send, "/otp.v1.OtpService/SendOtp"),
            (RpcName::Verify, "/otp.v1.OtpService/VerifyOtp"),
            (RpcName::Cancel, "/otp.v1.OtpService/CancelOtp"),
            (RpcName::Status, "/otp.v1.OtpService/GetOtpStatus"),
        ];
        PATHS.into_iter().find(|(_, known)| *known == path)
    }
}

/// Outcome of a request: its result, or the contract's reason for the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcOutcome(usize);

/// Names of all outcomes, results of requests first.
const OUTCOMES: [&str; 36] = [
    "sent",
    "resent",
    "self_delivered",
    "verified",
    "wrong_code",
    "expired",
    "attempts_exhausted",
    "not_found",
    "cancelled",
    "no_active_code",
    "ok",
    "client_disconnected",
    "unsupported_media_type",
    "unimplemented",
    "malformed",
    "forbidden",
    "REQUEST_INVALID",
    "DEADLINE_EXCEEDED",
    "OVERLOADED",
    "RECIPIENT_INVALID",
    "PURPOSE_INVALID",
    "CODE_MALFORMED",
    "CALLER_UNKNOWN",
    "PURPOSE_NOT_ALLOWED",
    "DESTINATION_BLOCKED",
    "RESET_NOT_ALLOWED",
    "NO_ROUTE",
    "RESEND_TOO_SOON",
    "SEND_LIMIT",
    "VERIFY_LIMIT",
    "VERIFY_DELAYED",
    "VERIFY_LOCKED",
    "STORE_UNAVAILABLE",
    "SHUTTING_DOWN",
    "INTERNAL",
    OTHER,
];

impl RpcOutcome {
    /// A new code and its message were written.
    pub const SENT: Self = Self(0);
    /// The same code was sent again.
    pub const RESENT: Self = Self(1);
    /// The code was returned to a caller that delivers it itself.
    pub const SELF_DELIVERED: Self = Self(2);
    /// The submitted code was correct.
    pub const VERIFIED: Self = Self(3);
    /// The submitted code was wrong.
    pub const WRONG_CODE: Self = Self(4);
    /// The code had expired.
    pub const EXPIRED: Self = Self(5);
    /// The code had used up its attempts.
    pub const ATTEMPTS_EXHAUSTED: Self = Self(6);
    /// The record had no code.
    pub const NOT_FOUND: Self = Self(7);
    /// A code was cancelled.
    pub const CANCELLED: Self = Self(8);
    /// The record had no active code to cancel.
    pub const NO_ACTIVE_CODE: Self = Self(9);
    /// A status was returned.
    pub const STATUS_RETURNED: Self = Self(10);
    /// The client disconnected before the response.
    pub const CLIENT_DISCONNECTED: Self = Self(11);
    /// The content type is not accepted.
    pub const UNSUPPORTED_MEDIA_TYPE: Self = Self(12);
    /// The method does not exist, or the message is compressed.
    pub const UNIMPLEMENTED: Self = Self(13);
    /// The request breaks its protocol, such as one of gRPC without a message.
    pub const MALFORMED: Self = Self(14);
    /// The request is one that a web page could send: its origin or its host is not allowed.
    pub const FORBIDDEN: Self = Self(15);
    /// The message cannot be read, or is too long.
    pub const REQUEST_INVALID: Self = Self(16);
    /// The message did not arrive in time.
    pub const DEADLINE_EXCEEDED: Self = Self(17);
    /// The memory budget of all connections is used up.
    pub const OVERLOADED: Self = Self(18);

    /// Returns the outcome of a refusal with this reason of the contract.
    pub fn refused(reason: &str) -> Self {
        let number = OUTCOMES.iter().position(|outcome| *outcome == reason);
        Self(number.unwrap_or(OUTCOMES.len() - 1))
    }

    /// Returns its label.
    pub const fn name(self) -> &'static str {
        OUTCOMES[self.0]
    }
}

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
            [("caller", callers)],
            Counter::default,
            registry,
        )
        .with_all_series();
        let tables = LabeledCounters {
            outcomes,
            rate_limited,
            lockouts,
            lockout_resets,
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
                .with_labels([("caller", callers)])
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
        outcome: RpcOutcome,
    ) {
        self.with_tables(|tables| {
            let outcomes = &tables.outcomes;
            let caller = number_of(outcomes.names(1), caller.as_str());
            let purpose = number_of(outcomes.names(2), purpose.map_or(UNREAD, Purpose::as_str));
            outcomes
                .at([rpc as usize, caller, purpose, outcome.0])
                .inc()
        });
    }

    /// Counts the outcome of a request that did not reach its handler.
    pub fn count_rejection(
        &self,
        rpc: Option<RpcName>,
        caller: Option<&CallerName>,
        outcome: RpcOutcome,
    ) {
        self.with_tables(|tables| {
            let outcomes = &tables.outcomes;
            let rpc = rpc.map_or(RPCS.len() - 1, |rpc| rpc as usize);
            let caller = number_of(outcomes.names(1), caller.map_or(UNREAD, CallerName::as_str));
            let purpose = number_of(outcomes.names(2), UNREAD);
            outcomes.at([rpc, caller, purpose, outcome.0]).inc()
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

    /// Counts a reset of failed attempts by a caller.
    pub fn reset(&self, caller: &CallerName) {
        self.with_tables(|tables| {
            let caller = number_of(tables.lockout_resets.names(0), caller.as_str());
            tables.lockout_resets.at([caller]).inc()
        });
    }
}

fn outcome_labels(callers: &ConfiguredNames, purposes: ConfiguredNames) -> [LabelDomain; 4] {
    [
        ("rpc", fixed_label_values(RPCS)),
        ("caller", Arc::clone(callers)),
        ("purpose", purposes),
        ("outcome", fixed_label_values(OUTCOMES)),
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

fn lockout_labels(callers: &ConfiguredNames) -> [LabelDomain; 2] {
    [
        ("kind", fixed_label_values(["delayed", "locked"])),
        ("caller", Arc::clone(callers)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table of reasons.
    const TABLE: &str = include_str!("../grpc/error.rs");

    #[test]
    fn every_contract_reason_has_an_outcome() {
        let texts = TABLE.split('"').skip(1).step_by(2);
        let is_reason = |text: &&str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        let reasons: Vec<&str> = texts.filter(is_reason).collect();
        assert!(reasons.len() >= 17, "{reasons:?}");
        for reason in reasons {
            assert_eq!(RpcOutcome::refused(reason).name(), reason);
        }
        assert_eq!(RpcOutcome::refused("SOMETHING_NEW").name(), "other");
    }

    #[test]
    fn outcome_names_match_their_index() {
        for (outcome, name) in [
            (RpcOutcome::SENT, "sent"),
            (RpcOutcome::RESENT, "resent"),
            (RpcOutcome::SELF_DELIVERED, "self_delivered"),
            (RpcOutcome::VERIFIED, "verified"),
            (RpcOutcome::WRONG_CODE, "wrong_code"),
            (RpcOutcome::EXPIRED, "expired"),
            (RpcOutcome::ATTEMPTS_EXHAUSTED, "attempts_exhausted"),
            (RpcOutcome::NOT_FOUND, "not_found"),
            (RpcOutcome::CANCELLED, "cancelled"),
            (RpcOutcome::NO_ACTIVE_CODE, "no_active_code"),
            (RpcOutcome::STATUS_RETURNED, "ok"),
            (RpcOutcome::CLIENT_DISCONNECTED, "client_disconnected"),
            (RpcOutcome::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            (RpcOutcome::UNIMPLEMENTED, "unimplemented"),
            (RpcOutcome::MALFORMED, "malformed"),
            (RpcOutcome::REQUEST_INVALID, "REQUEST_INVALID"),
            (RpcOutcome::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
            (RpcOutcome::OVERLOADED, "OVERLOADED"),
        ] {
            assert_eq!(outcome.name(), name);
        }
    }
}
