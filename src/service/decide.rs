//! Load, decide, write if unchanged; and again, where another request was faster.

use std::{collections::HashMap, future::Future};

use tokio::time::{Instant, timeout_at};

use super::{OtpService, ServiceError};
use crate::{
    domain::{
        Caller, ChallengeState, Decision, LimitKey, LimitName, Message, Rate, Record, RecordKey,
        SharedLimit, Timestamp,
    },
    keys::{SystemRandom, system_random},
    store::{
        Change, Clock, LimitChange, MessageChange, RecordChange, RecordStore as _, Sealed,
        Snapshot, StoreError, Version, Versioned, Written,
    },
};

/// How often a request that lost its race is decided again. Each loss is another
/// request's success, and a code has few of those to give.
const MAX_TRIES: u32 = 32;

/// A limit that a request is under, besides the record's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub key: LimitKey,
    pub name: LimitName,
    pub rate: Rate,
}

/// What was decided, and written.
pub(super) struct Decided<Answer> {
    /// The answer.
    pub answer: Answer,
    /// The store's clock at the load that it rests on.
    pub clock: Clock,
    /// The version of the message that was written, if one was.
    pub message_version: Version,
}

/// The limits that a request is under, and which of them it has paid.
struct Tab<'a> {
    limits: &'a [Limit],
    paid: Vec<bool>,
    /// The versions of this request's own writes, with the state that they put the limit
    /// to: who finds one in the store has paid, even if the acknowledgement was lost.
    own: HashMap<LimitKey, (Version, Timestamp)>,
    /// Whether an acknowledgement was lost. Then nothing is given back, since the
    /// record that it was paid for may have been written.
    in_doubt: bool,
}

impl OtpService {
    /// Decides by `rule` about the record of `key`, under `limits`, and does what was
    /// decided. A record of another caller is as if there were none.
    pub(super) async fn decide<Answer>(
        &self,
        caller: &Caller,
        key: RecordKey,
        limits: &[Limit],
        deadline: Instant,
        rule: impl Fn(Option<Record>, &[SharedLimit], Timestamp, &mut SystemRandom) -> Decision<Answer>,
    ) -> Result<Decided<Answer>, ServiceError> {
        if !self.availability.answers() {
            return Err(ServiceError::StoreUnavailable);
        }
        let limit_keys: Vec<LimitKey> = limits.iter().map(|limit| limit.key).collect();
        let mut tab = Tab {
            limits,
            paid: vec![false; limits.len()],
            own: HashMap::new(),
            in_doubt: false,
        };
        let mut random = system_random();
        // One for all tries: the one that was written may seem to have failed.
        let message_version = Version::random(&mut random);
        for _ in 0..MAX_TRIES {
            let keys = [key];
            let load = self.store.load(&keys, &limit_keys);
            let mut snapshot = self.in_time(deadline, load).await?;
            let (expected, record) = match snapshot.records.remove(&key) {
                Some(Versioned { version, record }) if record.caller == caller.name => {
                    (Some(version), Some(self.open(key, record)))
                }
                _ => (None, None),
            };
            let shared = tab.shared(&snapshot);
            let decision = rule(record, &shared, snapshot.clock.now(), &mut random);
            let wrote_record = decision.write.is_some();
            let seal_message = |message| self.seal_message(key, message_version, message);
            let change = Change {
                record: decision
                    .write
                    .map(|record| self.seal(caller, key, expected, record, &mut random)),
                message: decision.message.map(seal_message),
                limits: tab.changes(&snapshot, &decision.charges, &mut random),
            };
            if change.record.is_some() || !change.limits.is_empty() {
                let write = self.store.write(std::slice::from_ref(&change));
                match self.in_time(deadline, write).await {
                    Ok(written) if tab.settle(&change, &written) => {}
                    Ok(_) | Err(ServiceError::Overloaded) => continue,
                    // The acknowledgement may have been lost with its connection: the
                    // rule finds its own answer in the record, if it was written.
                    Err(ServiceError::StoreUnavailable) => {
                        tab.in_doubt = true;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            // A refusal wants none of the limits, and neither does a right answer; what an
            // earlier try paid is given back.
            if !wrote_record || decision.charges.is_empty() {
                self.give_back(&tab, deadline).await;
            }
            return Ok(Decided {
                answer: decision.answer,
                clock: snapshot.clock,
                message_version,
            });
        }
        self.give_back(&tab, deadline).await;
        Err(ServiceError::Overloaded)
    }

    /// A record as it is to be stored.
    fn seal(
        &self,
        caller: &Caller,
        key: RecordKey,
        expected: Option<Version>,
        record: Record,
        random: &mut SystemRandom,
    ) -> RecordChange {
        let nonce = record.challenge.nonce;
        let removable_at = record.removable_at(caller.policies.of(&record.purpose));
        let record = record.map_secret(|secret| {
            ChallengeState::Live(self.keys.seal(&key, &nonce, &secret, random))
        });
        RecordChange {
            key,
            expected,
            version: Version::random(random),
            record,
            removable_at,
        }
    }

    /// A new message as it is to be stored.
    fn seal_message(&self, key: RecordKey, version: Version, message: Message) -> MessageChange {
        MessageChange {
            key,
            expected: None,
            version,
            message: self.keys.seal_message(&key, message, &mut system_random()),
        }
    }

    /// A loaded record with its secret opened. One that does not open was sealed
    /// under a key that is gone, or is not otpd's work: its code is dead.
    fn open(&self, key: RecordKey, record: Record<Sealed>) -> Record {
        let nonce = record.challenge.nonce;
        record.map_secret(|sealed| {
            self.keys.open(&key, &nonce, &sealed).map_or_else(
                || {
                    tracing::error!(
                        "[OTP] A code cannot be opened and is lost: its sealing key is not in the key ring"
                    );
                    ChallengeState::Cancelled
                },
                ChallengeState::Live,
            )
        })
    }

    /// Gives back what a request paid that in the end was refused, or gave up. As good as it can:
    /// should the store fail meanwhile, the limits refill by themselves.
    async fn give_back(&self, tab: &Tab<'_>, deadline: Instant) {
        let paid = tab
            .limits
            .iter()
            .zip(&tab.paid)
            .filter(|(_, paid)| **paid && !tab.in_doubt);
        for (limit, _) in paid {
            let Some(&(_, refilled_at)) = tab.own.get(&limit.key) else {
                continue;
            };
            for _ in 0..MAX_TRIES {
                let keys = [limit.key];
                let load = self.store.load(&[], &keys);
                let Ok(snapshot) = self.in_time(deadline, load).await else {
                    return;
                };
                let Some(stored) = snapshot.limits.get(&limit.key) else {
                    break;
                };
                let change = LimitChange {
                    key: limit.key,
                    expected: Some(stored.version),
                    version: Version::random(&mut system_random()),
                    full_at: limit.rate.give_back(
                        stored.full_at,
                        refilled_at,
                        snapshot.clock.now(),
                    ),
                };
                let change = Change {
                    record: None,
                    message: None,
                    limits: vec![change],
                };
                match self.in_time(deadline, self.store.write(&[change])).await {
                    Ok(written) if written.limits.contains(&limit.key) => break,
                    Ok(_) | Err(ServiceError::Overloaded) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// Awaits the store, but not beyond the deadline or the configured time-out.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ServiceError> {
        let deadline = deadline.min(Instant::now() + self.store_timeout);
        match timeout_at(deadline, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(StoreError::Conflict(_))) => Err(ServiceError::Overloaded),
            Ok(Err(StoreError::Unavailable(cause))) => {
                tracing::debug!(%cause, "[OTP] Store did not answer a request");
                self.availability.doubt();
                Err(ServiceError::StoreUnavailable)
            }
            Ok(Err(error)) => Err(ServiceError::Internal(error.to_string())),
            Err(_) => {
                tracing::debug!("[OTP] Store did not answer a request in time");
                self.availability.doubt();
                Err(ServiceError::StoreUnavailable)
            }
        }
    }
}

impl Tab<'_> {
    /// The limits as the rules take them.
    fn shared(&mut self, snapshot: &Snapshot) -> Vec<SharedLimit> {
        let mut shared = Vec::with_capacity(self.limits.len());
        for (limit, paid) in self.limits.iter().zip(&mut self.paid) {
            let stored = snapshot.limits.get(&limit.key);
            let own = self.own.get(&limit.key).map(|(version, _)| *version);
            *paid |= stored.is_some_and(|stored| own == Some(stored.version));
            let full_at = stored.map(|stored| stored.full_at);
            shared.push(SharedLimit {
                name: limit.name,
                rate: limit.rate,
                full_at,
                paid: *paid,
            });
        }
        shared
    }

    /// The charges that a rule decided, as changes of what was loaded.
    fn changes(
        &mut self,
        snapshot: &Snapshot,
        charges: &[Option<Timestamp>],
        random: &mut SystemRandom,
    ) -> Vec<LimitChange> {
        let mut written = Vec::new();
        for (limit, charge) in self.limits.iter().zip(charges) {
            if let Some(full_at) = *charge {
                let expected = snapshot.limits.get(&limit.key).map(|stored| stored.version);
                let version = Version::random(random);
                self.own.insert(limit.key, (version, full_at));
                written.push(LimitChange {
                    key: limit.key,
                    expected,
                    version,
                    full_at,
                });
            }
        }
        written
    }

    /// Notes which limits were written, and says whether everything was.
    fn settle(&mut self, change: &Change, written: &Written) -> bool {
        // A change without a record charges nothing: it only puts limits right.
        if change.record.is_some() {
            for (limit, paid) in self.limits.iter().zip(&mut self.paid) {
                *paid |= written.limits.contains(&limit.key);
            }
        }
        change
            .record
            .as_ref()
            .is_none_or(|record| written.records.contains(&record.key))
            && change
                .limits
                .iter()
                .all(|limit| written.limits.contains(&limit.key))
    }
}
