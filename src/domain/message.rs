//! A code on its way to its recipient: what is known of one message, and what becomes
//! of it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use rand::Rng;

use super::{
    AttemptLog, ChallengeNonce, Channel, DeliveryErrorKind, LoggedAttempt, OtpCode, PurposePolicy,
    Recipient, Timestamp,
};

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

/// What a message is made of; kept sealed, and only until the message is final.
#[derive(Clone, Debug)]
pub struct MessagePayload {
    /// Whom it goes to.
    pub recipient: Recipient,
    /// The code.
    pub code: OtpCode,
    /// The language that was asked for; empty where none was.
    pub locale: String,
    /// What its text says besides.
    pub variables: BTreeMap<String, String>,
    /// Where the end user is.
    pub client_ip: Option<IpAddr>,
}

/// One message. `S` is what it is made of: [`MessagePayload`] where it is handed over,
/// sealed bytes in a store.
#[derive(Clone, Debug)]
pub struct OutboxMessage<S = MessagePayload> {
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
    pub history: AttemptLog,
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
pub enum MessageState<S = MessagePayload> {
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

/// What becomes of a message that was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextState {
    /// It stays in hand until then.
    Leased(Timestamp),
    /// It waits until then.
    Queued(Timestamp),
    /// It has failed for good.
    Failed,
    /// It is not sent any more, because its code is dead.
    Dropped,
}

impl<S> OutboxMessage<S> {
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
    pub fn try_map<T, E>(self, map: impl FnOnce(S) -> Result<T, E>) -> Result<OutboxMessage<T>, E> {
        let state = match self.state {
            MessageState::Queued(content) => MessageState::Queued(map(content)?),
            MessageState::Sending(content) => MessageState::Sending(map(content)?),
            MessageState::Sent => MessageState::Sent,
            MessageState::Failed => MessageState::Failed,
            MessageState::Dropped => MessageState::Dropped,
        };
        Ok(OutboxMessage {
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
    pub fn sent(mut self, attempt: LoggedAttempt) -> Self {
        self.updated_at = attempt.ended_at;
        self.provider.clone_from(&attempt.provider);
        // A copy that is acknowledged is none of unknown outcome.
        self.history.add(attempt, false);
        self.state = MessageState::Sent;
        self.due_at = None;
        self
    }

    /// The message after an attempt that failed. `is_idempotent`: its provider takes an
    /// idempotency key.
    #[must_use]
    pub fn failed(mut self, attempt: LoggedAttempt, is_idempotent: bool) -> Self {
        self.provider.clone_from(&attempt.provider);
        self.history.add(attempt, is_idempotent);
        self
    }

    /// The message as the replica that holds it until then is about to give it to
    /// `provider`.
    #[must_use]
    pub fn attempting(self, provider: &str, until: Timestamp, now: Timestamp) -> Self {
        let mut message = self.transition_to(NextState::Leased(until), now);
        message.history.attempt_open = true;
        provider.clone_into(&mut message.provider);
        message
    }

    /// Provider that may have been given the message by the replica that holds it, if
    /// `first` is the first one of its route.
    pub fn open_attempt<'a>(&'a self, first: &'a str) -> Option<&'a str> {
        let provider = if self.provider.is_empty() {
            first
        } else {
            &self.provider
        };
        let is_held = matches!(self.state, MessageState::Sending(_));
        (is_held && self.history.attempt_open).then_some(provider)
    }

    /// The message after the replica that held it was lost, `now` that it is found: what
    /// it may have given to `provider` may have arrived.
    #[must_use]
    pub fn interrupted(
        self,
        provider: &str,
        (channel, is_idempotent): (Channel, bool),
        now: Timestamp,
    ) -> Self {
        let attempt = LoggedAttempt {
            provider: provider.to_owned(),
            channel,
            started_at: self.updated_at.min(now),
            ended_at: now,
            error: Some(DeliveryErrorKind::UnknownOutcome),
        };
        self.failed(attempt, is_idempotent)
    }

    /// The message as it becomes `now`. What is final stays as it is.
    #[must_use]
    pub fn transition_to(mut self, then: NextState, now: Timestamp) -> Self {
        self.state = match (self.state, then) {
            (MessageState::Queued(content) | MessageState::Sending(content), then) => match then {
                NextState::Leased(_) => MessageState::Sending(content),
                NextState::Queued(_) => MessageState::Queued(content),
                NextState::Failed => MessageState::Failed,
                NextState::Dropped => MessageState::Dropped,
            },
            (state, _) => state,
        };
        self.due_at = match then {
            NextState::Leased(at) | NextState::Queued(at) if self.content().is_some() => Some(at),
            _ => None,
        };
        if now < self.updated_at {
            // The clock stepped back: else it would be kept until the clock is there
            // again.
            self.expires_at = self.expires_at.min(now);
        }
        self.updated_at = now;
        self.history.attempt_open = false;
        self
    }

    /// From when on it need not be kept, once it is final: then its challenge is told of
    /// no more either.
    pub fn removable_at(&self) -> Timestamp {
        self.expires_at
            .saturating_add(PurposePolicy::EXPIRED_RETENTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_milliseconds(seconds * 1_000)
    }

    fn attempt(provider: &str, error: Option<DeliveryErrorKind>) -> LoggedAttempt {
        LoggedAttempt {
            provider: provider.to_owned(),
            channel: Channel::Sms,
            started_at: at(1),
            ended_at: at(2),
            error,
        }
    }

    fn message() -> OutboxMessage<()> {
        OutboxMessage {
            id: MessageId([1; 16]),
            challenge: ChallengeNonce([2; 16]),
            channel: Channel::Sms,
            predecessors: 0,
            state: MessageState::Sending(()),
            provider: String::new(),
            history: AttemptLog::default(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: at(300),
            due_at: Some(at(10)),
        }
    }

    #[test]
    fn what_is_final_keeps_nothing_and_is_never_due() {
        let sent = message().sent(attempt("one", None));
        let failed = message().transition_to(NextState::Failed, at(3));
        let dropped = message().transition_to(NextState::Dropped, at(3));
        for last in [sent, failed, dropped] {
            assert!(last.content().is_none());
            assert_eq!(last.due_at, None);
            let still = last.transition_to(NextState::Queued(at(9)), at(4));
            assert!(still.content().is_none(), "{still:?}");
            assert_eq!(still.due_at, None);
        }
    }

    #[test]
    fn what_is_not_final_keeps_its_content_and_is_due() {
        let leased = message().transition_to(NextState::Leased(at(9)), at(4));
        assert!(matches!(leased.state, MessageState::Sending(())));
        let queued = message().transition_to(NextState::Queued(at(9)), at(4));
        assert!(matches!(queued.state, MessageState::Queued(())));
        for message in [leased, queued] {
            assert!(message.content().is_some());
            assert_eq!(message.due_at, Some(at(9)));
            assert_eq!(message.updated_at, at(4));
        }
    }

    #[test]
    fn ids_are_written_in_one_way() {
        let mut id = [0; 16];
        id[0] = 0xA0;
        id[15] = 0x0F;
        assert_eq!(
            MessageId(id).to_string(),
            "a000000000000000000000000000000f"
        );
    }

    #[test]
    fn a_message_is_not_kept_for_longer_where_the_clock_stepped_back() {
        let told = PurposePolicy::EXPIRED_RETENTION;
        let dropped = message().transition_to(NextState::Dropped, at(3));
        assert_eq!(dropped.removable_at(), at(300).saturating_add(told));
        let dropped = message().transition_to(NextState::Dropped, at(0));
        assert_eq!(dropped.removable_at(), at(300).saturating_add(told));
        let dropped = message().transition_to(NextState::Dropped, at(-3));
        assert_eq!(dropped.removable_at(), at(-3).saturating_add(told));
    }

    #[test]
    fn an_attempt_is_open_from_its_note_to_its_end() {
        let held = |message: &OutboxMessage<()>| message.open_attempt("first").map(str::to_owned);
        assert_eq!(held(&message()), None);
        let one = message().attempting("one", at(9), at(4));
        assert_eq!(held(&one).as_deref(), Some("one"));
        assert_eq!((one.due_at, one.updated_at), (Some(at(9)), at(4)));
        let failed = one
            .clone()
            .failed(attempt("one", Some(DeliveryErrorKind::Timeout)), false);
        for ended in [
            failed,
            one.clone().sent(attempt("one", None)),
            one.clone().transition_to(NextState::Queued(at(9)), at(5)),
            one.transition_to(NextState::Leased(at(9)), at(5)),
        ] {
            assert_eq!(held(&ended), None, "{ended:?}");
        }
        // The replica that writes a message may try it before it writes anything else.
        let mut fresh = message();
        fresh.history.attempt_open = true;
        assert_eq!(held(&fresh).as_deref(), Some("first"));
        fresh.state = MessageState::Queued(());
        assert_eq!(held(&fresh), None);
    }

    #[test]
    fn an_attempt_of_a_lost_replica_is_one_of_unknown_outcome() {
        let found = message().attempting("one", at(9), at(4)).interrupted(
            "one",
            (Channel::Sms, false),
            at(10),
        );
        assert_eq!(found.history.copies_with("one"), 1);
        let newest = found.history.newest.last().unwrap();
        assert_eq!((newest.started_at, newest.ended_at), (at(4), at(10)));
        assert_eq!(newest.error, Some(DeliveryErrorKind::UnknownOutcome));
    }
}
