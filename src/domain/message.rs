//! A code on its way to its recipient: what is known of one message, and what becomes
//! of it.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

use super::{ChallengeNonce, Channel, Code, Policy, Recipient, Timestamp};

/// How many attempts a message remembers; older ones only count. Enough for every
/// attempt of a code of five minutes with two providers.
const MOST_REMEMBERED: usize = 32;

/// How long a message first waits after every provider failed; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest that it waits. A code lives for minutes: a message that waits longer
/// would miss the moment at which a provider is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Tells one message from every other; random. Providers that take an idempotency key
/// are given it, so that a message that is handed over twice arrives once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// A new one.
    pub fn generate(random: &mut impl Rng) -> Self {
        let mut id = [0; 16];
        random.fill_bytes(&mut id);
        Self(id)
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Why an attempt to hand a message over failed, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The provider cannot take it now: another provider, or a later attempt, may.
    Transient,
    /// The provider did not answer in time. It may have taken the message all the same.
    Timeout,
    /// The provider will never take this message; another provider may.
    Permanent,
    /// There is nobody at this destination: no provider can deliver.
    BadDestination,
    /// The account with the provider is empty or shut: it takes no message of anybody,
    /// until somebody pays or repairs it. Another provider may.
    NoBalance,
}

impl ErrorClass {
    /// The name in configuration, logs and the status of a delivery.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Permanent => "permanent",
            Self::BadDestination => "bad_destination",
            Self::NoBalance => "no_balance",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a message is made of; kept sealed, and only until the message is final.
#[derive(Clone, Debug)]
pub struct Content {
    /// Whom it goes to.
    pub recipient: Recipient,
    /// The code.
    pub code: Code,
    /// The language that was asked for; empty where none was.
    pub locale: String,
    /// What its text says besides.
    pub variables: BTreeMap<String, String>,
    /// Where the end user is.
    pub client_ip: Option<IpAddr>,
}

/// One message. `S` is what it is made of: [`Content`] where it is handed over,
/// sealed bytes in a store.
#[derive(Clone, Debug)]
pub struct Message<S = Content> {
    /// Which message.
    pub id: MessageId,
    /// The challenge whose code it carries.
    pub challenge: ChallengeNonce,
    /// The way that was asked for.
    pub channel: Channel,
    /// How many messages of the same challenge came before it.
    pub predecessors: u32,
    /// How far it has come.
    pub state: MessageState<S>,
    /// The provider that has it, or had it last; empty before there was one.
    pub provider: String,
    /// The attempts so far.
    pub history: History,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its state changed last.
    pub updated_at: Timestamp,
    /// When its code dies.
    pub expires_at: Timestamp,
    /// When somebody has to look after it: at the end of its lease, or when it is to be
    /// tried again. `None` once it is final.
    pub due_at: Option<Timestamp>,
}

/// How far a message has come. Its content is kept only as long as it is needed.
#[derive(Clone, Debug)]
pub enum MessageState<S = Content> {
    /// It waits.
    Queued(S),
    /// A replica holds its lease and hands it over.
    Sending(S),
    /// A provider has taken it.
    Sent,
    /// No provider will ever take it.
    Failed,
    /// Its code died first.
    Dropped,
}

/// The attempts to hand a message over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many there were in all.
    pub count: u32,
    /// The newest ones, oldest first.
    pub newest: Vec<Attempt>,
}

/// One attempt to hand a message over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The provider's configured name.
    pub provider: String,
    /// The channel that the provider sends by, by its name.
    pub channel: Channel,
    /// When it started.
    pub started_at: Timestamp,
    /// When its end was known.
    pub ended_at: Timestamp,
    /// Why it failed; `None` where it did not.
    pub error: Option<ErrorClass>,
}

/// What becomes of a message that was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays in hand until then.
    Leased(Timestamp),
    /// It waits until then.
    Queued(Timestamp),
    /// It has failed for good.
    Failed,
    /// It is not sent any more, because its code is dead.
    Dropped,
}

impl<S> Message<S> {
    /// What it is made of, until it is final.
    pub fn content(&self) -> Option<&S> {
        match &self.state {
            MessageState::Queued(content) | MessageState::Sending(content) => Some(content),
            MessageState::Sent | MessageState::Failed | MessageState::Dropped => None,
        }
    }

    /// The same message with another form of its content.
    ///
    /// # Errors
    /// What `map` fails with.
    pub fn try_map<T, E>(self, map: impl FnOnce(S) -> Result<T, E>) -> Result<Message<T>, E> {
        let state = match self.state {
            MessageState::Queued(content) => MessageState::Queued(map(content)?),
            MessageState::Sending(content) => MessageState::Sending(map(content)?),
            MessageState::Sent => MessageState::Sent,
            MessageState::Failed => MessageState::Failed,
            MessageState::Dropped => MessageState::Dropped,
        };
        Ok(Message {
            id: self.id,
            challenge: self.challenge,
            channel: self.channel,
            predecessors: self.predecessors,
            state,
            provider: self.provider,
            history: self.history,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
            due_at: self.due_at,
        })
    }

    /// The message after a provider took it in `attempt`.
    #[must_use]
    pub fn sent(mut self, attempt: Attempt) -> Self {
        self.updated_at = attempt.ended_at;
        self.provider.clone_from(&attempt.provider);
        self.history.add(attempt);
        self.state = MessageState::Sent;
        self.due_at = None;
        self
    }

    /// The message after an attempt that failed.
    #[must_use]
    pub fn failed(mut self, attempt: Attempt) -> Self {
        self.provider.clone_from(&attempt.provider);
        self.history.add(attempt);
        self
    }

    /// The message as it becomes `now`. What is final stays as it is.
    #[must_use]
    pub fn then(mut self, then: Then, now: Timestamp) -> Self {
        self.state = match (self.state, then) {
            (MessageState::Queued(content) | MessageState::Sending(content), then) => match then {
                Then::Leased(_) => MessageState::Sending(content),
                Then::Queued(_) => MessageState::Queued(content),
                Then::Failed => MessageState::Failed,
                Then::Dropped => MessageState::Dropped,
            },
            (state, _) => state,
        };
        self.due_at = match then {
            Then::Leased(at) | Then::Queued(at) if self.content().is_some() => Some(at),
            _ => None,
        };
        if now < self.updated_at {
            // The clock stepped back: else it would be kept until the clock is there
            // again.
            self.expires_at = self.expires_at.min(now);
        }
        self.updated_at = now;
        self
    }

    /// From when on it need not be kept, once it is final: then its challenge is told of
    /// no more either.
    pub fn removable_at(&self) -> Timestamp {
        self.expires_at.plus(Policy::EXPIRED_TOLD_FOR)
    }
}

impl History {
    fn add(&mut self, attempt: Attempt) {
        self.count = self.count.saturating_add(1);
        if self.newest.len() >= MOST_REMEMBERED {
            self.newest.remove(0);
        }
        self.newest.push(attempt);
    }

    /// Whether `provider` said that it will never take the message.
    pub fn refused_by(&self, provider: &str) -> bool {
        self.newest.iter().any(|attempt| {
            attempt.provider == provider && attempt.error == Some(ErrorClass::Permanent)
        })
    }

    /// How long to wait before the providers are tried once more, where `providers` of
    /// them are left: twice as long after each round, less up to a half by chance, so
    /// that messages which failed together do not come back together.
    pub fn pause(&self, providers: usize, random: &mut impl Rng) -> Duration {
        let providers = u32::try_from(providers).unwrap_or(u32::MAX).max(1);
        let rounds = (self.count / providers).saturating_sub(1).min(16);
        let longest = FIRST_PAUSE.saturating_mul(1 << rounds).min(LONGEST_PAUSE);
        longest.mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::{rand_core::UnwrapErr, rngs::SysRng};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(seconds * 1_000)
    }

    fn attempt(provider: &str, error: Option<ErrorClass>) -> Attempt {
        Attempt {
            provider: provider.to_owned(),
            channel: Channel::Sms,
            started_at: at(1),
            ended_at: at(2),
            error,
        }
    }

    fn message() -> Message<()> {
        Message {
            id: MessageId([1; 16]),
            challenge: ChallengeNonce([2; 16]),
            channel: Channel::Sms,
            predecessors: 0,
            state: MessageState::Sending(()),
            provider: String::new(),
            history: History::default(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: at(300),
            due_at: Some(at(10)),
        }
    }

    #[test]
    fn what_is_final_keeps_nothing_and_is_never_due() {
        let sent = message().sent(attempt("one", None));
        let failed = message().then(Then::Failed, at(3));
        let dropped = message().then(Then::Dropped, at(3));
        for last in [sent, failed, dropped] {
            assert!(last.content().is_none());
            assert_eq!(last.due_at, None);
            let still = last.then(Then::Queued(at(9)), at(4));
            assert!(still.content().is_none(), "{still:?}");
            assert_eq!(still.due_at, None);
        }
    }

    #[test]
    fn what_is_not_final_keeps_its_content_and_is_due() {
        let leased = message().then(Then::Leased(at(9)), at(4));
        assert!(matches!(leased.state, MessageState::Sending(())));
        let queued = message().then(Then::Queued(at(9)), at(4));
        assert!(matches!(queued.state, MessageState::Queued(())));
        for message in [leased, queued] {
            assert!(message.content().is_some());
            assert_eq!(message.due_at, Some(at(9)));
            assert_eq!(message.updated_at, at(4));
        }
    }

    #[test]
    fn ids_and_errors_are_written_in_one_way() {
        let mut id = [0; 16];
        id[0] = 0xA0;
        id[15] = 0x0F;
        assert_eq!(
            MessageId(id).to_string(),
            "a000000000000000000000000000000f"
        );
        for (class, name) in [
            (ErrorClass::Transient, "transient"),
            (ErrorClass::Timeout, "timeout"),
            (ErrorClass::Permanent, "permanent"),
            (ErrorClass::BadDestination, "bad_destination"),
            (ErrorClass::NoBalance, "no_balance"),
        ] {
            assert_eq!(class.name(), name);
            assert_eq!(class.to_string(), name);
            assert_eq!(serde_json::to_value(class).unwrap(), name);
        }
    }

    #[test]
    fn a_message_is_not_kept_for_longer_where_the_clock_stepped_back() {
        let told = Policy::EXPIRED_TOLD_FOR;
        let dropped = message().then(Then::Dropped, at(3));
        assert_eq!(dropped.removable_at(), at(300).plus(told));
        let dropped = message().then(Then::Dropped, at(0));
        assert_eq!(dropped.removable_at(), at(300).plus(told));
        let dropped = message().then(Then::Dropped, at(-3));
        assert_eq!(dropped.removable_at(), at(-3).plus(told));
    }

    #[test]
    fn attempts_are_counted_beyond_those_remembered() {
        let mut message = message();
        for number in 0..40 {
            message = message.failed(attempt(&number.to_string(), Some(ErrorClass::Transient)));
        }
        assert_eq!(message.history.count, 40);
        assert_eq!(message.history.newest.len(), MOST_REMEMBERED);
        assert_eq!(message.history.newest[0].provider, "8");
        assert_eq!(message.provider, "39");
    }

    #[test]
    fn only_a_permanent_refusal_rules_a_provider_out() {
        let mut history = History::default();
        history.add(attempt("one", Some(ErrorClass::Transient)));
        history.add(attempt("two", Some(ErrorClass::Permanent)));
        assert!(!history.refused_by("one"));
        assert!(history.refused_by("two"));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
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
            let history = History {
                count,
                newest: Vec::new(),
            };
            let longest = Duration::from_secs(seconds);
            let pauses: Vec<Duration> = (0..100)
                .map(|_| history.pause(providers, &mut random))
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
