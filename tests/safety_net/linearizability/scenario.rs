//! Concurrent calls about one recipient, through any replicas.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    checker::Event,
    dice::Dice,
    fleet::{Fleet, PATIENCE, REPLICAS},
};
use crate::{
    model::{Ask, Call, Moment, Name, Told},
    model_based::grpc_adapter,
    settings,
};

/// Calls about one recipient at most; the rest of a word is left to repetitions.
const MOST_CALLS: usize = 40;
/// After so many calls without an answer the callers give up: each may or may not have
/// happened, and the search doubles with it.
const MOST_LOST: usize = 4;
/// How long a caller waits for a message whose send was acknowledged, before it goes on
/// without.
const MAIL_PATIENCE: Duration = Duration::from_secs(2);

/// How long a caller holds back after a call without an answer, as callers do: else they
/// spend a whole run's calls on one outage, and keep the processor from ending it.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Of a call that nobody heard of any more: it may be decided at any time to come.
const UNDECIDED: i64 = i64::MAX;

/// State of one recipient's calls.
pub struct Scenario {
    pub name: Name,
    fleet: Arc<Fleet>,
    number: u64,
    network: Option<String>,
    events: Mutex<Vec<Event>>,
    begun: AtomicUsize,
    lost: AtomicUsize,
}

impl Scenario {
    /// Has a few callers make a few calls each, and returns them all.
    pub async fn play(fleet: Arc<Fleet>, number: u64, mut dice: Dice) -> (Name, Vec<Event>) {
        let purpose = if dice.percent(60) {
            settings::TIGHT
        } else {
            settings::DEFAULT
        };
        let network = dice
            .percent(30)
            .then(|| format!("3fff:{:x}:{:x}:0", number >> 16 & 0xfff, number & 0xffff));
        let scenario = Arc::new(Self {
            name: Name {
                caller: settings::CRM,
                purpose,
                recipient: format!("person-{number}@example.com"),
            },
            fleet,
            number,
            network,
            events: Mutex::default(),
            begun: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let callers = 2 + dice.below(4);
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers {
            let scenario = Arc::clone(&scenario);
            let dice = dice.part(u64::try_from(caller).expect("few"));
            tasks.spawn(async move { scenario.call_around(caller, dice).await });
        }
        tasks.join_all().await;
        let mut events = std::mem::take(&mut *scenario.events.lock().expect("no caller panics"));
        let end = scenario.fleet.clock.latest();
        for event in &mut events {
            event.decided.latest = event.decided.latest.min(end);
        }
        (scenario.name.clone(), events)
    }

    /// Runs the calls of one caller.
    async fn call_around(&self, client: usize, mut dice: Dice) {
        for step in 0..4 + dice.below(6) {
            let ask = if client == 0 && step == 0 {
                self.send()
            } else {
                self.choose(&mut dice)
            };
            let with_id = !matches!(ask, Ask::Status { .. }) && dice.percent(60);
            let id = with_id.then(|| {
                // Some ids are used by several callers, for the same request or others.
                if dice.percent(15) {
                    format!("{}-shared-{}", self.number, dice.below(2))
                } else {
                    format!("{}-{client}-{step}", self.number)
                }
            });
            let call = Call {
                name: self.name.clone(),
                id,
                ask,
            };
            let repeatable = call.id.is_some() || matches!(call.ask, Ask::Status { .. });
            while !self.make(&call, client, &mut dice).await {
                if !(repeatable && dice.percent(80)) {
                    break;
                }
            }
        }
    }

    fn send(&self) -> Ask {
        Ask::Send {
            wording: 0,
            network: self.network.clone(),
        }
    }

    fn choose(&self, dice: &mut Dice) -> Ask {
        let mail = self.fleet.mail.of(&self.name.recipient);
        let newest = mail.last();
        let verify = |typed: String, dice: &mut Dice| {
            let named = newest.filter(|_| dice.percent(30));
            Ask::Verify {
                typed,
                challenge: named.map(|message| message.challenge.clone()),
                network: self.network.clone(),
            }
        };
        let length = self.fleet.settings.policies[self.name.purpose].code_length;
        let right = newest.map_or_else(|| "1".repeat(length), |message| message.code.clone());
        match dice.below(100) {
            0..25 => self.send(),
            25..48 => verify(right, dice),
            48..74 => {
                let wrong = if right.starts_with('9') { "0" } else { "9" };
                verify(format!("{wrong}{}", &right[1..]), dice)
            }
            74..80 => {
                let any = mail.get(dice.below(mail.len().max(1)));
                verify(any.map_or(right, |message| message.code.clone()), dice)
            }
            80..86 => {
                let named = newest.filter(|_| dice.percent(50));
                Ask::Cancel {
                    challenge: named.map(|message| message.challenge.clone()),
                    reset: dice.percent(50),
                    by_challenge: false,
                }
            }
            _ => Ask::Status {
                challenge: None,
                by_challenge: false,
            },
        }
    }

    /// Makes a call; says whether it is settled.
    async fn make(&self, call: &Call, client: usize, dice: &mut Dice) -> bool {
        let fleet = &self.fleet;
        if self.begun.fetch_add(1, Ordering::SeqCst) >= MOST_CALLS
            || self.lost.load(Ordering::SeqCst) >= MOST_LOST
        {
            return true;
        }
        let replica = dice.below(REPLICAS);
        let patience = PATIENCE / (1 << dice.below(4));
        let channel = fleet.channel(replica);
        let calling = fleet.calling.read().await;
        let earliest = fleet.clock.earliest();
        let invoked = Instant::now();
        let answer = grpc_adapter::make(channel, &fleet.settings, call, 0, |metadata| {
            let timeout = format!("{}m", patience.as_millis());
            metadata.insert("grpc-timeout", timeout.parse().expect("digits"));
        });
        let answer = tokio::time::timeout(patience, answer).await;
        let returned = Instant::now();
        let latest = fleet.clock.latest();
        drop(calling);
        fleet.calls.send_modify(|calls| *calls += 1);
        let told = match answer {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(status)) => {
                assert_no_fault(&status, call);
                let refused = status.get_error_details().error_info().is_some();
                Err((
                    format!("{:?}: {}", status.code(), status.message()),
                    refused,
                ))
            }
            Err(_) => Err(("no answer in time".to_owned(), false)),
        };
        let latest = match &told {
            // It may be on its way yet.
            Err((_, false)) => UNDECIDED,
            _ => latest,
        };
        let settled = told.is_ok();
        let sent = match &told {
            Ok(Told::Sent { challenge, .. }) => Some(challenge.clone()),
            _ => None,
        };
        let event = Event {
            call: call.clone(),
            client,
            replica,
            invoked,
            returned: settled.then_some(returned),
            decided: Moment { earliest, latest },
            failure: told
                .as_ref()
                .err()
                .map(|(failure, _)| failure.clone())
                .unwrap_or_default(),
            told: told.ok(),
        };
        self.events.lock().expect("no caller panics").push(event);
        if let Some(challenge) = sent {
            let mail = &fleet.mail;
            // Whether it ever arrives is judged at the end.
            mail.arrives(&self.name.recipient, &challenge, 1, MAIL_PATIENCE)
                .await;
        }
        if !settled {
            self.lost.fetch_add(1, Ordering::SeqCst);
            let mut up = fleet.up.subscribe();
            // The sender is a field of the fleet, which lives as long as this.
            let _ = up.wait_for(|up| *up).await;
            tokio::time::sleep(BACK_OFF).await;
        }
        settled
    }
}

/// A fault of otpd's own is never an excuse.
fn assert_no_fault(status: &Status, call: &Call) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    let fault = status.code() == Code::Internal && reason.is_some();
    assert!(!fault, "{call:?}: {status:?}");
}
