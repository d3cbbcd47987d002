//! State of one (caller, recipient, purpose).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    CallerName, Channel, ChannelSet, Decision, FailureCounter, IdempotencyLog, OtpCode, Purpose,
    PurposePolicy, Recipient, SendLimits, Timestamp,
};

/// Key of a record: a blind index of its (caller, recipient, purpose), so that a store
/// does not reveal them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(pub [u8; 32]);

/// Key of a shared limit: a blind index of its kind and subject, so that a store does not
/// reveal them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey(pub [u8; 32]);

/// Random identifier of a challenge within its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeNonce(pub [u8; 16]);

impl ChallengeNonce {
    pub(super) fn generate(random: &mut impl Rng) -> Self {
        let mut nonce = [0; 16];
        random.fill_bytes(&mut nonce);
        Self(nonce)
    }
}

/// Challenge that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeSelector {
    /// Newest challenge of the record.
    Newest,
    /// This challenge alone.
    Only(ChallengeNonce),
    /// Challenge of another record; it matches none.
    Foreign,
}

impl ChallengeSelector {
    /// Returns true if the request selects the challenge of `nonce`.
    pub fn matches(self, nonce: ChallengeNonce) -> bool {
        match self {
            Self::Newest => true,
            Self::Only(only) => only == nonce,
            Self::Foreign => false,
        }
    }
}

/// Public name of a challenge. It carries the key of its record: 64 characters of
/// unpadded base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChallengeId {
    /// Key of the record that the challenge is, or was, in.
    pub key: RecordKey,
    /// Identifier of the challenge within the record.
    pub nonce: ChallengeNonce,
}

impl ChallengeId {
    /// Parses the text of a challenge id; `None` if otpd cannot have issued it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 48];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (key, nonce) = bytes.split_at(32);
        (length == bytes.len()).then(|| Self {
            key: RecordKey(key.try_into().expect("32 bytes were split off")),
            nonce: ChallengeNonce(nonce.try_into().expect("16 bytes are left")),
        })
    }
}

impl fmt::Display for ChallengeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(&self.key.0);
        bytes[32..].copy_from_slice(&self.nonce.0);
        // 48 bytes are 64 characters of base64.
        let mut text = [0; 64];
        let length = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        let text = length.ok().and_then(|length| text.get(..length));
        let text = text.and_then(|text| str::from_utf8(text).ok());
        formatter.write_str(text.ok_or(fmt::Error)?)
    }
}

/// State of one (caller, recipient, purpose). `S` is the secret of a live challenge: a
/// [`ChallengeSecret`] while rules are decided, sealed bytes in a store.
#[derive(Clone, Debug)]
pub struct Record<S = ChallengeSecret> {
    /// Caller that the record belongs to.
    pub caller: CallerName,
    /// Purpose of its codes.
    pub purpose: Purpose,
    /// Newest challenge.
    pub challenge: Challenge<S>,
    /// Time of the last send; the cool-down starts here.
    pub sent_at: Timestamp,
    /// Consecutive failed attempts, across codes.
    pub failures: FailureCounter,
    /// State of the record's own limits.
    pub send_limits: SendLimits,
    /// Outcomes of its last writes.
    pub memory: IdempotencyLog,
    /// Time of the last write, by the store's clock.
    pub written_at: Timestamp,
}

/// One code, from its first send to its end.
#[derive(Clone, Debug)]
pub struct Challenge<S = ChallengeSecret> {
    /// Identifier within the record.
    pub nonce: ChallengeNonce,
    /// State of the code.
    pub state: ChallengeState<S>,
    /// Channel of its last message.
    pub channel: Channel,
    /// Time at which its code was issued.
    pub created_at: Timestamp,
    /// Time at which its code expires; a resend does not move it.
    pub expires_at: Timestamp,
    /// Number of attempts that were checked.
    pub attempts: u32,
    /// Number of messages that carried its code.
    pub sends: u32,
}

/// State of a challenge. The secret is kept only as long as it can still verify.
#[derive(Clone, Debug)]
pub enum ChallengeState<S = ChallengeSecret> {
    /// Its code verifies until it expires.
    Live(S),
    /// Its code was verified.
    Spent,
    /// It had its last attempt.
    Exhausted,
    /// It was cancelled, or invalidated because the clock stepped back.
    Cancelled,
}

/// Secret of a live challenge.
#[derive(Clone, Debug)]
pub struct ChallengeSecret {
    /// The code, because a resend repeats it.
    pub code: OtpCode,
    /// Recipient, so that a challenge id is enough to return it.
    pub recipient: Recipient,
    /// True for the fixed code of a test recipient, which no message carries.
    pub is_test: bool,
    /// Channels that carried the code, for receipts. Empty if its caller gets none, and if a
    /// part of them is unknown.
    pub channels: ChannelSet,
}

impl<S> Record<S> {
    /// Converts the secret.
    pub fn map_secret<T>(self, map: impl FnOnce(S) -> ChallengeState<T>) -> Record<T> {
        let Challenge {
            nonce,
            state,
            channel,
            created_at,
            expires_at,
            attempts,
            sends,
        } = self.challenge;
        let state = match state {
            ChallengeState::Live(secret) => map(secret),
            ChallengeState::Spent => ChallengeState::Spent,
            ChallengeState::Exhausted => ChallengeState::Exhausted,
            ChallengeState::Cancelled => ChallengeState::Cancelled,
        };
        Record {
            caller: self.caller,
            purpose: self.purpose,
            challenge: Challenge {
                nonce,
                state,
                channel,
                created_at,
                expires_at,
                attempts,
                sends,
            },
            sent_at: self.sent_at,
            failures: self.failures,
            send_limits: self.send_limits,
            memory: self.memory,
            written_at: self.written_at,
        }
    }
}

impl<S> Record<S> {
    /// Returns true if the challenge of `nonce` could still verify at `now`, so that a
    /// message with its code is worth sending.
    pub fn has_live(&self, nonce: ChallengeNonce, policy: &PurposePolicy, now: Timestamp) -> bool {
        let live = self.challenge.live_secret(policy, now).is_some();
        live && !self.is_dead(nonce, now)
    }

    /// Returns true if the challenge of `nonce` can never verify again, whatever the policy
    /// of the replica that asks.
    pub fn is_dead(&self, nonce: ChallengeNonce, now: Timestamp) -> bool {
        let Challenge {
            state, expires_at, ..
        } = &self.challenge;
        let is_live = matches!(state, ChallengeState::Live(_)) && now < *expires_at;
        let stepped_back = now < self.written_at;
        self.challenge.nonce != nonce || !is_live || stepped_back
    }
}

impl<S> Challenge<S> {
    /// Returns the secret of a challenge that could still verify at `now`.
    pub fn live_secret(&self, policy: &PurposePolicy, now: Timestamp) -> Option<&S> {
        match &self.state {
            ChallengeState::Live(secret)
                if now < self.expires_at && self.attempts < policy.max_attempts =>
            {
                Some(secret)
            }
            _ => None,
        }
    }

    /// Returns the number of attempts that are left.
    pub fn attempts_remaining(&self, policy: &PurposePolicy) -> u32 {
        policy.max_attempts.saturating_sub(self.attempts)
    }
}

impl Record {
    /// Returns the time of the next allowed send; a success ends the cool-down.
    pub fn resend_at(&self, policy: &PurposePolicy) -> Timestamp {
        match self.challenge.state {
            ChallengeState::Spent => self.sent_at,
            _ => self.sent_at.saturating_add(policy.resend_after),
        }
    }

    /// Returns the time from which no response would change if the record were gone. It
    /// is one time for every state of a challenge, though a spent one could go at once,
    /// so that a verification does not change the store's index on it.
    pub fn purge_at(&self, policy: &PurposePolicy) -> Timestamp {
        let told_until = self
            .challenge
            .expires_at
            .saturating_add(PurposePolicy::EXPIRED_RETENTION);
        let send_limits = self
            .send_limits
            .hour_full_at
            .max(self.send_limits.day_full_at);
        told_until
            .max(self.resend_at(policy))
            .max(send_limits)
            .max(self.failures.resets_at(policy))
            .max(self.memory.forgotten_at().unwrap_or(told_until))
    }

    /// Returns the record after its store's clock stepped back to `now`. No time in it
    /// lies ahead, so that a wait lasts at most its own length. Its code is invalidated,
    /// because its age is unknown. So the record may also be purged soon, however far
    /// ahead the clock was.
    fn repair_clock_rollback(mut self, policy: &PurposePolicy, now: Timestamp) -> Self {
        if !matches!(self.challenge.state, ChallengeState::Spent) {
            self.challenge.state = ChallengeState::Cancelled;
        }
        self.challenge.created_at = self.challenge.created_at.min(now);
        self.challenge.expires_at = self.challenge.expires_at.min(now);
        self.sent_at = self.sent_at.min(now);
        self.failures.last_at = self.failures.last_at.min(now);
        self.send_limits = self.send_limits.stepped_back_to(policy, now);
        self.memory = self.memory.stepped_back_to(now, policy);
        self.written_at = now;
        self
    }
}

/// Decides about `record` at `now`. If the store's clock stepped back before the record's
/// last write, the record is repaired first. The repair is written even if the rule
/// itself writes nothing: else its waits would start again at each request.
pub(super) fn with_clock_repair<T>(
    record: Option<Record>,
    policy: &PurposePolicy,
    now: Timestamp,
    rule: impl FnOnce(Option<Record>) -> Decision<T>,
) -> Decision<T> {
    match record {
        Some(record) if now < record.written_at => {
            let record = record.repair_clock_rollback(policy, now);
            let decision = rule(Some(record.clone()));
            Decision {
                record: decision.record.or(Some(record)),
                ..decision
            }
        }
        record => rule(record),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_id_round_trips() {
        let id = ChallengeId {
            key: RecordKey([7; 32]),
            nonce: ChallengeNonce([9; 16]),
        };
        let text = id.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(ChallengeId::parse(&text), Some(id));
        let longer = format!("{text}AAAA");
        for other in [
            "",
            "nope",
            &text[..63],
            &text[..60],
            longer.as_str(),
            "ключ",
            "a\0",
        ] {
            assert_eq!(ChallengeId::parse(other), None, "{other:?}");
        }
    }
}
