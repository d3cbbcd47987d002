//! Message of the outbox, and its states.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use rand::Rng;

use super::{
    AttemptLog, ChallengeNonce, Channel, DeliveryErrorKind, LoggedAttempt, OtpCode, PurposePolicy,
    Recipient, Timestamp,
};

/// Random identifier of a message. Providers that take an idempotency key are given it,
/// so that a message that is handed over twice arrives once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// Draws a new identifier.
    pub fn generate(random: &mut impl Rng) -> Self {
        let mut id = [0; 16];
        random.fill_bytes(&mut id);
        Self(id)
    }
}

/// Writes 32 hexadecimal digits.
impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Content of a message. It is sealed in the store and deleted once the message is final.
#[derive(Clone, Debug)]
pub struct MessagePayload {
    /// Recipient of the message.
    pub recipient: Recipient,
    /// The code.
    pub code: OtpCode,
    /// Requested language; empty if none was requested.
    pub locale: String,
    /// Further variables of the text.
    pub variables: BTreeMap<String, String>,
    /// IP address of the end user.
    pub client_ip: Option<IpAddr>,
}

/// Message of the outbox. `S` is its content: a [`MessagePayload`] while it is handed
/// over, sealed bytes in a store.
#[derive(Clone, Debug)]
pub struct OutboxMessage<S = MessagePayload> {
    /// Identifier of the message.
    pub id: MessageId,
    /// Challenge whose code it carries.
    pub challenge: ChallengeNonce,
    /// Requested channel.
    pub channel: Channel,
    /// Number of earlier messages of the same challenge.
    pub predecessors: u32,
    /// State of the delivery.
    pub state: MessageState<S>,
    /// Provider of the current or last attempt; empty before the first one.
    pub provider: String,
    /// Attempts so far.
    pub history: AttemptLog,
    /// Time of the request.
    pub created_at: Timestamp,
    /// Time of the last change of state.
    pub updated_at: Timestamp,
    /// Time at which its code expires.
    pub expires_at: Timestamp,
    /// Time at which a dispatcher has to take it up: the end of its lease, or the time of
    /// the next attempt. `None` once it is final.
    pub due_at: Option<Timestamp>,
}

/// State of a message. The content `S` is kept only as long as it is needed; a
/// [`DeliveryState`] has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState<S = MessagePayload> {
    /// Waits for an attempt.
    Queued(S),
    /// Leased by a replica that hands it over.
    Sending(S),
    /// Accepted by a provider.
    Sent,
    /// Failed permanently: no provider will accept it.
    Failed,
    /// Not sent, because its code had expired or been used.
    Dropped,
}

/// State of a message without its content.
pub type DeliveryState = MessageState<()>;

impl<S> MessageState<S> {
    /// Returns the state with this name, if a message in it has `content` or has none.
    pub fn from_name(name: &str, content: Option<S>) -> Option<Self> {
        match (name, content) {
            ("queued", Some(content)) => Some(Self::Queued(content)),
            ("sending", Some(content)) => Some(Self::Sending(content)),
            ("sent", None) => Some(Self::Sent),
            ("failed", None) => Some(Self::Failed),
            ("dropped", None) => Some(Self::Dropped),
            _ => None,
        }
    }

    /// Returns its name in the store and in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued(_) => "queued",
            Self::Sending(_) => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }

    /// Returns the content, unless the state is final.
    pub fn content(&self) -> Option<&S> {
        match self {
            Self::Queued(content) | Self::Sending(content) => Some(content),
            Self::Sent | Self::Failed | Self::Dropped => None,
        }
    }

    /// Converts the content.
    ///
    /// # Errors
    /// The error of `map`.
    pub fn try_map<T, E>(self, map: impl FnOnce(S) -> Result<T, E>) -> Result<MessageState<T>, E> {
        Ok(match self {
            Self::Queued(content) => MessageState::Queued(map(content)?),
            Self::Sending(content) => MessageState::Sending(map(content)?),
            Self::Sent => MessageState::Sent,
            Self::Failed => MessageState::Failed,
            Self::Dropped => MessageState::Dropped,
        })
    }
}

/// Next state of a message that no provider accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextState {
    /// Leased until that time.
    Leased(Timestamp),
    /// Queued until that time.
    Queued(Timestamp),
    /// Failed permanently.
    Failed,
    /// Not sent any more, because its code is expired or used.
    Dropped,
}

impl<S> OutboxMessage<S> {
    /// Returns the content, unless the message is final.
    pub fn content(&self) -> Option<&S> {
        self.state.content()
    }

    /// Converts the content.
    ///
    /// # Errors
    /// The error of `map`.
    pub fn try_map<T, E>(self, map: impl FnOnce(S) -> Result<T, E>) -> Result<OutboxMessage<T>, E> {
        Ok(OutboxMessage {
            id: self.id,
            challenge: self.challenge,
            channel: self.channel,
            predecessors: self.predecessors,
            state: self.state.try_map(map)?,
            provider: self.provider,
            history: self.history,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
            due_at: self.due_at,
        })
    }

    /// Returns the message after a provider accepted it in `attempt`.
    #[must_use]
    pub fn sent(mut self, attempt: LoggedAttempt) -> Self {
        self.updated_at = attempt.ended_at;
        self.provider.clone_from(&attempt.provider);
        // An acknowledged copy is not one of unknown outcome.
        self.history.add(attempt, false);
        self.state = MessageState::Sent;
        self.due_at = None;
        self
    }

    /// Returns the message after a failed attempt. `is_idempotent` is true if its
    /// provider takes an idempotency key.
    #[must_use]
    pub fn failed(mut self, attempt: LoggedAttempt, is_idempotent: bool) -> Self {
        self.provider.clone_from(&attempt.provider);
        self.history.add(attempt, is_idempotent);
        self
    }

    /// Returns the message as the replica that leases it until then is about to give it
    /// to `provider`.
    #[must_use]
    pub fn attempting(self, provider: &str, until: Timestamp, now: Timestamp) -> Self {
        let mut message = self.transition_to(NextState::Leased(until), now);
        message.history.attempt_open = true;
        provider.clone_into(&mut message.provider);
        message
    }

    /// Returns the provider that may have been given the message by the replica that
    /// leases it. `first` is the first provider of its route.
    pub fn open_attempt<'a>(&'a self, first: &'a str) -> Option<&'a str> {
        let provider = if self.provider.is_empty() {
            first
        } else {
            &self.provider
        };
        let is_held = matches!(self.state, MessageState::Sending(_));
        (is_held && self.history.attempt_open).then_some(provider)
    }

    /// Returns the message after its replica was lost, at the time `now` at which the
    /// loss was found. A copy that was given to `provider` may have arrived.
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

    /// Returns the message in the next state. A final message stays unchanged.
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
            // The clock stepped back. Without this the message would be kept until the
            // clock has caught up.
            self.expires_at = self.expires_at.min(now);
        }
        self.updated_at = now;
        self.history.attempt_open = false;
        self
    }

    /// Returns the time from which a final message need not be kept. From then on the
    /// status of its challenge is not returned either.
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
    fn final_message_has_no_content_and_is_never_due() {
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
    fn open_message_keeps_its_content_and_is_due() {
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
    fn message_id_is_32_hexadecimal_digits() {
        let mut id = [0; 16];
        id[0] = 0xA0;
        id[15] = 0x0F;
        assert_eq!(
            MessageId(id).to_string(),
            "a000000000000000000000000000000f"
        );
    }

    #[test]
    fn clock_rollback_does_not_extend_message_retention() {
        let retention = PurposePolicy::EXPIRED_RETENTION;
        let dropped = message().transition_to(NextState::Dropped, at(3));
        assert_eq!(dropped.removable_at(), at(300).saturating_add(retention));
        let dropped = message().transition_to(NextState::Dropped, at(0));
        assert_eq!(dropped.removable_at(), at(300).saturating_add(retention));
        let dropped = message().transition_to(NextState::Dropped, at(-3));
        assert_eq!(dropped.removable_at(), at(-3).saturating_add(retention));
    }

    #[test]
    fn attempt_is_open_until_its_end_is_recorded() {
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
        // The replica that writes a message may try it before its next write.
        let mut fresh = message();
        fresh.history.attempt_open = true;
        assert_eq!(held(&fresh).as_deref(), Some("first"));
        fresh.state = MessageState::Queued(());
        assert_eq!(held(&fresh), None);
    }

    #[test]
    fn attempt_of_lost_replica_has_unknown_outcome() {
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
