//! What was answered to whom.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    ConfiguredNames, LabelValues, fixed,
    grid::{CounterGrid, LabelDomain},
    known, number_of,
};
use otpd_rules::{CallerName, Purpose, RateLimitKind};

/// The RPCs of the contract.
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

/// Their names, in the order of [`RpcName`], and after them that of every other method.
const RPCS: [&str; 5] = ["SendOtp", "VerifyOtp", "CancelOtp", "GetOtpStatus", OTHER];

/// Label of every value that is not known.
const OTHER: &str = "other";

impl RpcName {
    /// Its name in the contract.
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

/// What was answered: what became of the request, or the contract's reason why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcOutcome(usize);

/// All answers, what became of requests first.
const OUTCOMES: [&str; 35] = [
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
    /// A code was made, and its message written.
    pub const SENT: Self = Self(0);
    /// The same code once more.
    pub const RESENT: Self = Self(1);
    /// The code was given to a caller that delivers by itself.
    pub const GIVEN_TO_CALLER: Self = Self(2);
    /// The typed code was right.
    pub const VERIFIED: Self = Self(3);
    /// It was wrong.
    pub const WRONG_CODE: Self = Self(4);
    /// The code's life was over.
    pub const EXPIRED: Self = Self(5);
    /// As many answers as allowed had been wrong.
    pub const ATTEMPTS_EXHAUSTED: Self = Self(6);
    /// There was no code.
    pub const NOT_FOUND: Self = Self(7);
    /// A code was ended.
    pub const CANCELLED: Self = Self(8);
    /// There was none to end.
    pub const NOTHING_TO_CANCEL: Self = Self(9);
    /// A status was told.
    pub const TOLD: Self = Self(10);
    /// The caller hung up before there was an answer.
    pub const CALLER_GONE: Self = Self(11);
    /// The content type is not accepted.
    pub const MEDIA_TYPE: Self = Self(12);
    /// The method does not exist, or the message is compressed.
    pub const UNIMPLEMENTED: Self = Self(13);
    /// The request breaks the protocol of gRPC, such as one without a message.
    pub const MALFORMED: Self = Self(14);
    /// The message cannot be read, or is too long.
    pub const REQUEST_INVALID: Self = Self(15);
    /// The message did not arrive in time.
    pub const DEADLINE_EXCEEDED: Self = Self(16);
    /// The memory of all connections is used up.
    pub const OVERLOADED: Self = Self(17);

    /// The refusal for this reason of the contract.
    pub fn refused(reason: &str) -> Self {
        let number = OUTCOMES.iter().position(|answer| *answer == reason);
        Self(number.unwrap_or(OUTCOMES.len() - 1))
    }

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        OUTCOMES[self.0]
    }
}

/// What a series of a purpose is called where the purpose could not be read.
const UNREAD: &str = OTHER;

type OutcomeCounters<const LABELS: usize> = CounterGrid<Counter, fn() -> Counter, LABELS>;

/// What was answered to whom. Clones count into the same.
#[derive(Clone, Debug)]
pub struct RpcOutcomeCounters(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tables: RwLock<LabeledCounters>,
    unknown: OutcomeCounters<1>,
}

/// What depends on the names that are known.
#[derive(Debug)]
struct LabeledCounters {
    answers: OutcomeCounters<4>,
    limits: OutcomeCounters<2>,
    shut: OutcomeCounters<2>,
    reset: OutcomeCounters<1>,
}

impl RpcOutcomeCounters {
    pub(super) fn new(all: &LabelValues, registry: &mut Registry) -> Self {
        let callers = known(&all.callers);
        let purposes = known(&all.purposes);
        let causes = ("reason", fixed(["no_proof", "token", "certificate"]));
        let unknown = OutcomeCounters::new(
            "otpd_auth_failures",
            "Requests of nobody whom otpd knows",
            [causes],
            Counter::default,
            registry,
        )
        .with_all_series();
        let answers = OutcomeCounters::new(
            "otpd_requests",
            "Answers to requests: what became of them, or the reason why nothing did",
            answers_labels(&callers, purposes),
            Counter::default,
            registry,
        );
        let limits = OutcomeCounters::new(
            "otpd_rate_limited",
            "Requests refused by a limit",
            limits_labels(&callers),
            Counter::default,
            registry,
        )
        .with_all_series();
        let shut = OutcomeCounters::new(
            "otpd_lockouts",
            "Wrong answers after which the next one must wait, or none is taken any more",
            shut_labels(&callers),
            Counter::default,
            registry,
        )
        .with_all_series();
        let reset = OutcomeCounters::new(
            "otpd_lockout_resets",
            "Wrong answers forgotten at a caller's wish",
            [("caller", callers)],
            Counter::default,
            registry,
        )
        .with_all_series();
        let tables = LabeledCounters {
            answers,
            limits,
            shut,
            reset,
        };
        Self(Arc::new(Shared {
            tables: RwLock::new(tables),
            unknown,
        }))
    }

    pub(super) fn know(&self, all: &LabelValues) {
        let callers = known(&all.callers);
        let mut tables = self
            .0
            .tables
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *tables = LabeledCounters {
            answers: tables
                .answers
                .with(answers_labels(&callers, known(&all.purposes))),
            limits: tables
                .limits
                .with(limits_labels(&callers))
                .with_all_series(),
            shut: tables.shut.with(shut_labels(&callers)).with_all_series(),
            reset: tables.reset.with([("caller", callers)]).with_all_series(),
        };
    }

    fn with(&self, count: impl FnOnce(&LabeledCounters) -> u64) {
        // Nobody panics half-way through a new table.
        let tables = self.0.tables.read();
        count(&tables.unwrap_or_else(PoisonError::into_inner));
    }

    /// Something was answered; `purpose` is known once the request was read.
    pub fn count(
        &self,
        rpc: RpcName,
        caller: &CallerName,
        purpose: Option<&Purpose>,
        answer: RpcOutcome,
    ) {
        self.with(|tables| {
            let answers = &tables.answers;
            let caller = number_of(answers.names(1), caller.as_str());
            let purpose = number_of(answers.names(2), purpose.map_or(UNREAD, Purpose::as_str));
            answers.at([rpc as usize, caller, purpose, answer.0]).inc()
        });
    }

    /// Counts the answer to a request that did not reach its handler.
    pub fn count_rejection(
        &self,
        rpc: Option<RpcName>,
        caller: Option<&CallerName>,
        answer: RpcOutcome,
    ) {
        self.with(|tables| {
            let answers = &tables.answers;
            let rpc = rpc.map_or(RPCS.len() - 1, |rpc| rpc as usize);
            let caller = number_of(answers.names(1), caller.map_or(UNREAD, CallerName::as_str));
            let purpose = number_of(answers.names(2), UNREAD);
            answers.at([rpc, caller, purpose, answer.0]).inc()
        });
    }

    /// A request of nobody whom otpd knows; `cause` is `no_proof`, `token` or
    /// `certificate`.
    pub fn unknown(&self, cause: &str) {
        let causes = self.0.unknown.names(0);
        let number = causes.iter().position(|known| known == cause);
        self.0.unknown.at([number.unwrap_or_default()]).inc();
    }

    /// A limit left no room.
    pub fn limited(&self, limit: RateLimitKind, caller: &CallerName) {
        self.with(|tables| {
            let limits = &tables.limits;
            let number = limits.names(0).iter().position(|name| name == limit.key());
            let caller = number_of(limits.names(1), caller.as_str());
            limits.at([number.unwrap_or_default(), caller]).inc()
        });
    }

    /// A wrong answer has shut its record: for a while, or `locked` for good.
    pub fn lockout(&self, locked: bool, caller: &CallerName) {
        self.with(|tables| {
            let caller = number_of(tables.shut.names(1), caller.as_str());
            tables.shut.at([usize::from(locked), caller]).inc()
        });
    }

    /// A caller had wrong answers forgotten.
    pub fn reset(&self, caller: &CallerName) {
        self.with(|tables| {
            let caller = number_of(tables.reset.names(0), caller.as_str());
            tables.reset.at([caller]).inc()
        });
    }
}

fn answers_labels(callers: &ConfiguredNames, purposes: ConfiguredNames) -> [LabelDomain; 4] {
    [
        ("rpc", fixed(RPCS)),
        ("caller", Arc::clone(callers)),
        ("purpose", purposes),
        ("outcome", fixed(OUTCOMES)),
    ]
}

fn limits_labels(callers: &ConfiguredNames) -> [LabelDomain; 2] {
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
        ("limit", fixed(limits.map(RateLimitKind::key))),
        ("caller", Arc::clone(callers)),
    ]
}

fn shut_labels(callers: &ConfiguredNames) -> [LabelDomain; 2] {
    [
        ("kind", fixed(["delayed", "locked"])),
        ("caller", Arc::clone(callers)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one table of reasons.
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
        for (answer, name) in [
            (RpcOutcome::SENT, "sent"),
            (RpcOutcome::RESENT, "resent"),
            (RpcOutcome::GIVEN_TO_CALLER, "self_delivered"),
            (RpcOutcome::VERIFIED, "verified"),
            (RpcOutcome::WRONG_CODE, "wrong_code"),
            (RpcOutcome::EXPIRED, "expired"),
            (RpcOutcome::ATTEMPTS_EXHAUSTED, "attempts_exhausted"),
            (RpcOutcome::NOT_FOUND, "not_found"),
            (RpcOutcome::CANCELLED, "cancelled"),
            (RpcOutcome::NOTHING_TO_CANCEL, "no_active_code"),
            (RpcOutcome::TOLD, "ok"),
            (RpcOutcome::CALLER_GONE, "client_disconnected"),
            (RpcOutcome::MEDIA_TYPE, "unsupported_media_type"),
            (RpcOutcome::UNIMPLEMENTED, "unimplemented"),
            (RpcOutcome::MALFORMED, "malformed"),
            (RpcOutcome::REQUEST_INVALID, "REQUEST_INVALID"),
            (RpcOutcome::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
            (RpcOutcome::OVERLOADED, "OVERLOADED"),
        ] {
            assert_eq!(answer.name(), name);
        }
    }
}
