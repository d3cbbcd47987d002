//! A command on its way through a batch: opened, decided by the rules, sealed, and replied to
//! once everything is committed.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    Admission, BatchClient, BatchError, Committed, DecidedWrites, Job, LeasedMessage,
    MessageHandoff, NotCommitted, RateLimit, WorkingSetView, rate_limit_charges::RateLimitCharges,
};
use crate::{
    keys::{KeyRing, os_rng},
    store::{RowVersion, StoreClock, StoreError, VersionedMessage, health::StoreHealth},
};
use otpd_rules::{
    Caller, Command, Context, LimitCharge, LimitKey, Outcome, Purpose, PurposePolicy, Record,
    RecordKey, Refusal, State, decide,
};

/// Decides commands.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The only way of requests to the store.
    pub batcher: BatchClient,
    /// Whether the store answers.
    pub availability: StoreHealth,
    /// Keys by which records are found and sealed.
    pub keys: Arc<KeyRing>,
    /// Counts commands, also those whose caller has gone.
    pub running: TaskTracker,
}

/// A command, with everything that the engine needs to decide it.
#[derive(Debug)]
pub struct CommandRequest {
    /// Command for the rules.
    pub command: Command,
    /// Caller that sent it. A record of another caller counts as absent.
    pub caller: Arc<Caller>,
    /// Key of its record.
    pub key: RecordKey,
    /// Purpose that `key` was computed for; `None` if a challenge id gave the key.
    pub purpose: Option<Purpose>,
    /// Rate limits that it shares with requests about other records.
    pub limits: Vec<RateLimit>,
    /// Latest instant at which a reply is of use.
    pub deadline: Instant,
    /// Receiver of the message of a send.
    pub outbox: Option<Box<dyn MessageHandoff>>,
}

/// Reply to a command, committed.
#[derive(Debug)]
pub struct Reply {
    /// Outcome, or the reason why the rules refused the command.
    pub outcome: Result<Outcome, Refusal>,
    /// Messages of the record, oldest first; empty except for a status.
    pub messages: Vec<VersionedMessage>,
}

impl Engine {
    /// Decides a command, and returns once everything that was decided is committed. If the
    /// caller goes away before the decision, there is none; if later, the message of a send
    /// is still handed over.
    ///
    /// # Errors
    /// Those of [`BatchError`].
    pub async fn run(&self, request: CommandRequest) -> Result<Reply, BatchError> {
        if !self.availability.is_available() {
            return Err(StoreError::Unavailable("its last health check failed".to_owned()).into());
        }
        let (reply, replied) = oneshot::channel();
        self.batcher.submit(Box::new(CommandJob {
            engine: self.clone(),
            _running: self.running.token(),
            limits: request.limits.iter().map(|limit| limit.key).collect(),
            charges: RateLimitCharges::new(&request.limits),
            request,
            message_version: None,
            outcome: None,
            given_up: None,
            reply,
        }));
        replied.await.unwrap_or(Err(BatchError::Panicked))
    }
}

/// A command between its submission and its reply.
struct CommandJob {
    engine: Engine,
    /// Delays the shutdown until the job has ended, even if its caller has gone.
    _running: TaskTrackerToken,
    request: CommandRequest,
    limits: Vec<LimitKey>,
    charges: RateLimitCharges,
    /// One version for all attempts: a message may have been written although its write
    /// seemed to fail.
    message_version: Option<RowVersion>,
    /// Outcome of the last decision.
    outcome: Option<Result<Outcome, Refusal>>,
    /// Error to reply with. Then only the paid charges are refunded.
    given_up: Option<BatchError>,
    reply: oneshot::Sender<Result<Reply, BatchError>>,
}

impl Job for CommandJob {
    fn record(&self) -> RecordKey {
        self.request.key
    }

    fn limits(&self) -> &[LimitKey] {
        &self.limits
    }

    fn admission(&self) -> Option<Admission<'_>> {
        // A refund is never refused.
        self.given_up.is_none().then_some(Admission {
            caller: &self.request.caller.name,
            deadline: self.request.deadline,
        })
    }

    fn reads_messages(&self) -> bool {
        matches!(self.request.command, Command::Status(_)) && !self.request.caller.self_delivery
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() || self.charges.has_refund_due()
    }

    fn decide(&mut self, view: &WorkingSetView<'_>) -> DecidedWrites {
        let (keys, request) = (&self.engine.keys, &self.request);
        let limits = self.charges.states(view);
        let stored = view.record(&request.key);
        let record = stored.map_or(Ok(None), |record| request.open(keys, record, view.now()));
        let record = record.unwrap_or_else(|error| {
            self.given_up.get_or_insert(error);
            None
        });
        if self.given_up.is_some() || self.reply.is_closed() {
            return DecidedWrites {
                limits: self.charges.updates(view, &limits, LimitCharge::Nothing),
                ..DecidedWrites::default()
            };
        }
        let random = &mut os_rng();
        let context = &mut Context {
            policy: request.policy(record.as_ref()),
            now: view.now(),
            random,
        };
        let state = State {
            record,
            limits: &limits,
        };
        let decision = decide(&request.command, state, context);
        self.outcome = Some(decision.outcome);
        DecidedWrites {
            record: decision
                .record
                .map(|record| request.seal(keys, record, random)),
            limits: self.charges.updates(view, &limits, decision.rate_limits),
            message: decision.message.map(|message| {
                let version = self.message_version;
                let version = version.unwrap_or_else(|| RowVersion::random(random));
                self.message_version = Some(version);
                request.seal_message(keys, message, version, random)
            }),
        }
    }

    fn on_not_committed(&mut self, loss: NotCommitted<'_>) {
        self.outcome = None;
        self.charges.on_not_committed(loss);
    }

    fn complete(mut self: Box<Self>, end: Result<Committed, BatchError>) {
        let reply = match (self.given_up.take(), end) {
            (None, Ok(Committed { clock, messages })) => match self.outcome.take() {
                Some(mut outcome) => {
                    self.hand_over(&mut outcome, clock);
                    Ok(Reply { outcome, messages })
                }
                None => Err(BatchError::Panicked),
            },
            (None, Err(error @ (BatchError::Full { .. } | BatchError::ContentionLimit)))
                if self.charges.has_refund_due() =>
            {
                self.given_up = Some(error);
                return self.engine.batcher.clone().submit(self);
            }
            // A request that was given up fails even if its refund was not written.
            (Some(error), _) | (None, Err(error)) => Err(error),
        };
        // The caller may have gone meanwhile.
        drop(self.reply.send(reply));
    }
}

impl CommandJob {
    /// Hands the message of a send to the outbox, if this request wrote one, now or in an
    /// earlier attempt.
    fn hand_over(&mut self, outcome: &mut Result<Outcome, Refusal>, clock: StoreClock) {
        if let (Command::Send(send), Ok(Outcome::Sent(sent))) = (&self.request.command, outcome)
            && let Some((message, version)) = sent.message.take().zip(self.message_version)
            && let Some(outbox) = self.request.outbox.take()
        {
            outbox.accept(LeasedMessage {
                key: self.request.key,
                caller: send.caller.clone(),
                purpose: send.purpose.clone(),
                version,
                message,
                clock,
            });
        }
    }
}

impl CommandRequest {
    /// Returns the policy of the record; any policy does if there is none and the purpose is
    /// unknown.
    fn policy(&self, record: Option<&Record>) -> &PurposePolicy {
        let policies = &self.caller.policies;
        let purpose = record.map(|record| &record.purpose);
        let purpose = purpose.or(self.purpose.as_ref());
        purpose.map_or(&policies.general, |purpose| policies.of(purpose))
    }
}
