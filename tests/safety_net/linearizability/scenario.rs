//! Concurrent calls about one recipient, through any replicas.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use otpd_model::{Call, Command, Observed, RecordId, TimeRange};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    checker::Event,
    fleet::{CALL_TIMEOUT, Fleet, REPLICAS},
};
use crate::{dice::Dice, model_based::grpc_adapter, settings};
/// Maximum number of calls about one recipient. A history has 64 at most; the others are left
/// to repetitions.
const MAX_CALLS: usize = 40;
/// Maximum number of calls without a reply, after which the callers stop. Each of them may or
/// may not have happened, which doubles the search.
const MAX_LOST: usize = 4;
/// Maximum time for which a caller waits for the message of an acknowledged send.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause of a caller after a call without a reply. Without it, callers would spend all calls
/// of a run on one outage, and leave no processor time to end it.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Latest decision time of a call without a reply: it may still be decided at any time.
const UNBOUNDED: i64 = i64::MAX;

/// State of one recipient's calls.
pub struct Scenario {
    pub record: RecordId,
    fleet: Arc<Fleet>,
    number: u64,
    network: Option<String>,
    events: Mutex<Vec<Event>>,
    started: AtomicUsize,
    lost: AtomicUsize,
}

impl Scenario {
    /// Runs a few callers with a few calls each, and returns all calls.
    pub async fn run(fleet: Arc<Fleet>, number: u64, mut dice: Dice) -> (RecordId, Vec<Event>) {
        let purpose = if dice.percent(60) {
            settings::TIGHT
        } else {
            settings::DEFAULT
        };
        let network = dice
            .percent(30)
            .then(|| format!("3fff:{:x}:{:x}:0", number >> 16 & 0xfff, number & 0xffff));
        let scenario = Arc::new(Self {
            record: RecordId {
                caller: settings::CRM,
                purpose,
                recipient: format!("person-{number}@example.com"),
            },
            fleet,
            number,
            network,
            events: Mutex::default(),
            started: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let callers = 2 + dice.below(4);
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers {
            let scenario = Arc::clone(&scenario);
            let dice = dice.part(u64::try_from(caller).expect("few"));
            tasks.spawn(async move { scenario.run_caller(caller, dice).await });
        }
        tasks.join_all().await;
        let mut events = std::mem::take(&mut *scenario.events.lock().expect("no caller panics"));
        let end = scenario.fleet.clock.latest();
        for event in &mut events {
            event.decided.latest = event.decided.latest.min(end);
        }
        (scenario.record.clone(), events)
    }

    /// Runs the calls of one caller.
    async fn run_caller(&self, client: usize, mut dice: Dice) {
        for step in 0..4 + dice.below(6) {
            let command = if client == 0 && step == 0 {
                self.send()
            } else {
                self.choose(&mut dice)
            };
            let with_id = !matches!(command, Command::Status { .. }) && dice.percent(60);
            let id = with_id.then(|| {
                // Some ids are shared by several callers, for the same or other requests.
                if dice.percent(15) {
                    format!("{}-shared-{}", self.number, dice.below(2))
                } else {
                    format!("{}-{client}-{step}", self.number)
                }
            });
            let call = Call {
                record: self.record.clone(),
                request_id: id,
                command,
            };
            let repeatable =
                call.request_id.is_some() || matches!(call.command, Command::Status { .. });
            while !self.make(&call, client, &mut dice).await {
                if !(repeatable && dice.percent(80)) {
                    break;
                }
            }
        }
    }

    fn send(&self) -> Command {
        Command::Send {
            content: 0,
            channel: 0,
            network: self.network.clone(),
        }
    }

    fn choose(&self, dice: &mut Dice) -> Command {
        let mail = self.fleet.mail.of(&self.record.recipient);
        let newest = mail.last();
        let verify = |code: String, dice: &mut Dice| {
            let named = newest.filter(|_| dice.percent(30));
            Command::Verify {
                code,
                challenge: named.map(|message| message.challenge.clone()),
                network: self.network.clone(),
                receipt: None,
            }
        };
        let length = self.fleet.settings.policies[self.record.purpose].code_length;
        let correct = newest.map_or_else(|| "1".repeat(length), |message| message.code.clone());
        match dice.below(100) {
            0..25 => self.send(),
            25..48 => verify(correct, dice),
            48..74 => {
                let wrong = if correct.starts_with('9') { "0" } else { "9" };
                verify(format!("{wrong}{}", &correct[1..]), dice)
            }
            74..80 => {
                let any = mail.get(dice.below(mail.len().max(1)));
                verify(any.map_or(correct, |message| message.code.clone()), dice)
            }
            80..86 => {
                let named = newest.filter(|_| dice.percent(50));
                Command::Cancel {
                    challenge: named.map(|message| message.challenge.clone()),
                    reset_failures: dice.percent(50),
                    by_challenge: false,
                }
            }
            _ => Command::Status {
                challenge: None,
                by_challenge: false,
            },
        }
    }

    /// Makes a call; returns true if it needs no repetition.
    async fn make(&self, call: &Call, client: usize, dice: &mut Dice) -> bool {
        let fleet = &self.fleet;
        if self.started.fetch_add(1, Ordering::SeqCst) >= MAX_CALLS
            || self.lost.load(Ordering::SeqCst) >= MAX_LOST
        {
            return true;
        }
        let replica = dice.below(REPLICAS);
        let timeout = CALL_TIMEOUT / (1 << dice.below(4));
        let channel = fleet.channel(replica);
        let calling = fleet.calling.read().await;
        let earliest = fleet.clock.earliest();
        let invoked = Instant::now();
        let reply = grpc_adapter::make(channel, &fleet.settings, call, 0, |metadata| {
            let header = format!("{}m", timeout.as_millis());
            metadata.insert("grpc-timeout", header.parse().expect("digits"));
        });
        let reply = tokio::time::timeout(timeout, reply).await;
        let returned = Instant::now();
        let latest = fleet.clock.latest();
        drop(calling);
        fleet.calls.send_modify(|calls| *calls += 1);
        let observed = match reply {
            Ok(Ok(observed)) => Ok(observed),
            Ok(Err(status)) => {
                assert_not_internal(&status, call);
                let refused = status.get_error_details().error_info().is_some();
                Err((
                    format!("{:?}: {}", status.code(), status.message()),
                    refused,
                ))
            }
            Err(_) => Err(("no reply before the timeout".to_owned(), false)),
        };
        let latest = match &observed {
            // It may still take effect.
            Err((_, false)) => UNBOUNDED,
            _ => latest,
        };
        let settled = observed.is_ok();
        let sent = match &observed {
            Ok(Observed::Sent { challenge, .. }) => Some(challenge.clone()),
            _ => None,
        };
        let event = Event {
            call: call.clone(),
            client,
            replica,
            invoked,
            returned: settled.then_some(returned),
            decided: TimeRange { earliest, latest },
            failure: observed
                .as_ref()
                .err()
                .map(|(failure, _)| failure.clone())
                .unwrap_or_default(),
            observed: observed.ok(),
        };
        self.events.lock().expect("no caller panics").push(event);
        if let Some(challenge) = sent {
            let mail = &fleet.mail;
            // The check at the end reports a message that never arrives.
            mail.arrives(&self.record.recipient, &challenge, 1, MESSAGE_TIMEOUT)
                .await;
        }
        if !settled {
            self.lost.fetch_add(1, Ordering::SeqCst);
            let mut up = fleet.up.subscribe();
            // The sender is a field of the fleet, which outlives this.
            let _ = up.wait_for(|up| *up).await;
            tokio::time::sleep(BACK_OFF).await;
        }
        settled
    }
}

/// No fault of the environment may cause an internal error.
fn assert_not_internal(status: &Status, call: &Call) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    let is_internal = status.code() == Code::Internal && reason.is_some();
    assert!(!is_internal, "{call:?}: {status:?}");
}
