//! Delivery attempts of a message, and the bound on the number of its copies.
//!
//! Delivery is at least once, so an attempt of unknown outcome is repeated. Each
//! repetition costs money and confuses the recipient, so there is a bound: of each
//! message a provider may hold [`MAX_COPIES_PER_PROVIDER`] copies of unknown outcome, and
//! all providers together [`MAX_COPIES`].

use std::{fmt, time::Duration};

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

use super::{Channel, Timestamp};

/// Maximum number of logged attempts; older ones are only counted. Enough for every
/// attempt of a code of five minutes with two providers.
pub const MAX_LOGGED_ATTEMPTS: usize = 32;

/// Maximum number of copies of unknown outcome with one provider. A repetition covers a
/// single lost response; a provider that loses two loses the third as well.
pub const MAX_COPIES_PER_PROVIDER: u32 = 2;
/// Maximum number of copies of unknown outcome over all providers.
pub const MAX_COPIES: u32 = 4;

/// Pause after the first round in which every provider failed; doubles each time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Maximum pause. A code lives for minutes: a message that waits longer would miss the
/// moment at which a provider recovers.
const BACKOFF_MAX: Duration = Duration::from_secs(20);

/// Kind of a failed attempt, by the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryErrorKind {
    /// The provider cannot accept it now: another provider, or a later attempt, may.
    Transient,
    /// The provider was given the message and did not respond in time. It may have
    /// accepted it.
    Timeout,
    /// The provider will never accept this message; another provider may.
    Permanent,
    /// The provider knows no such destination; another provider may.
    BadDestination,
    /// The account with the provider is empty or suspended: it accepts no message until
    /// an operator pays or repairs it. Another provider may.
    NoBalance,
    /// The provider was given the message, and its response was lost or cannot be read.
    /// It may have accepted the message.
    UnknownOutcome,
}

impl DeliveryErrorKind {
    /// Name in configuration, logs and the status of a delivery.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Permanent => "permanent",
            Self::BadDestination => "bad_destination",
            Self::NoBalance => "no_balance",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }

    /// Returns true if the provider may have accepted the message all the same.
    pub const fn may_have_arrived(self) -> bool {
        matches!(self, Self::Timeout | Self::UnknownOutcome)
    }

    /// Returns true if the provider will refuse the message at every later attempt.
    const fn is_refusal(self) -> bool {
        matches!(self, Self::Permanent | Self::BadDestination)
    }
}

impl fmt::Display for DeliveryErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Delivery attempt of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedAttempt {
    /// Configured name of the provider.
    pub provider: String,
    /// Channel of the provider.
    pub channel: Channel,
    /// Start of the attempt.
    pub started_at: Timestamp,
    /// Time at which its end was known.
    pub ended_at: Timestamp,
    /// Kind of the failure; `None` if it succeeded.
    pub error: Option<DeliveryErrorKind>,
}

/// Delivery attempts of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptLog {
    /// Number of attempts.
    pub count: u32,
    /// Latest attempts, oldest first.
    pub newest: Vec<LoggedAttempt>,
    /// Copies that may have arrived although no provider acknowledged them. Unlike
    /// `newest` it drops none.
    pub possible_copies: Vec<PossibleCopies>,
    /// True if the replica that leases the message may have given it to a provider: to
    /// the message's `provider`, or to the first one of its route if that is empty. If
    /// that lease ends, the attempt counts as one of unknown outcome.
    pub attempt_open: bool,
}

/// Copies of a message that one provider may have accepted without an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossibleCopies {
    /// Configured name of the provider.
    pub provider: String,
    /// Number of copies. A provider that takes an idempotency key has at most one.
    pub count: u32,
}

impl AttemptLog {
    /// Adds an attempt. `is_idempotent` is true if the provider takes an idempotency key,
    /// so that it makes one message of several equal requests.
    pub fn add(&mut self, attempt: LoggedAttempt, is_idempotent: bool) {
        self.attempt_open = false;
        self.count = self.count.saturating_add(1);
        if attempt
            .error
            .is_some_and(DeliveryErrorKind::may_have_arrived)
        {
            self.add_copy(&attempt.provider, is_idempotent);
        }
        if self.newest.len() >= MAX_LOGGED_ATTEMPTS {
            self.newest.remove(0);
        }
        self.newest.push(attempt);
    }

    fn add_copy(&mut self, provider: &str, is_idempotent: bool) {
        let known = self.possible_copies.iter_mut();
        match known.into_iter().find(|copies| copies.provider == provider) {
            Some(_) if is_idempotent => {}
            Some(copies) => copies.count = copies.count.saturating_add(1),
            None => self.possible_copies.push(PossibleCopies {
                provider: provider.to_owned(),
                count: 1,
            }),
        }
    }

    /// Returns the number of copies that `provider` may have accepted without an
    /// acknowledgement.
    pub fn copies_with(&self, provider: &str) -> u32 {
        let mut known = self.possible_copies.iter();
        known
            .find(|copies| copies.provider == provider)
            .map_or(0, |copies| copies.count)
    }

    /// Returns true if a further attempt with `provider` keeps the bound on copies.
    pub fn permits_copy_with(&self, provider: &str, is_idempotent: bool) -> bool {
        let own = self.copies_with(provider);
        if is_idempotent && own > 0 {
            // Such a provider delivers it once, however often it is given.
            return true;
        }
        let counts = self.possible_copies.iter().map(|copies| copies.count);
        let all = counts.fold(0, u32::saturating_add);
        own < MAX_COPIES_PER_PROVIDER && all < MAX_COPIES
    }

    /// Returns true if `provider` refused the message permanently.
    pub fn is_rejected_by(&self, provider: &str) -> bool {
        self.newest.iter().any(|attempt| {
            attempt.provider == provider && attempt.error.is_some_and(DeliveryErrorKind::is_refusal)
        })
    }

    /// Returns the pause before the providers are tried once more, if `providers` of them
    /// are left. It doubles after each round, less a random part of up to a half, so that
    /// messages which failed together are not retried together.
    pub fn retry_backoff(&self, providers: usize, random: &mut impl Rng) -> Duration {
        let providers = u32::try_from(providers).unwrap_or(u32::MAX).max(1);
        let rounds = (self.count / providers).saturating_sub(1).min(16);
        let longest = BACKOFF_MIN.saturating_mul(1 << rounds).min(BACKOFF_MAX);
        longest.mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{rand_core::UnwrapErr, rngs::SysRng};

    use super::*;

    fn attempt(provider: &str, error: Option<DeliveryErrorKind>) -> LoggedAttempt {
        let at = Timestamp::from_milliseconds;
        LoggedAttempt {
            provider: provider.to_owned(),
            channel: Channel::Sms,
            started_at: at(1_000),
            ended_at: at(2_000),
            error,
        }
    }

    const CLASSES: [(DeliveryErrorKind, &str); 6] = [
        (DeliveryErrorKind::Transient, "transient"),
        (DeliveryErrorKind::Timeout, "timeout"),
        (DeliveryErrorKind::Permanent, "permanent"),
        (DeliveryErrorKind::BadDestination, "bad_destination"),
        (DeliveryErrorKind::NoBalance, "no_balance"),
        (DeliveryErrorKind::UnknownOutcome, "unknown_outcome"),
    ];

    #[test]
    fn error_kind_has_one_name_everywhere() {
        for (class, name) in CLASSES {
            assert_eq!(class.name(), name);
            assert_eq!(class.to_string(), name);
            assert_eq!(serde_json::to_value(class).unwrap(), name);
        }
    }

    #[test]
    fn all_attempts_are_counted_and_the_latest_logged() {
        let mut history = AttemptLog::default();
        for number in 0..40 {
            let failed = attempt(&number.to_string(), Some(DeliveryErrorKind::Transient));
            history.add(failed, false);
        }
        assert_eq!(history.count, 40);
        assert_eq!(history.newest.len(), MAX_LOGGED_ATTEMPTS);
        assert_eq!(history.newest[0].provider, "8");
    }

    #[test]
    fn only_a_permanent_error_rules_out_its_provider() {
        let mut history = AttemptLog::default();
        history.add(attempt("one", Some(DeliveryErrorKind::Transient)), false);
        history.add(attempt("two", Some(DeliveryErrorKind::Permanent)), false);
        history.add(
            attempt("three", Some(DeliveryErrorKind::BadDestination)),
            false,
        );
        history.add(
            attempt("four", Some(DeliveryErrorKind::UnknownOutcome)),
            false,
        );
        for (provider, refused) in [
            ("one", false),
            ("two", true),
            ("three", true),
            ("four", false),
        ] {
            assert_eq!(history.is_rejected_by(provider), refused, "{provider}");
        }
    }

    #[test]
    fn copies_are_bounded_per_provider_and_in_total() {
        let mut history = AttemptLog::default();
        let mut permitted = |provider: &str, class| {
            let permits = history.permits_copy_with(provider, false);
            if permits {
                history.add(attempt(provider, Some(class)), false);
            }
            permits
        };
        assert!(permitted("one", DeliveryErrorKind::Timeout));
        assert!(permitted("one", DeliveryErrorKind::UnknownOutcome));
        assert!(!permitted("one", DeliveryErrorKind::Timeout));
        for class in [
            DeliveryErrorKind::Transient,
            DeliveryErrorKind::NoBalance,
            DeliveryErrorKind::Permanent,
        ] {
            for _ in 0..10 {
                assert!(permitted("two", class), "{class} is no copy");
            }
        }
        assert!(permitted("two", DeliveryErrorKind::Timeout));
        assert!(permitted("three", DeliveryErrorKind::Timeout));
        for provider in ["one", "two", "three", "four"] {
            assert!(
                !permitted(provider, DeliveryErrorKind::Timeout),
                "{provider}"
            );
        }
    }

    #[test]
    fn idempotency_key_makes_all_attempts_one_copy() {
        let mut history = AttemptLog::default();
        for _ in 0..10 {
            assert!(history.permits_copy_with("key", true));
            history.add(attempt("key", Some(DeliveryErrorKind::Timeout)), true);
        }
        assert_eq!(history.copies_with("key"), 1);
        for provider in ["a", "b", "c"] {
            history.add(attempt(provider, Some(DeliveryErrorKind::Timeout)), false);
        }
        assert!(history.permits_copy_with("key", true));
        // Its first copy would be the fifth of all.
        assert!(!history.permits_copy_with("other", true));
    }

    proptest! {
        #[test]
        fn no_sequence_of_attempts_exceeds_the_bound_on_copies(
            attempts in prop::collection::vec((0..4_usize, 0..6_usize), 0..80),
        ) {
            let mut history = AttemptLog::default();
            let mut copies = [0_u32; 4];
            for (provider, class) in attempts {
                // The last provider takes an idempotency key.
                let (name, is_idempotent) = (provider.to_string(), provider == 3);
                if !history.permits_copy_with(&name, is_idempotent) {
                    continue;
                }
                let class = CLASSES[class].0;
                history.add(attempt(&name, Some(class)), is_idempotent);
                if class.may_have_arrived() && !(is_idempotent && copies[provider] > 0) {
                    copies[provider] += 1;
                }
            }
            prop_assert!(copies.iter().all(|copies| *copies <= MAX_COPIES_PER_PROVIDER));
            prop_assert!(copies.iter().sum::<u32>() <= MAX_COPIES);
        }
    }

    #[test]
    fn retry_backoff_doubles_up_to_a_bound_with_jitter() {
        let mut random = UnwrapErr(SysRng);
        for (count, providers, seconds) in [
            (0, 1, 1),
            (1, 1, 1),
            (2, 1, 2),
            (4, 2, 2),
            (3, 1, 4),
            (5, 1, 16),
            (6, 1, 20),
            (u32::MAX, 1, 20),
            (3, 0, 4),
        ] {
            let history = AttemptLog {
                count,
                ..AttemptLog::default()
            };
            let longest = Duration::from_secs(seconds);
            let pauses: Vec<Duration> = (0..100)
                .map(|_| history.retry_backoff(providers, &mut random))
                .collect();
            assert!(
                pauses
                    .iter()
                    .all(|pause| (longest / 2..=longest).contains(pause)),
                "{count} {providers}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
