//! One day of traffic against a guard.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use otpd_rules::Timestamp;

use crate::{
    guarded::REPLICAS,
    random::RandomSource,
    traffic::{
        ATTACK_START, AttackPlan, AttackRequest, HonestTraffic, HonestUser, attack_requests, people,
    },
    world::{
        COUNTRIES, DAY, EvaluatedGuard, HOUR, MINUTE, NumberBlock, SCENARIO_DAY, SECOND, SendReply,
        SendRequest,
    },
};

/// Messages of one code.
const MOST_MESSAGES: u32 = 4;

/// Largest number of blocks of an attack after which the time until the release is computed.
const FEW_BLOCKS: u32 = 10;

/// Users of one country.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserCounts {
    /// First-time users.
    pub first_time: u32,
    /// First-time users with a refusal or more.
    pub refused: u32,
    /// Returning users with a refusal or more.
    pub returning_refused: u32,
}

/// Results of a day.
#[derive(Clone, Debug, Default)]
pub struct DayOutcome {
    /// Requests of the attack.
    pub attack_requests: u32,
    /// Messages that the attack caused.
    pub attack_messages: u32,
    /// Messages that the attack caused in each of its hours.
    pub attack_messages_by_hour: Vec<u32>,
    /// Largest number of messages to a block of a thousand, by the attack.
    pub most_per_block: u32,
    /// Users that arrived during the attack, or in the whole day if there is none, by country.
    pub users: [UserCounts; COUNTRIES.len()],
    /// Milliseconds from the end of the attack until the country and its blocks are free.
    pub release: Option<i64>,
}

impl DayOutcome {
    /// Returns the messages in the busiest hour of the attack.
    pub fn most_per_hour(&self) -> u32 {
        self.attack_messages_by_hour
            .iter()
            .copied()
            .max()
            .unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
enum SimulationEvent {
    /// Request of a person, with the number of messages before and the last one's reply.
    UserRequest {
        index: usize,
        messages: u32,
    },
    AttackRequest(usize),
    /// Entry of a code.
    Verification {
        request: SendRequest,
        counted: bool,
        messages: u32,
    },
    /// The next channel of a message, unless it was answered.
    Fallback {
        request: SendRequest,
        channels: u32,
    },
    AttackEnd,
}

struct Simulation<'a, D> {
    defence: &'a mut D,
    honest: HonestTraffic,
    attack: Option<&'a AttackPlan>,
    people: Vec<HonestUser>,
    attack_requests: Vec<AttackRequest>,
    was_refused: Vec<bool>,
    per_block: HashMap<NumberBlock, u32>,
    random: RandomSource,
    queue: BinaryHeap<Reverse<(i64, usize)>>,
    events: Vec<SimulationEvent>,
    outcome: DayOutcome,
}

/// Lets the days before that of a scenario pass.
pub fn warm_up<D: EvaluatedGuard>(defence: &mut D, seed: u64) {
    let people = people(HonestTraffic::Normal, seed, 0, SCENARIO_DAY);
    run(defence, HonestTraffic::Normal, None, seed, people);
}

/// Simulates the day of a scenario.
pub fn simulate<D: EvaluatedGuard>(
    defence: &mut D,
    honest: HonestTraffic,
    attack: Option<&AttackPlan>,
    seed: u64,
) -> DayOutcome {
    let people = people(honest, seed, SCENARIO_DAY, SCENARIO_DAY + DAY);
    run(defence, honest, attack, seed, people)
}

fn run<D: EvaluatedGuard>(
    defence: &mut D,
    honest: HonestTraffic,
    attack: Option<&AttackPlan>,
    seed: u64,
    people: Vec<HonestUser>,
) -> DayOutcome {
    let mut simulation = Simulation {
        defence,
        honest,
        attack,
        was_refused: vec![false; people.len()],
        people,
        attack_requests: attack.map_or_else(Vec::new, |attack| attack_requests(attack, seed)),
        per_block: HashMap::new(),
        random: RandomSource::new(seed, 200),
        queue: BinaryHeap::new(),
        events: Vec::new(),
        outcome: DayOutcome::default(),
    };
    for index in 0..simulation.people.len() {
        let time = simulation.people[index].arrival;
        simulation.schedule(time, SimulationEvent::UserRequest { index, messages: 0 });
    }
    for index in 0..simulation.attack_requests.len() {
        let time = simulation.attack_requests[index].time;
        simulation.schedule(time, SimulationEvent::AttackRequest(index));
    }
    if let Some(attack) = attack {
        simulation.schedule(
            ATTACK_START + attack.hours * HOUR,
            SimulationEvent::AttackEnd,
        );
        let hours = usize::try_from(attack.hours).unwrap_or_default();
        simulation.outcome.attack_messages_by_hour = vec![0; hours + 1];
    }
    while let Some(Reverse((time, event))) = simulation.queue.pop() {
        let event = simulation.events[event];
        simulation.execute(time, event);
    }
    simulation.result()
}

impl<D: EvaluatedGuard> Simulation<'_, D> {
    fn schedule(&mut self, time: i64, event: SimulationEvent) {
        self.queue.push(Reverse((time, self.events.len())));
        self.events.push(event);
    }

    fn execute(&mut self, time: i64, event: SimulationEvent) {
        let now = Timestamp::from_milliseconds(time);
        match event {
            SimulationEvent::UserRequest { index, messages } => self.person(now, index, messages),
            SimulationEvent::AttackRequest(index) => self.attack(now, index),
            SimulationEvent::Verification {
                request,
                counted,
                messages,
            } => self.defence.verified(&request, counted, messages, now),
            SimulationEvent::Fallback { request, channels } => {
                self.fallback(now, request, channels);
            }
            SimulationEvent::AttackEnd => {
                if let Some(attack) = self.attack.filter(|attack| attack.blocks <= FEW_BLOCKS) {
                    self.outcome.release = self.defence.release(attack.country, now);
                }
            }
        }
    }

    fn person(&mut self, now: Timestamp, index: usize, messages: u32) {
        let person = self.people[index];
        let request = SendRequest {
            time: now,
            block: person.block,
            digits: person.digits,
            address: person.address,
            returning: person.returning,
            replica: (person.replica + usize::try_from(messages).unwrap_or(0)) % REPLICAS,
        };
        let SendReply::Sent {
            resend_factor,
            counted,
        } = self.defence.request(&request)
        else {
            self.was_refused[index] = true;
            return;
        };
        let messages = messages + 1;
        let time = now.milliseconds();
        let delivered = !self.honest.is_down(person.block.country, time) && self.random.percent(96);
        if delivered && person.attentive {
            let mean = if self.random.percent(80) { 20.0 } else { 80.0 };
            let delay = 8 * SECOND + self.random.exponential(mean * 1_000.0).min(5 * MINUTE);
            let verification = SimulationEvent::Verification {
                request,
                counted,
                messages,
            };
            self.schedule(time + delay, verification);
        } else if !delivered && messages < MOST_MESSAGES && self.random.percent(60) {
            let wait = MINUTE * i64::from(resend_factor) + self.random.exponential(30_000.0);
            self.schedule(
                time + wait,
                SimulationEvent::UserRequest { index, messages },
            );
        }
    }

    fn attack(&mut self, now: Timestamp, index: usize) {
        let attack = self.attack_requests[index];
        let request = SendRequest {
            time: now,
            block: attack.block,
            digits: attack.digits,
            address: attack.address,
            returning: false,
            replica: attack.replica,
        };
        self.outcome.attack_requests += 1;
        let SendReply::Sent { counted, .. } = self.defence.request(&request) else {
            return;
        };
        self.count_attack_message(now, attack.block);
        if attack.verifies {
            let delay = 10 * SECOND + self.random.exponential(10_000.0);
            let verification = SimulationEvent::Verification {
                request,
                counted,
                messages: 1,
            };
            self.schedule(now.milliseconds() + delay, verification);
        } else if let Some(attack) = self.attack
            && attack.channels > 1
        {
            let channels = attack.channels - 1;
            let time = now.milliseconds() + 30 * SECOND;
            self.schedule(time, SimulationEvent::Fallback { request, channels });
        }
    }

    fn fallback(&mut self, now: Timestamp, request: SendRequest, channels: u32) {
        let request = SendRequest {
            time: now,
            ..request
        };
        if self.defence.allows_fallback(&request) {
            self.count_attack_message(now, request.block);
            if channels > 1 {
                let channels = channels - 1;
                let time = now.milliseconds() + 30 * SECOND;
                self.schedule(time, SimulationEvent::Fallback { request, channels });
            }
        }
    }

    fn count_attack_message(&mut self, now: Timestamp, block: NumberBlock) {
        self.outcome.attack_messages += 1;
        *self.per_block.entry(block).or_default() += 1;
        let hour = (now.milliseconds() - ATTACK_START) / HOUR;
        let hour = usize::try_from(hour).unwrap_or_default();
        self.outcome.attack_messages_by_hour[hour] += 1;
    }

    fn result(mut self) -> DayOutcome {
        self.outcome.most_per_block = self.per_block.values().copied().max().unwrap_or(0);
        let hours = self.attack.map(|attack| attack.hours);
        for (person, was_refused) in self.people.iter().zip(&self.was_refused) {
            let during = hours.is_none_or(|hours| {
                (ATTACK_START..ATTACK_START + hours * HOUR).contains(&person.arrival)
            });
            let users = &mut self.outcome.users[person.block.country];
            match (during, person.returning) {
                (false, _) => {}
                (true, true) => users.returning_refused += u32::from(*was_refused),
                (true, false) => {
                    users.first_time += 1;
                    users.refused += u32::from(*was_refused);
                }
            }
        }
        self.outcome
    }
}
