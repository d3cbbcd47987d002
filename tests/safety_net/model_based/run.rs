//! Runs one sequence on server and model.

use std::{collections::HashMap, fmt::Write as _};

use super::{
    command::{Command, Named, Typed, Whose},
    world::{Upset, World},
};
use crate::model::{Ask, Call, Codes, Model, Name, Told};

/// More states than this at once are never met; the newest are dropped.
const MOST_STATES: usize = 64;

/// State of one sequence.
pub struct Run<'a> {
    world: &'a mut World,
    /// Makes recipients and networks that no other sequence had.
    number: u64,
    states: Vec<Model>,
    codes: Codes,
    /// All returned challenges by record, the newest last.
    challenges: HashMap<Name, Vec<String>>,
    calls: Vec<Call>,
    transcript: String,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sequences: u64,
    pub calls: u64,
    pub clock_moves: u64,
    pub steps_back: u64,
}

impl<'a> Run<'a> {
    pub fn new(world: &'a mut World, number: u64) -> Self {
        Self {
            world,
            number,
            states: vec![Model::default()],
            codes: Codes::new(),
            challenges: HashMap::new(),
            calls: Vec::new(),
            transcript: String::new(),
        }
    }

    /// Runs `commands`.
    ///
    /// # Errors
    /// Every call and answer up to the first one that the rules do not allow.
    pub async fn all(mut self, commands: &[Command], counts: &mut Counts) -> Result<(), String> {
        counts.sequences += 1;
        for command in commands {
            match command.clone() {
                Command::Wait { milliseconds } => {
                    counts.clock_moves += 1;
                    self.move_clock(self.world.now() + i64::from(milliseconds))
                        .await;
                }
                Command::WaitUntil {
                    whose,
                    edge,
                    offset,
                } => {
                    if let Some(at) = self.edge(whose, edge, offset) {
                        counts.clock_moves += 1;
                        self.move_clock(at).await;
                    }
                }
                Command::StepBack { milliseconds } => {
                    if self.world.upset == Upset::StepsBack {
                        counts.steps_back += 1;
                        self.move_clock(self.world.now() - i64::from(milliseconds))
                            .await;
                    }
                }
                Command::Rotate => self.world.rotate().await,
                Command::Again { back, replica } => {
                    if let Some(call) = self.calls.iter().nth_back(usize::from(back)).cloned() {
                        counts.calls += 1;
                        self.call(call, replica).await?;
                    }
                }
                command => {
                    counts.calls += 1;
                    let (call, replica) = self.prepare(command);
                    self.call(call, replica).await?;
                }
            }
        }
        Ok(())
    }

    async fn move_clock(&mut self, to: i64) {
        writeln!(self.transcript, "clock to {to}").expect("writing to a string cannot fail");
        self.world.set_clock(to).await;
    }

    /// Makes a call on the server and in the model.
    async fn call(&mut self, call: Call, replica: u8) -> Result<(), String> {
        let (told, now) = self.world.call(&call, replica).await;
        writeln!(
            self.transcript,
            "{now:?} replica {replica}: {call:?}\n    {told:?}"
        )
        .expect("writing to a string cannot fail");
        let settings = &self.world.settings;
        let mut states = Vec::new();
        for state in &self.states {
            for after in state.after(settings, &self.codes, &call, now, Some(&told)) {
                if !states.contains(&after) {
                    states.push(after);
                }
            }
        }
        states.truncate(MOST_STATES);
        if states.is_empty() {
            return Err(format!(
                "the rules do not allow the last answer:\n{}\nthe model's state: {:#?}",
                self.transcript, self.states
            ));
        }
        self.states = states;
        if let Told::Sent {
            challenge, code, ..
        } = told
        {
            // A replay of a dead code's answer has none.
            if !code.is_empty() {
                self.codes.insert(challenge.clone(), code);
            }
            let known = self.challenges.entry(call.name.clone()).or_default();
            if !known.contains(&challenge) {
                known.push(challenge);
            }
        }
        self.calls.push(call);
        Ok(())
    }

    fn name(&self, whose: Whose) -> Name {
        let settings = &self.world.settings;
        let number = self.number;
        Name {
            caller: usize::from(whose.caller) % settings.callers.len(),
            purpose: usize::from(whose.purpose) % settings.policies.len(),
            recipient: match whose.recipient % 2 {
                0 => format!("+7999{number:07}"),
                _ => format!("person-{number}@example.com"),
            },
        }
    }

    /// The instant at which an answer about a code changes, or one next to it; only if
    /// that is ahead.
    fn edge(&self, whose: Whose, edge: u8, offset: i8) -> Option<i64> {
        let name = self.name(whose);
        let policy = &self.world.settings.policies[name.purpose];
        let mut edges = self.states[0].record(&name)?.edges(policy);
        edges.retain(|at| self.world.now() + 1 < *at);
        edges.sort_unstable();
        let at = edges.get(usize::from(edge) % edges.len().max(1))?;
        Some(at + i64::from(offset))
    }

    /// The call that a command means now.
    fn prepare(&self, command: Command) -> (Call, u8) {
        let id = |id: Option<u8>| id.map(|id| format!("{}-{id}", self.number));
        let network = |network: Option<u8>| {
            // Two networks of a site that no other sequence has (RFC 9637).
            let number = self.number;
            Some(format!(
                "3fff:{:x}:{:x}:{}",
                number >> 16 & 0xfff,
                number & 0xffff,
                network? % 2
            ))
        };
        match command {
            Command::Send {
                whose,
                wording,
                network: from,
                id: key,
                replica,
            } => {
                let ask = Ask::Send {
                    wording,
                    network: network(from),
                };
                (
                    Call {
                        name: self.name(whose),
                        id: id(key),
                        ask,
                    },
                    replica,
                )
            }
            Command::Verify {
                whose,
                typed,
                named,
                network: from,
                id: key,
                replica,
            } => {
                let name = self.name(whose);
                let ask = Ask::Verify {
                    typed: self.typed(&name, typed),
                    challenge: self.challenge(&name, named),
                    network: network(from),
                };
                (
                    Call {
                        name,
                        id: id(key),
                        ask,
                    },
                    replica,
                )
            }
            Command::Cancel {
                whose,
                named,
                reset,
                by_challenge,
                id: key,
                replica,
            } => {
                let (name, challenge, by_challenge) = self.subject(whose, named, by_challenge);
                let ask = Ask::Cancel {
                    challenge,
                    reset,
                    by_challenge,
                };
                (
                    Call {
                        name,
                        id: id(key),
                        ask,
                    },
                    replica,
                )
            }
            Command::Status {
                whose,
                named,
                by_challenge,
                replica,
            } => {
                let (name, challenge, by_challenge) = self.subject(whose, named, by_challenge);
                let ask = Ask::Status {
                    challenge,
                    by_challenge,
                };
                (
                    Call {
                        name,
                        id: None,
                        ask,
                    },
                    replica,
                )
            }
            other => unreachable!("{other:?} is no call"),
        }
    }

    /// Returns the subject of a call that may contain only a challenge id.
    fn subject(&self, whose: Whose, named: Named, alone: bool) -> (Name, Option<String>, bool) {
        let mut name = self.name(whose);
        let challenge = self.challenge(&name, named);
        let alone = alone && challenge.is_some();
        if alone && matches!(named, Named::Garbled | Named::Foreign) {
            // It finds no record of this caller.
            "nobody".clone_into(&mut name.recipient);
        }
        (name, challenge, alone)
    }

    fn challenge(&self, name: &Name, named: Named) -> Option<String> {
        let known = self.challenges.get(name).map_or(&[][..], Vec::as_slice);
        match named {
            Named::Nothing => None,
            Named::Newest => known.last().cloned(),
            Named::Previous => known.iter().nth_back(1).cloned(),
            Named::Garbled => Some("garbled".to_owned()),
            Named::Foreign => {
                let others = self.challenges.iter();
                let mut others = others.filter(|(other, _)| other.caller != name.caller);
                let foreign = others.next().and_then(|(_, known)| known.last().cloned());
                Some(foreign.unwrap_or_else(|| "Zm9yZWlnbg".to_owned()))
            }
        }
    }

    fn typed(&self, name: &Name, typed: Typed) -> String {
        let known = self.challenges.get(name).map_or(&[][..], Vec::as_slice);
        let newest = known.last().and_then(|name| self.codes.get(name));
        let length = self.world.settings.policies[name.purpose].code_length;
        let right = newest.cloned().unwrap_or_else(|| "0".repeat(length));
        let wrong = || {
            let other = if right.starts_with('9') { "0" } else { "9" };
            format!("{other}{}", &right[1..])
        };
        match typed {
            Typed::Right => right,
            Typed::Previous => {
                let previous = known
                    .iter()
                    .nth_back(1)
                    .and_then(|name| self.codes.get(name));
                previous.cloned().unwrap_or_else(wrong)
            }
            Typed::Wrong => wrong(),
            Typed::TooShort => right[1..].to_owned(),
            Typed::Malformed => "12345x".to_owned(),
        }
    }
}
