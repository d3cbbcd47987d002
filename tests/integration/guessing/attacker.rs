//! The attacker. He knows the rules, every reply to him, and the times of the victim's
//! logins. In the simulation he always guesses wrong, because that run gives him the most
//! guesses.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, time::Duration};

use otpd_rules::{ChallengeNonce, RateLimitKind, Refusal, SubmittedCode, Timestamp, VerifyOutcome};

use super::{
    victim::{PATIENCE, Schedule},
    world::{Client, START, World, wrong},
};

/// The finest step of the clock.
const TICK: Duration = Duration::from_millis(1);
/// Interval at which the attacker checks if the victim has logged in.
const LOOKING: Duration = Duration::from_mins(1);

/// Strategy of an attacker.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of guesses at a code before the attacker requests another one.
    pub guesses_per_code: u32,
    /// True if the attacker requests a resend whenever that is allowed.
    pub resends: bool,
    /// True if the attacker also requests one earlier, at growing rates.
    pub knocks: bool,
    /// Use of the victim's logins.
    pub logins: Option<AroundLogins>,
}

/// Guesses between the victim's logins, so that each of them clears the count.
#[derive(Clone, Copy, Debug)]
pub struct AroundLogins {
    pub schedule: Schedule,
    /// At most so many guesses between two of them.
    pub guesses: u32,
    /// Time before a login at which the attacker stops, so that the login succeeds.
    pub stops_before: Duration,
    /// Number of guesses at the victim's own code, while she types.
    pub at_her_code: u32,
}

/// The attacker's knowledge of one target.
#[derive(Debug, Default)]
struct Notes {
    code: Option<KnownCode>,
    resend_at: Option<Timestamp>,
    /// Guesses since the last login that he saw, those at her code aside.
    since_login: u32,
    logins_seen: u32,
    /// True if the attacker has stopped for the next login, and has not seen it yet.
    waits_for_her: bool,
}

#[derive(Debug)]
struct KnownCode {
    challenge: ChallengeNonce,
    expires_at: Timestamp,
    wrong: SubmittedCode,
    guesses: u32,
}

/// Time of the next action.
enum Next {
    /// With this target then.
    Target(Timestamp),
    /// With any target then: none of his addresses has room before.
    Client(Timestamp),
}

/// Attacks all targets of a world at once.
#[derive(Debug)]
pub struct Attacker {
    plan: Plan,
    clients: Vec<Client>,
    notes: Vec<Notes>,
    waiting: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The target that he is busy with.
    current: Option<usize>,
    /// Time at which an address that a limit refused has room again.
    room_at: HashMap<(RateLimitKind, u32, Client), Timestamp>,
    /// Time of the next action.
    pub at: Timestamp,
}

impl Attacker {
    pub fn new(plan: Plan, clients: u32, world: &World) -> Self {
        let targets = world.targets.len();
        Self {
            plan,
            clients: (0..clients).map(Client).collect(),
            notes: (0..targets).map(|_| Notes::default()).collect(),
            waiting: (0..targets)
                .map(|target| Reverse((START, target)))
                .collect(),
            current: None,
            room_at: HashMap::new(),
            at: START,
        }
    }

    pub fn act(&mut self, world: &mut World) {
        let now = self.at;
        let target = match (self.current.take(), self.waiting.peek()) {
            (Some(target), _) => target,
            (None, Some(&Reverse((ready_at, target)))) if ready_at <= now => {
                self.waiting.pop();
                target
            }
            (None, Some(&Reverse((ready_at, _)))) => {
                self.at = ready_at;
                return;
            }
            (None, None) => unreachable!("a target waits or is the current one"),
        };
        match self.step(world, target, now) {
            Next::Client(at) => {
                self.current = Some(target);
                self.at = at;
            }
            Next::Target(at) if at <= now => self.current = Some(target),
            Next::Target(at) => self.waiting.push(Reverse((at, target))),
        }
    }

    fn step(&mut self, world: &mut World, target: usize, now: Timestamp) -> Next {
        if let Some(logins) = self.plan.logins
            && let Some(next) = self.make_use_of_login(world, target, logins, now)
        {
            return next;
        }
        let Plan {
            guesses_per_code,
            resends,
            ..
        } = self.plan;
        let notes = &self.notes[target];
        let resend_at = notes.resend_at.unwrap_or(now);
        let live = notes.code.as_ref().filter(|code| now < code.expires_at);
        let Some(code) = live else {
            return self.ask(world, target, now);
        };
        let replaced_at = code
            .expires_at
            .saturating_sub(world.policy.resend_after)
            .saturating_add(TICK);
        let mut resend_again_at = replaced_at;
        if resends && now < replaced_at {
            resend_again_at = resend_at;
            if resend_at <= now {
                match self.ask(world, target, now) {
                    Next::Target(at) if at <= now => return Next::Target(at),
                    Next::Target(at) | Next::Client(at) => resend_again_at = at,
                }
            }
        }
        let code = self.notes[target].code.as_ref();
        match code.filter(|code| code.guesses < guesses_per_code) {
            Some(_) => self.guess(world, target, now),
            // Before this the same code would come again: unless it is exhausted.
            None if guesses_per_code < world.policy.max_attempts && now < replaced_at => {
                Next::Target(resend_again_at.min(replaced_at))
            }
            None => self.ask(world, target, now),
        }
    }

    /// Requests a code.
    fn ask(&mut self, world: &mut World, target: usize, now: Timestamp) -> Next {
        let name = RateLimitKind::IpSendsPerHour;
        let client = match self.client_with_room(world, name, target, now) {
            Ok(client) => client,
            Err(at) => return Next::Client(at),
        };
        match world.send(target, client, now) {
            Ok(sent) => {
                let notes = &mut self.notes[target];
                notes.resend_at = Some(sent.resend_at);
                let known = notes.code.take();
                let same = known.filter(|code| code.challenge == sent.challenge);
                notes.code = same.or_else(|| {
                    Some(KnownCode {
                        challenge: sent.challenge,
                        expires_at: sent.expires_at,
                        wrong: wrong(&sent.code?),
                        guesses: 0,
                    })
                });
                Next::Target(now)
            }
            Err(Refusal::ResendTooSoon { wait, .. }) => self.after(now, now.saturating_add(wait)),
            Err(Refusal::Blocked(block)) => {
                // The code is to be there when the wait ends.
                let soonest = block
                    .until
                    .saturating_sub(world.policy.code_ttl)
                    .saturating_add(TICK);
                self.after(now, soonest.max(now.saturating_add(TICK)))
            }
            Err(Refusal::SendLimit(exceeded)) if exceeded.limit == name => {
                let key = (name, world.caller(target), client);
                self.room_at.insert(key, now.saturating_add(exceeded.wait));
                Next::Target(now)
            }
            Err(Refusal::SendLimit(exceeded)) => self.after(now, now.saturating_add(exceeded.wait)),
            Err(refusal) => unreachable!("{refusal:?}"),
        }
    }

    /// Guesses at the code that he knows of.
    fn guess(&mut self, world: &mut World, target: usize, now: Timestamp) -> Next {
        let name = RateLimitKind::IpFailuresPerHour;
        let client = match self.client_with_room(world, name, target, now) {
            Ok(client) => client,
            Err(at) => return Next::Client(at),
        };
        let notes = &mut self.notes[target];
        let code = notes.code.as_mut().expect("there is a code to guess at");
        match world.verify(target, client, &code.wrong, now) {
            Ok(VerifyOutcome::WrongCode { .. }) => {
                code.guesses += 1;
                notes.since_login += 1;
                Next::Target(now)
            }
            Ok(VerifyOutcome::Verified { .. }) => unreachable!("he guesses wrong"),
            Ok(_) => {
                notes.code = None;
                Next::Target(now)
            }
            Err(Refusal::Blocked(block)) => self.after(now, block.until),
            Err(Refusal::VerifyLimit(exceeded)) => {
                let key = (name, world.caller(target), client);
                self.room_at.insert(key, now.saturating_add(exceeded.wait));
                Next::Target(now)
            }
            Err(refusal) => unreachable!("{refusal:?}"),
        }
    }

    /// Keeps out of the victim's way; `None`: he may go on guessing.
    fn make_use_of_login(
        &mut self,
        world: &mut World,
        target: usize,
        logins: AroundLogins,
        now: Timestamp,
    ) -> Option<Next> {
        let notes = &mut self.notes[target];
        let successes = world.targets[target].successes;
        if notes.logins_seen < successes {
            *notes = Notes {
                logins_seen: successes,
                ..Notes::default()
            };
        }
        let next_login = logins.schedule.next(now);
        let last_login = logins.schedule.last(now);
        let asked = last_login.is_some_and(|login| now.saturating_sub(TICK) == login);
        let trying = last_login.is_some_and(|login| {
            now < login.saturating_add(PATIENCE)
                && notes.logins_seen == successes
                && notes.waits_for_her
        });
        let may_guess = notes.since_login < logins.guesses
            && now.saturating_add(logins.stops_before) < next_login;
        if may_guess && !asked && !trying {
            notes.waits_for_her = false;
            return None;
        }
        notes.waits_for_her = true;
        if asked && let Some(code) = world.live_code(target, now).map(wrong) {
            for _ in 0..logins.at_her_code {
                let client = self.clients[0];
                if world.verify(target, client, &code, now).is_err() {
                    break;
                }
            }
        }
        // She is still trying, or he waits for the next time.
        let soonest = if trying || asked {
            now.saturating_add(LOOKING)
        } else {
            next_login.saturating_add(TICK)
        };
        Some(Next::Target(soonest))
    }

    /// An address that no limit is known to refuse, or when there will be one.
    fn client_with_room(
        &self,
        world: &World,
        name: RateLimitKind,
        target: usize,
        now: Timestamp,
    ) -> Result<Client, Timestamp> {
        let room_at = |client: &Client| {
            let key = (name, world.caller(target), *client);
            self.room_at.get(&key).copied().unwrap_or(now)
        };
        let soonest = self.clients.iter().min_by_key(|client| room_at(client));
        let client = soonest.expect("he has an address");
        let room_at = room_at(client);
        if room_at <= now {
            Ok(*client)
        } else {
            Err(room_at)
        }
    }

    /// The next try after a refusal that lasts until then.
    fn after(&self, now: Timestamp, until: Timestamp) -> Next {
        let wait = now.duration_until(until);
        let wait = if self.plan.knocks { wait / 2 } else { wait };
        Next::Target(now.saturating_add(wait.max(TICK)))
    }
}
