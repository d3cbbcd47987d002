//! Configurable limits and durations of the rules.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{Purpose, Quota, RateLimitKind};

/// Maximum life of a code: 10 minutes by NIST SP 800-63B-4, section 3.1.3.2 (out-of-band
/// secrets).
const MAX_CODE_TTL: Duration = Duration::from_mins(10);
/// Minimum life of a code that a person can still type.
const MIN_CODE_TTL: Duration = Duration::from_secs(10);
/// Maximum cool-down between two sends.
const MAX_RESEND_AFTER: Duration = Duration::from_hours(1);
/// Number of consecutive failures after which NIST SP 800-63B-4, section 3.2.2, wants an
/// account locked; one code must not allow more.
const MAX_FAILURES: u32 = 100;
/// Maximum delay between two attempts: the same section suggests up to an hour.
pub(super) const MAX_FAILURE_DELAY: Duration = Duration::from_hours(1);
/// Minimum of `failure_memory`: if shorter, the longest delay would reset the count.
const MIN_FAILURE_MEMORY: Duration = Duration::from_hours(1);
/// Maximum of `failure_memory`: a longer one makes no difference to an attacker, but
/// dates could leave the calendar.
const MAX_FAILURE_MEMORY: Duration = Duration::from_hours(365 * 24);
/// Minimum of `request_memory`: a caller's retries could outlast a shorter one.
const MIN_REQUEST_MEMORY: Duration = Duration::from_mins(1);
/// Maximum of `request_memory`: a longer one makes records grow without benefit.
const MAX_REQUEST_MEMORY: Duration = Duration::from_hours(24);
/// Minimum number of digits that needs no permission: NIST SP 800-63B-4 asks for six.
const SAFE_CODE_LENGTH: u8 = 6;

/// Policy for the codes of one purpose: the `[policy]` table of the configuration, or a
/// `[purposes.NAME]` table on top of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PurposePolicy {
    /// Number of digits of a code, 4 to 10; below 6 only with `allow_short_codes`.
    pub code_length: u8,
    /// Allows a `code_length` below 6, which is easy to guess.
    pub allow_short_codes: bool,
    /// Life of a code, 10 s to 10 min; the upper bound is that of NIST SP 800-63B.
    #[serde(with = "humantime_serde")]
    pub code_ttl: Duration,
    /// Maximum number of attempts that are checked per code, 1 to 100.
    pub max_attempts: u32,
    /// Cool-down after a send, at most 1 h; a send within it is refused. A code with less
    /// than this to live is replaced, not sent again.
    #[serde(with = "humantime_serde")]
    pub resend_after: Duration,
    /// Requires a `challenge_id` in `VerifyOtp`. Every `SendOtp` of the caller for the
    /// recipient returns it, a resend too; the caller must keep it with the session that
    /// asked.
    pub require_challenge_id: bool,
    /// Delay of the next attempt after every `max_attempts` consecutive failed ones, over
    /// all codes, at most 1 h; doubles each time, up to 1 h.
    #[serde(with = "humantime_serde")]
    pub failure_delay: Duration,
    /// Number of consecutive failed attempts from which the record is locked, 1 to 100;
    /// the upper bound is that of NIST SP 800-63B.
    pub failure_limit: u32,
    /// Time without a failed attempt after which the count is reset, 1 h to 365 d.
    #[serde(with = "humantime_serde")]
    pub failure_memory: Duration,
    /// Sends per record and hour; 0 is off.
    pub sends_per_hour: u32,
    /// Sends per record and day; 0 is off.
    pub sends_per_day: u32,
    /// Sends per `client_ip` (IPv6: per /64) and hour, for requests that have one; 0 is
    /// off.
    pub ip_sends_per_hour: u32,
    /// Failed attempts per `client_ip` and hour; 0 is off.
    pub ip_failures_per_hour: u32,
    /// Sends per site of a `client_ip` with IPv6 (one /48 of global addresses) and hour;
    /// 0 is off.
    pub ip_site_sends_per_hour: u32,
    /// Failed attempts per site of a `client_ip` with IPv6 and hour; 0 is off.
    pub ip_site_failures_per_hour: u32,
    /// Sends per dialling prefix (the country's calling code) and day; 0 is off.
    pub prefix_sends_per_day: u32,
    /// Sends per caller and day; 0 is off.
    pub caller_sends_per_day: u32,
    /// Time for which the response to a `request_id` is kept for repetitions, 1 min to 24
    /// h.
    #[serde(with = "humantime_serde")]
    pub request_memory: Duration,
}

/// Policies of all purposes.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// Policy of purposes without an entry in `purposes`.
    pub general: PurposePolicy,
    /// Policies of single purposes.
    pub purposes: BTreeMap<Purpose, PurposePolicy>,
}

impl PolicySet {
    /// Returns the policy of `purpose`.
    pub fn of(&self, purpose: &Purpose) -> &PurposePolicy {
        self.purposes.get(purpose).unwrap_or(&self.general)
    }
}

/// Error of a [`PurposePolicy`] with a value out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct PolicyError {
    /// Key within its table.
    pub key: &'static str,
    /// Description of the wrong value, and the allowed ones.
    pub problem: String,
}

impl Default for PurposePolicy {
    fn default() -> Self {
        Self {
            code_length: 6,
            allow_short_codes: false,
            code_ttl: Duration::from_mins(5),
            max_attempts: 5,
            resend_after: Duration::from_mins(1),
            require_challenge_id: false,
            failure_delay: Duration::from_secs(30),
            failure_limit: 100,
            failure_memory: Duration::from_hours(30 * 24),
            sends_per_hour: 5,
            sends_per_day: 10,
            ip_sends_per_hour: 60,
            ip_failures_per_hour: 60,
            ip_site_sends_per_hour: 600,
            ip_site_failures_per_hour: 600,
            prefix_sends_per_day: 0,
            caller_sends_per_day: 0,
            request_memory: Duration::from_mins(10),
        }
    }
}

impl PurposePolicy {
    /// Time for which an expired code is still reported as expired; afterwards it is as
    /// if there had been none.
    pub const EXPIRED_RETENTION: Duration = Duration::from_hours(1);

    /// Returns the quota of a limit; `None` if it is off.
    pub fn rate(&self, limit: RateLimitKind) -> Option<Quota> {
        const HOUR: Duration = Duration::from_hours(1);
        const DAY: Duration = Duration::from_hours(24);

        let (count, period) = match limit {
            RateLimitKind::SendsPerHour => (self.sends_per_hour, HOUR),
            RateLimitKind::SendsPerDay => (self.sends_per_day, DAY),
            RateLimitKind::IpSendsPerHour => (self.ip_sends_per_hour, HOUR),
            RateLimitKind::IpFailuresPerHour => (self.ip_failures_per_hour, HOUR),
            RateLimitKind::IpSiteSendsPerHour => (self.ip_site_sends_per_hour, HOUR),
            RateLimitKind::IpSiteFailuresPerHour => (self.ip_site_failures_per_hour, HOUR),
            RateLimitKind::PrefixSendsPerDay => (self.prefix_sends_per_day, DAY),
            RateLimitKind::CallerSendsPerDay => (self.caller_sends_per_day, DAY),
        };
        Quota::new(count, period)
    }

    /// Checks every value against its bounds.
    ///
    /// # Errors
    /// [`PolicyError`] for the first key with a value out of its bounds.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if !(4..=10).contains(&self.code_length) {
            return Err(out_of_bounds("code_length", self.code_length, "4 to 10"));
        }
        if self.code_length < SAFE_CODE_LENGTH && !self.allow_short_codes {
            return Err(PolicyError {
                key: "code_length",
                problem: format!(
                    "{} digits are easy to guess; use 6 or more, or set allow_short_codes = true",
                    self.code_length
                ),
            });
        }
        if !(MIN_CODE_TTL..=MAX_CODE_TTL).contains(&self.code_ttl) {
            let ttl = humantime::format_duration(self.code_ttl);
            return Err(out_of_bounds("code_ttl", ttl, "10s to 10m"));
        }
        if !(1..=MAX_FAILURES).contains(&self.max_attempts) {
            return Err(out_of_bounds("max_attempts", self.max_attempts, "1 to 100"));
        }
        if self.resend_after > MAX_RESEND_AFTER {
            let wait = humantime::format_duration(self.resend_after);
            return Err(out_of_bounds("resend_after", wait, "0s to 1h"));
        }
        if self.failure_delay > MAX_FAILURE_DELAY {
            let delay = humantime::format_duration(self.failure_delay);
            return Err(out_of_bounds("failure_delay", delay, "0s to 1h"));
        }
        if !(1..=MAX_FAILURES).contains(&self.failure_limit) {
            return Err(out_of_bounds(
                "failure_limit",
                self.failure_limit,
                "1 to 100",
            ));
        }
        if !(MIN_FAILURE_MEMORY..=MAX_FAILURE_MEMORY).contains(&self.failure_memory) {
            let memory = humantime::format_duration(self.failure_memory);
            return Err(out_of_bounds("failure_memory", memory, "1h to 365d"));
        }
        if !(MIN_REQUEST_MEMORY..=MAX_REQUEST_MEMORY).contains(&self.request_memory) {
            let memory = humantime::format_duration(self.request_memory);
            return Err(out_of_bounds("request_memory", memory, "1m to 24h"));
        }
        Ok(())
    }
}

fn out_of_bounds(
    key: &'static str,
    value: impl std::fmt::Display,
    allowed: &'static str,
) -> PolicyError {
    PolicyError {
        key,
        problem: format!("{value} is out of bounds; allowed: {allowed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_at_fault(change: impl FnOnce(&mut PurposePolicy)) -> Option<&'static str> {
        let mut policy = PurposePolicy::default();
        change(&mut policy);
        policy.validate().err().map(|error| error.key)
    }

    /// Checks that `set` makes a valid policy of `sound` values, and that other values
    /// return `key`.
    fn check<Value: std::fmt::Debug>(
        key: &str,
        set: impl Fn(&mut PurposePolicy, Value),
        sound: [Value; 2],
        unsound: impl IntoIterator<Item = Value>,
    ) {
        for value in sound {
            let shown = format!("{key} = {value:?}");
            assert_eq!(key_at_fault(|policy| set(policy, value)), None, "{shown}");
        }
        for value in unsound {
            let shown = format!("{key} = {value:?}");
            let at_fault = key_at_fault(|policy| set(policy, value));
            assert_eq!(at_fault, Some(key), "{shown}");
        }
    }

    #[test]
    fn policy_bounds_match_the_documentation() {
        assert_eq!(key_at_fault(|_| ()), None);
        check(
            "code_length",
            |policy, value| policy.code_length = value,
            [6, 10],
            [3, 5, 11],
        );
        let short = |policy: &mut PurposePolicy, length| {
            policy.allow_short_codes = true;
            policy.code_length = length;
        };
        check("code_length", short, [4, 10], [3, 11]);
        check(
            "max_attempts",
            |policy, value| policy.max_attempts = value,
            [1, 100],
            [0, 101],
        );
        check(
            "failure_limit",
            |policy, value| policy.failure_limit = value,
            [1, 100],
            [0, 101],
        );

        let [second, minute, hour] = [1, 60, 3_600].map(Duration::from_secs);
        let instant = Duration::from_millis(1);
        check(
            "code_ttl",
            |policy, value| policy.code_ttl = value,
            [second * 10, minute * 10],
            [(second * 10).saturating_sub(instant), minute * 10 + instant],
        );
        let none = Duration::ZERO;
        check(
            "resend_after",
            |policy, value| policy.resend_after = value,
            [none, hour],
            [hour + instant],
        );
        check(
            "failure_delay",
            |policy, value| policy.failure_delay = value,
            [none, hour],
            [hour + instant],
        );
        check(
            "failure_memory",
            |policy, value| policy.failure_memory = value,
            [hour, hour * 24 * 365],
            [hour.saturating_sub(instant), hour * 24 * 365 + instant],
        );
        check(
            "request_memory",
            |policy, value| policy.request_memory = value,
            [minute, hour * 24],
            [minute.saturating_sub(instant), hour * 24 + instant],
        );
    }

    #[test]
    fn purpose_policy_overrides_the_general_one() {
        let [login, payment] = ["login", "payment"].map(|name| Purpose::parse(name).unwrap());
        let with = |max_attempts| PurposePolicy {
            max_attempts,
            ..PurposePolicy::default()
        };
        let policies = PolicySet {
            general: with(3),
            purposes: BTreeMap::from([(payment.clone(), with(1))]),
        };
        assert_eq!(policies.of(&login).max_attempts, 3);
        assert_eq!(policies.of(&payment).max_attempts, 1);
    }
}
