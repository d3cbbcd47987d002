//! Has a rule decide about a record, in a batch with whatever else waits, and does what
//! it decided; and again, where another request was faster.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{OtpService, ServiceError};
use crate::{
    keys::{KeyRing, OpenError, SystemRandom, os_rng},
    log_targets::AUDIT,
    store::{
        MessageWrite, RowVersion, SealedBytes, StoreClock, VersionedMessage,
        batcher::{
            Admission, BatchClient, BatchError, DecidedWrites, Job, NotCommitted, WorkingSetView,
        },
    },
};
use otpd_rules::{
    Caller, ChallengeState, Decision, LimitCharge, LimitKey, LimitUpdate, OutboxMessage, Purpose,
    Quota, RateLimitKind, RateLimitState, Record, RecordKey, Timestamp,
};

/// A limit that a request is under, besides the record's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct RateLimit {
    pub key: LimitKey,
    pub name: RateLimitKind,
    pub rate: Quota,
}

/// What a rule decides about.
pub(super) struct DecisionInput {
    /// Whose record it is. One of another caller is as if there were none.
    pub caller: Arc<Caller>,
    /// Which.
    pub key: RecordKey,
    /// Purpose that `key` was computed for; `None` if a challenge id gave the key.
    pub purpose: Option<Purpose>,
    /// What it is under.
    pub limits: Vec<RateLimit>,
    /// Until when an answer is of use.
    pub deadline: Instant,
    /// Whether it needs the messages of its record.
    pub reads_messages: bool,
}

/// What has been written when a decision stands.
pub(super) struct Committed {
    /// The store's clock at the load that it rests on.
    pub clock: StoreClock,
    /// The version of the message that was written; `None` where this request has not
    /// decided to write one.
    pub message_version: Option<RowVersion>,
    /// The messages of the record, oldest first, if the matter needs them.
    pub messages: Vec<VersionedMessage>,
}

impl OtpService {
    /// Decides by `rule` about a matter. Once everything that was decided has been
    /// written, `then` is done, even if nobody waits for the answer any more; only then
    /// the answer is given. Where nobody waits any more before it is decided, nothing is.
    pub(super) async fn decide<Answer: Send + 'static>(
        &self,
        matter: DecisionInput,
        rule: impl Fn(
            Option<Record>,
            &[RateLimitState],
            Timestamp,
            &mut SystemRandom,
        ) -> Decision<Answer>
        + Send
        + 'static,
        then: impl FnOnce(&mut Answer, Committed) + Send + 'static,
    ) -> Result<Answer, ServiceError> {
        if !self.availability.is_available() {
            return Err(ServiceError::StoreUnavailable);
        }
        let (reply, answer) = oneshot::channel();
        let limits = matter.limits.iter().map(|limit| limit.key).collect();
        self.batcher.submit(Box::new(DecisionJob {
            batcher: self.batcher.clone(),
            keys: Arc::clone(&self.keys),
            _running: self.running.token(),
            caller: matter.caller,
            purpose: matter.purpose,
            deadline: matter.deadline,
            records: [matter.key],
            limits,
            tab: RateLimitCharges::new(matter.limits),
            message_version: None,
            reads_messages: matter.reads_messages,
            messages: Vec::new(),
            rule,
            then,
            answer: None,
            given_up: None,
            reply,
        }));
        let ended = |_| Err(ServiceError::Internal("a decision panicked".to_owned()));
        answer.await.unwrap_or_else(ended)
    }
}

/// A matter on its way to a decision.
struct DecisionJob<Rule, Then, Answer> {
    batcher: BatchClient,
    keys: Arc<KeyRing>,
    /// It runs until it has ended, whether or not its caller is still there.
    _running: TaskTrackerToken,
    caller: Arc<Caller>,
    purpose: Option<Purpose>,
    deadline: Instant,
    records: [RecordKey; 1],
    limits: Vec<LimitKey>,
    tab: RateLimitCharges,
    /// One for all tries: the message that was written may seem to have failed.
    message_version: Option<RowVersion>,
    reads_messages: bool,
    messages: Vec<VersionedMessage>,
    rule: Rule,
    then: Then,
    /// What was decided last.
    answer: Option<Answer>,
    /// Why there will be no answer; then it only gives back what it has paid.
    given_up: Option<ServiceError>,
    reply: oneshot::Sender<Result<Answer, ServiceError>>,
}

impl<Rule, Then, Answer> Job for DecisionJob<Rule, Then, Answer>
where
    Rule: Fn(Option<Record>, &[RateLimitState], Timestamp, &mut SystemRandom) -> Decision<Answer>
        + Send
        + 'static,
    Then: FnOnce(&mut Answer, Committed) + Send + 'static,
    Answer: Send + 'static,
{
    fn records(&self) -> &[RecordKey] {
        &self.records
    }

    fn limits(&self) -> &[LimitKey] {
        &self.limits
    }

    fn admission(&self) -> Option<Admission<'_>> {
        // What it only gives back, it must.
        self.given_up.is_none().then_some(Admission {
            caller: &self.caller.name,
            deadline: self.deadline,
        })
    }

    fn reads_messages(&self) -> bool {
        self.reads_messages
    }

    fn take_messages(&mut self, messages: Vec<VersionedMessage>) {
        self.messages = messages;
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() || self.tab.has_refund_due()
    }

    fn decide(&mut self, view: &WorkingSetView<'_>) -> DecidedWrites {
        let random = &mut os_rng();
        let now = view.now();
        let shared = self.tab.shared(view);
        let [key] = self.records;
        let record = match view.record(&key) {
            Some(record) => self.open(key, record, now),
            None => Ok(None),
        };
        let record = record.unwrap_or_else(|error| {
            self.given_up.get_or_insert(error);
            None
        });
        if self.given_up.is_some() || self.reply.is_closed() {
            return DecidedWrites {
                limits: self.tab.changes(view, &shared, LimitCharge::Nothing),
                ..DecidedWrites::default()
            };
        }
        let decision = (self.rule)(record, &shared, now, random);
        let limits = self.tab.changes(view, &shared, decision.charge);
        self.answer = Some(decision.answer);
        DecidedWrites {
            record: decision.write.map(|record| self.seal(key, record, random)),
            limits,
            message: decision
                .message
                .map(|message| self.seal_message(key, message, random)),
        }
    }

    fn on_not_committed(&mut self, loss: NotCommitted<'_>) {
        self.answer = None;
        self.tab.lost(loss);
    }

    fn complete(mut self: Box<Self>, end: Result<StoreClock, BatchError>) {
        let answer = match (self.given_up.take(), self.answer.take(), end) {
            // Whether or not that could be given back.
            (Some(error), ..) => Err(error),
            (None, Some(mut answer), Ok(clock)) => {
                let done = Committed {
                    clock,
                    message_version: self.message_version,
                    messages: self.messages,
                };
                (self.then)(&mut answer, done);
                Ok(answer)
            }
            (None, None, Ok(_)) => Err(ServiceError::Internal("nothing was decided".to_owned())),
            (None, _, Err(error)) => {
                let error = ServiceError::from(error);
                if matches!(error, ServiceError::Overloaded { .. }) && self.tab.has_refund_due() {
                    self.given_up = Some(error);
                    return self.batcher.clone().submit(self);
                }
                Err(error)
            }
        };
        // Whoever asked may have gone meanwhile.
        drop(self.reply.send(answer));
    }
}

impl<Rule, Then, Answer> DecisionJob<Rule, Then, Answer> {
    /// The record, if it is this caller's.
    fn open(
        &self,
        key: RecordKey,
        record: &Record<SealedBytes>,
        now: Timestamp,
    ) -> Result<Option<Record>, ServiceError> {
        let opened = open(&self.keys, key, record, now);
        if matches!(opened, Ok(None)) {
            return opened;
        }
        let is_callers = record.caller == self.caller.name;
        match &self.purpose {
            None if !is_callers => Ok(None),
            // The key was computed for this caller and purpose, so its record has both.
            Some(purpose) if !is_callers || record.purpose != *purpose => {
                note_altered_record(record);
                Ok(None)
            }
            _ => opened,
        }
    }

    /// A record as it is to be stored, and from when on it may be swept.
    fn seal(
        &self,
        key: RecordKey,
        record: Record,
        random: &mut SystemRandom,
    ) -> (Record<SealedBytes>, Timestamp) {
        let nonce = record.challenge.nonce;
        let removable_at = record.purge_at(self.caller.policies.of(&record.purpose));
        let record = record.map_secret(|secret| {
            ChallengeState::Live(self.keys.seal(&key, &nonce, &secret, random))
        });
        (record, removable_at)
    }

    /// A new message as it is to be stored.
    fn seal_message(
        &mut self,
        key: RecordKey,
        message: OutboxMessage,
        random: &mut SystemRandom,
    ) -> MessageWrite {
        MessageWrite {
            key,
            expected: None,
            version: *self
                .message_version
                .get_or_insert_with(|| RowVersion::random(random)),
            message: self.keys.seal_message(&key, message, random),
        }
    }
}

/// A loaded record with its secret opened. A record that was altered counts as absent, so
/// that nothing of it is shown or judged.
///
/// # Errors
/// The code does not open and has not expired: another replica may have its sealing key, so
/// nothing may be decided about it here. Once it has expired, that makes no difference.
fn open(
    keys: &KeyRing,
    key: RecordKey,
    record: &Record<SealedBytes>,
    now: Timestamp,
) -> Result<Option<Record>, ServiceError> {
    match keys.open_record(&key, record.clone()) {
        Ok(record) => Ok(Some(record)),
        Err(OpenError::Unreadable) if record.is_dead(record.challenge.nonce, now) => {
            let dead = record.clone().map_secret(|_| ChallengeState::Cancelled);
            Ok(Some(dead))
        }
        Err(OpenError::Unreadable) => {
            tracing::error!(
                "[OTP] A code cannot be opened: its sealing key is not in the key ring"
            );
            let problem = "a code cannot be opened; give this replica the key ring of the others";
            Err(ServiceError::Internal(problem.to_owned()))
        }
        Err(OpenError::Altered) => {
            note_altered_record(record);
            Ok(None)
        }
    }
}

/// Logs a record whose caller or purpose was changed in the database.
fn note_altered_record(record: &Record<SealedBytes>) {
    tracing::error!(
        target: AUDIT,
        caller = %record.caller,
        purpose = %record.purpose,
        "[OTP AUDIT] Record ignored: it was altered in the database"
    );
}

/// The limits that a request is under, and which of them it has paid.
struct RateLimitCharges {
    entries: Vec<ChargedLimit>,
    /// Whether an acknowledgement was lost. Then nothing is refunded, because the record
    /// that it was paid for may have been written.
    in_doubt: bool,
}

struct ChargedLimit {
    limit: RateLimit,
    /// Whether an earlier try, whose record was not written, has paid it.
    paid: bool,
    /// State of the limit after that payment; `None` if it is not known.
    paid_state: Option<Timestamp>,
    /// Version of the write by which this request charged it last. A row that still has
    /// this version shows that it was charged, even if the acknowledgement was lost.
    charged_by: Option<RowVersion>,
    /// What the last decision does with it.
    step: PendingCharge,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PendingCharge {
    Nothing,
    Charge,
    Refund,
}

impl RateLimitCharges {
    fn new(limits: Vec<RateLimit>) -> Self {
        let entry = |limit| ChargedLimit {
            limit,
            paid: false,
            paid_state: None,
            charged_by: None,
            step: PendingCharge::Nothing,
        };
        Self {
            entries: limits.into_iter().map(entry).collect(),
            in_doubt: false,
        }
    }

    /// The limits as the rules take them.
    fn shared(&mut self, view: &WorkingSetView<'_>) -> Vec<RateLimitState> {
        let shared = |entry: &mut ChargedLimit| {
            let loaded = view.loaded_limit(&entry.limit.key);
            entry.paid |= loaded.is_some() && loaded == entry.charged_by;
            RateLimitState {
                name: entry.limit.name,
                rate: entry.limit.rate,
                full_at: view.limit(&entry.limit.key),
                paid: entry.paid,
            }
        };
        self.entries.iter_mut().map(shared).collect()
    }

    /// Updates of the limits by a decision. If it consumes nothing, what an earlier try paid
    /// is refunded.
    fn changes(
        &mut self,
        view: &WorkingSetView<'_>,
        shared: &[RateLimitState],
        charge: LimitCharge,
    ) -> Vec<(LimitKey, LimitUpdate)> {
        let mut updates = Vec::new();
        for (entry, limit) in self.entries.iter_mut().zip(shared) {
            let key = entry.limit.key;
            entry.step = PendingCharge::Nothing;
            let update = charge.update(limit, view.now());
            updates.extend(update.map(|update| (key, update)));
            if charge == LimitCharge::Consume {
                if update.is_some() {
                    entry.charged_by = Some(view.version());
                    entry.step = PendingCharge::Charge;
                }
            } else if let Some(amount) = entry.refund(view).filter(|_| !self.in_doubt) {
                entry.step = PendingCharge::Refund;
                updates.push((key, LimitUpdate::Refund(amount)));
            }
        }
        updates
    }

    /// Notes what of the last decision was done although it did not stand.
    fn lost(&mut self, loss: NotCommitted<'_>) {
        for entry in &mut self.entries {
            let written = match loss {
                NotCommitted::Conflict(written) => written.limits.get(&entry.limit.key).copied(),
                NotCommitted::InDoubt => None,
            };
            match entry.step {
                // If it is in doubt whether it was charged, its version will tell.
                PendingCharge::Charge if written.is_some() => {
                    entry.paid = true;
                    entry.paid_state = written;
                }
                // What may have been refunded is not paid any more.
                PendingCharge::Refund
                    if written.is_some() || matches!(loss, NotCommitted::InDoubt) =>
                {
                    entry.paid = false;
                    entry.charged_by = None;
                }
                _ => {}
            }
        }
        self.in_doubt |= matches!(loss, NotCommitted::InDoubt);
    }

    /// Whether something was paid that is to be refunded if nothing comes of it.
    fn has_refund_due(&self) -> bool {
        !self.in_doubt && self.entries.iter().any(|entry| entry.paid)
    }
}

impl ChargedLimit {
    /// The refund of what was paid, if there is anything to refund.
    fn refund(&self, view: &WorkingSetView<'_>) -> Option<Duration> {
        let state = self.paid_state.filter(|_| self.paid)?;
        // A limit without a row is full.
        view.limit(&self.limit.key)?;
        let amount = self.limit.rate.refund(state, view.now());
        (!amount.is_zero()).then_some(amount)
    }
}
