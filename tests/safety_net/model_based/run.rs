//! Runs one sequence on the server and the model.

use std::{collections::HashMap, fmt::Write as _};

use otpd_model::{Call, Codes, Command, Model, Observed, RecordId};

use super::{
    step::{Named, Step, Typed, Whose},
    world::{ClockMode, World},
};
/// Maximum number of possible states; no sequence has come near it, and others are dropped.
const MAX_STATES: usize = 64;

/// State of one sequence.
pub struct Run<'a> {
    world: &'a mut World,
    /// Number of the sequence: part of its recipients and networks, which no other sequence has.
    number: u64,
    states: Vec<Model>,
    codes: Codes,
    /// All returned challenges by record, the newest last.
    challenges: HashMap<RecordId, Vec<String>>,
    calls: Vec<Call>,
    transcript: String,
}

/// Numbers of a run.
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

    /// Runs `steps`.
    ///
    /// # Errors
    /// All calls and replies up to the first reply that the rules do not allow.
    pub async fn all(mut self, steps: &[Step], counts: &mut Counts) -> Result<(), String> {
        counts.sequences += 1;
        for step in steps {
            match step.clone() {
                Step::Wait { milliseconds } => {
                    counts.clock_moves += 1;
                    self.move_clock(self.world.now() + i64::from(milliseconds))
                        .await;
                }
                Step::WaitUntil {
                    whose,
                    edge,
                    offset,
                } => {
                    if let Some(at) = self.boundary(whose, edge, offset) {
                        counts.clock_moves += 1;
                        self.move_clock(at).await;
                    }
                }
                Step::ClockBack { milliseconds } => {
                    if self.world.clock_mode == ClockMode::StepsBack {
                        counts.steps_back += 1;
                        self.move_clock(self.world.now() - i64::from(milliseconds))
                            .await;
                    }
                }
                Step::Rotate => self.world.rotate().await,
                Step::Again { back, replica } => {
                    if let Some(call) = self.calls.iter().nth_back(usize::from(back)).cloned() {
                        counts.calls += 1;
                        self.call(call, replica).await?;
                    }
                }
                step => {
                    counts.calls += 1;
                    let (call, replica) = self.prepare(step);
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
        let (observed, now) = self.world.call(&call, replica).await;
        writeln!(
            self.transcript,
            "{now:?} replica {replica}: {call:?}\n    {observed:?}"
        )
        .expect("writing to a string cannot fail");
        let settings = &self.world.settings;
        let mut states = Vec::new();
        for state in &self.states {
            for after in state.successors(settings, &self.codes, &call, now, Some(&observed)) {
                if !states.contains(&after) {
                    states.push(after);
                }
            }
        }
        states.truncate(MAX_STATES);
        if states.is_empty() {
            return Err(format!(
                "the rules do not allow the last reply:\n{}\nthe state of the model: {:#?}",
                self.transcript, self.states
            ));
        }
        self.states = states;
        if let Observed::Sent {
            challenge, code, ..
        } = observed
        {
            let caller = &settings.callers[call.record.caller];
            let code = if caller.self_delivery || self.codes.contains_key(&challenge) {
                code
            } else {
                self.world.delivered_code(&challenge).await
            };
            // The replayed reply of a dead code has no code.
            if !code.is_empty() {
                self.codes.insert(challenge.clone(), code);
            }
            let known = self.challenges.entry(call.record.clone()).or_default();
            if !known.contains(&challenge) {
                known.push(challenge);
            }
        }
        self.calls.push(call);
        Ok(())
    }

    fn record_id(&self, whose: Whose) -> RecordId {
        let settings = &self.world.settings;
        let number = self.number;
        RecordId {
            caller: usize::from(whose.caller) % settings.callers.len(),
            purpose: usize::from(whose.purpose) % settings.policies.len(),
            recipient: match whose.recipient % 2 {
                0 => format!("+7999{number:07}"),
                _ => format!("person-{number}@example.com"),
            },
        }
    }

    /// Returns a time at which a reply about a code changes, or one next to it, if it lies
    /// ahead.
    fn boundary(&self, whose: Whose, edge: u8, offset: i8) -> Option<i64> {
        let record = self.record_id(whose);
        let policy = &self.world.settings.policies[record.purpose];
        let mut boundaries = self.states[0].record(&record)?.boundaries(policy);
        boundaries.retain(|at| self.world.now() + 1 < *at);
        boundaries.sort_unstable();
        let at = boundaries.get(usize::from(edge) % boundaries.len().max(1))?;
        Some(at + i64::from(offset))
    }

    /// Returns the call of a step, and the number of its replica.
    fn prepare(&self, step: Step) -> (Call, u8) {
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
        match step {
            Step::Send {
                whose,
                wording,
                network: from,
                id: key,
                replica,
            } => {
                let record = self.record_id(whose);
                let command = send_command(&record, wording, network(from));
                (
                    Call {
                        record,
                        request_id: id(key),
                        command,
                    },
                    replica,
                )
            }
            Step::Verify {
                whose,
                typed,
                named,
                receipt,
                network: from,
                id: key,
                replica,
            } => {
                let record = self.record_id(whose);
                let command = Command::Verify {
                    code: self.code(&record, typed),
                    challenge: self.challenge(&record, named),
                    network: network(from),
                    receipt: receipt.filter(|_| self.has_receipts(&record)),
                };
                (
                    Call {
                        record,
                        request_id: id(key),
                        command,
                    },
                    replica,
                )
            }
            Step::Cancel {
                whose,
                named,
                reset,
                by_challenge,
                id: key,
                replica,
            } => {
                let (record, challenge, by_challenge) = self.subject(whose, named, by_challenge);
                let command = Command::Cancel {
                    challenge,
                    reset_failures: reset,
                    by_challenge,
                };
                (
                    Call {
                        record,
                        request_id: id(key),
                        command,
                    },
                    replica,
                )
            }
            Step::Status {
                whose,
                named,
                by_challenge,
                replica,
            } => {
                let (record, challenge, by_challenge) = self.subject(whose, named, by_challenge);
                let command = Command::Status {
                    challenge,
                    by_challenge,
                };
                (
                    Call {
                        record,
                        request_id: None,
                        command,
                    },
                    replica,
                )
            }
            other => unreachable!("{other:?} is not a call"),
        }
    }

    fn has_receipts(&self, record: &RecordId) -> bool {
        self.world.settings.callers[record.caller].receipts
    }

    /// Returns the subject of a call that may contain only a challenge id.
    fn subject(&self, whose: Whose, named: Named, alone: bool) -> (RecordId, Option<String>, bool) {
        let mut record = self.record_id(whose);
        let challenge = self.challenge(&record, named);
        // The id of another record would select that record.
        let alone = alone && challenge.is_some() && !matches!(named, Named::OtherRecord);
        if alone && matches!(named, Named::Garbled | Named::Foreign) {
            // The id selects no record of this caller.
            "nobody".clone_into(&mut record.recipient);
        }
        (record, challenge, alone)
    }

    fn challenge(&self, record: &RecordId, named: Named) -> Option<String> {
        let known = self.challenges.get(record).map_or(&[][..], Vec::as_slice);
        match named {
            Named::Nothing => None,
            Named::Newest => known.last().cloned(),
            Named::Previous => known.iter().nth_back(1).cloned(),
            Named::Garbled => Some("garbled".to_owned()),
            Named::Foreign => {
                let foreign = self.newest_of(|other| other.caller != record.caller);
                Some(foreign.unwrap_or_else(|| "Zm9yZWlnbg".to_owned()))
            }
            Named::OtherRecord => {
                self.newest_of(|other| other != record && other.caller == record.caller)
            }
        }
    }

    /// Returns the newest challenge of the last record for which `is_wanted` returns true.
    fn newest_of(&self, is_wanted: impl Fn(&RecordId) -> bool) -> Option<String> {
        let others = self.challenges.iter();
        let last = others
            .filter(|(other, _)| is_wanted(other))
            .max_by_key(|(other, _)| *other);
        last.and_then(|(_, known)| known.last().cloned())
    }

    fn code(&self, record: &RecordId, typed: Typed) -> String {
        let known = self.challenges.get(record).map_or(&[][..], Vec::as_slice);
        let newest = known.last().and_then(|id| self.codes.get(id));
        let length = self.world.settings.policies[record.purpose].code_length;
        let correct = newest.cloned().unwrap_or_else(|| "0".repeat(length));
        let wrong = || {
            let other = if correct.starts_with('9') { "0" } else { "9" };
            format!("{other}{}", &correct[1..])
        };
        match typed {
            Typed::Right => correct,
            Typed::Previous => {
                let previous = known.iter().nth_back(1).and_then(|id| self.codes.get(id));
                previous.cloned().unwrap_or_else(wrong)
            }
            Typed::Wrong => wrong(),
            Typed::TooShort => correct[1..].to_owned(),
            Typed::Malformed => "12345x".to_owned(),
        }
    }
}

/// Returns a send of a code; a phone number is reached by two channels.
fn send_command(record: &RecordId, wording: u8, network: Option<String>) -> Command {
    let is_email = record.recipient.contains('@');
    Command::Send {
        content: wording,
        channel: if is_email { 0 } else { wording % 2 },
        network,
    }
}
