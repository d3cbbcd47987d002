//! Writes tests/corpus/rules.json: sequences of calls with the replies of the model. A fake of
//! otpd in another language replays them without a server.
//!
//! Challenges have the ids `challenge-1`, `challenge-2` and so on, in the order of their first
//! sends. Times are in milliseconds since the start of the sequence. Codes are chosen by the
//! fake, so that a request has a challenge and a variant of its code instead.

mod values;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
};

use otpd_model::{
    Call, Caller, Codes, Command, Model, Observed, Policy, RecordId, SECOND, Settings, TimeRange,
};
use serde_json::{Map, Value, json};

use crate::{dice::Dice, support::pages};

const FILE: &str = "tests/corpus/rules.json";
const COMMAND: &str = "UPDATE_DOCS=1 cargo test --test safety_net golden_vectors";
/// Number of sequences of each policy.
const SEQUENCES: u64 = 6;
const STEPS: usize = 30;
/// 2030-01-01, in milliseconds since the Unix epoch.
const START: i64 = 1_893_456_000_000;
const PURPOSES: [&str; 2] = ["default", "login"];
const RECIPIENTS: [&str; 2] = ["+79991234567", "ann@example.com"];

/// All outcomes and all reasons of the rules.
const RESULTS: [&str; 14] = [
    "CODE_MALFORMED",
    "REQUEST_INVALID",
    "RESEND_TOO_SOON",
    "SEND_LIMIT",
    "VERIFY_DELAYED",
    "VERIFY_LIMIT",
    "VERIFY_LOCKED",
    "attempts_exhausted",
    "expired",
    "not_found",
    "resent",
    "sent",
    "verified",
    "wrong_code",
];

#[test]
fn golden_vectors_match_the_model() {
    let policies = [
        Policy::DEFAULT,
        Policy::TIGHT,
        Policy::NAMED,
        // A lockout before any delay.
        Policy {
            failure_limit: 4,
            ..Policy::DEFAULT
        },
        // Delays that end before the code expires, and low limits on failed attempts.
        Policy {
            max_attempts: 3,
            failure_delay: SECOND,
            ip_failures_per_hour: 4,
            ip_site_failures_per_hour: 5,
            ..Policy::DEFAULT
        },
    ];
    let mut results = BTreeSet::new();
    let mut lines = Vec::new();
    for (number, policy) in (0..).zip(&policies) {
        for part in 0..SEQUENCES {
            let dice = Dice::new(20_261_201).part(number * SEQUENCES + part);
            // Every second one is an attack on one record: mostly wrong codes.
            let is_attack = part % 2 == 1;
            let steps = Sequence::new(policy, dice, is_attack).steps(&mut results);
            lines.push(sequence(policy, &steps));
        }
    }
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    pages::hold_to(FILE, COMMAND, &text);
    assert_eq!(Vec::from_iter(results), RESULTS);
}

/// Formats a sequence, with one step in each line.
fn sequence(policy: &Policy, steps: &[Value]) -> String {
    let mut text = format!("  {{\"policy\": {}, \"steps\": [\n", values::policy(policy));
    for (number, step) in (1..).zip(steps) {
        let comma = if number < steps.len() { "," } else { "" };
        writeln!(text, "    {step}{comma}").expect("writing to a string cannot fail");
    }
    text + "  ]}"
}

/// State of one sequence.
struct Sequence {
    settings: Settings,
    dice: Dice,
    is_attack: bool,
    now: i64,
    model: Model,
    codes: Codes,
    /// All challenges by record; the newest is last.
    challenges: HashMap<RecordId, Vec<String>>,
    /// Calls with a request id, and their values.
    repeatable: Vec<(Call, Value)>,
}

impl Sequence {
    fn new(policy: &Policy, dice: Dice, is_attack: bool) -> Self {
        let caller = Caller {
            name: "caller",
            is_configured: true,
            may_reset_failures: true,
            self_delivery: true,
            receipts: false,
            purposes: &[0, 1],
        };
        Self {
            settings: Settings {
                callers: vec![caller],
                policies: vec![policy.clone(); PURPOSES.len()],
                concurrent: false,
            },
            dice,
            is_attack,
            now: START,
            model: Model::default(),
            codes: Codes::new(),
            challenges: HashMap::new(),
            repeatable: Vec::new(),
        }
    }

    fn steps(mut self, results: &mut BTreeSet<&'static str>) -> Vec<Value> {
        (0..STEPS).map(|_| self.step(results)).collect()
    }

    /// Makes one call, and returns its request with the reply.
    fn step(&mut self, results: &mut BTreeSet<&'static str>) -> Value {
        let record = RecordId {
            caller: 0,
            purpose: usize::from(!self.is_attack && self.dice.percent(15)),
            recipient: RECIPIENTS[usize::from(!self.is_attack && self.dice.percent(15))].to_owned(),
        };
        self.move_clock(&record);
        let (call, request) = if self.dice.percent(10) && !self.repeatable.is_empty() {
            let last = self.repeatable.len() - 1;
            self.repeatable[last - self.dice.below(self.repeatable.len().min(4))].clone()
        } else {
            self.call(record)
        };
        let reply = self
            .model
            .reply(&self.settings, &self.codes, &call, self.now);
        let known = self.challenges.get(&call.record);
        let issued = self.challenges.values().map(Vec::len).sum();
        let (observed, value) = values::observed(
            &reply,
            (known.map_or(&[], Vec::as_slice), issued),
            |challenge| self.codes.get(challenge).cloned(),
            self.settings.policies[call.record.purpose].code_length,
            results,
        );
        let mut successors = self.model.successors(
            &self.settings,
            &self.codes,
            &call,
            TimeRange::exact(self.now),
            Some(&observed),
        );
        assert_eq!(successors.len(), 1, "the model explains its own reply");
        self.model = successors.remove(0);
        if let Observed::Sent {
            challenge, code, ..
        } = observed
            && !code.is_empty()
        {
            self.codes.insert(challenge.clone(), code);
            let known = self.challenges.entry(call.record.clone()).or_default();
            if !known.contains(&challenge) {
                known.push(challenge);
            }
        }
        if call.request_id.is_some() {
            self.repeatable.push((call, request.clone()));
        }
        json!({"at": self.now - START, "request": request, "reply": value})
    }

    /// Moves the clock to a time at which a reply changes, or next to it, or by any time.
    fn move_clock(&mut self, record: &RecordId) {
        let policy = &self.settings.policies[record.purpose];
        let boundaries = self.model.record(record);
        let boundaries = boundaries.map_or_else(Vec::new, |record| record.boundaries(policy));
        let ahead: Vec<i64> = boundaries
            .into_iter()
            .filter(|at| self.now < at - 1)
            .collect();
        match self.dice.below(10) {
            0..6 => {}
            6..8 if !ahead.is_empty() => {
                let at = ahead[self.dice.below(ahead.len())];
                // A wait of weeks ends all other states.
                if at - self.now < 3 * otpd_model::DAY || self.dice.percent(5) {
                    self.now = at - 1 + i64::try_from(self.dice.below(3)).expect("small");
                }
            }
            _ => {
                let longest = [1, 60, 90, 400][self.dice.below(4)];
                self.now += i64::try_from(self.dice.below(longest * 1_000)).expect("minutes");
            }
        }
    }

    fn call(&mut self, record: RecordId) -> (Call, Value) {
        let request_id = self
            .dice
            .percent(40)
            .then(|| format!("request-{}", self.dice.below(5)));
        let mut request = Map::new();
        let command = match self.dice.below(if self.is_attack { 16 } else { 20 }) {
            0..4 => {
                let network = self.network(&mut request);
                request.insert("call".to_owned(), "send".into());
                Command::Send {
                    content: 0,
                    channel: 0,
                    network,
                }
            }
            4..16 => {
                let network = self.network(&mut request);
                request.insert("call".to_owned(), "verify".into());
                let code = self.code(&record, &mut request);
                Command::Verify {
                    code,
                    challenge: self.challenge(&record, &mut request),
                    network,
                    receipt: None,
                }
            }
            16..18 => {
                let reset_failures = self.dice.percent(50);
                request.insert("call".to_owned(), "cancel".into());
                request.insert("reset_failures".to_owned(), reset_failures.into());
                Command::Cancel {
                    challenge: self.challenge(&record, &mut request),
                    reset_failures,
                    by_challenge: false,
                }
            }
            _ => {
                request.insert("call".to_owned(), "status".into());
                Command::Status {
                    challenge: self.challenge(&record, &mut request),
                    by_challenge: false,
                }
            }
        };
        request.insert("recipient".to_owned(), record.recipient.clone().into());
        request.insert("purpose".to_owned(), PURPOSES[record.purpose].into());
        let request_id = request_id.filter(|_| !matches!(command, Command::Status { .. }));
        if let Some(id) = &request_id {
            request.insert("request_id".to_owned(), id.clone().into());
        }
        let call = Call {
            record,
            request_id,
            command,
        };
        (call, request.into())
    }

    fn network(&mut self, request: &mut Map<String, Value>) -> Option<String> {
        let network = match self.dice.below(6) {
            0..3 => "3fff:1:2:1",
            3 => "3fff:1:2:2",
            _ => return None,
        };
        let address = format!("{network}::{:x}", 1 + self.dice.below(9));
        request.insert("client_ip".to_owned(), address.into());
        Some(network.to_owned())
    }

    fn challenge(&mut self, record: &RecordId, request: &mut Map<String, Value>) -> Option<String> {
        let known = self.challenges.get(record).map_or(&[][..], Vec::as_slice);
        let challenge = match self.dice.below(8) {
            _ if self.is_attack => known.last().cloned(),
            0..4 => None,
            4..6 => known.last().cloned(),
            6 => known.iter().nth_back(1).cloned(),
            _ => Some("unknown".to_owned()),
        };
        if let Some(challenge) = &challenge {
            request.insert("challenge_id".to_owned(), challenge.clone().into());
        }
        challenge
    }

    /// Returns a submitted code. Its value in the request is a challenge and a variant.
    fn code(&mut self, record: &RecordId, request: &mut Map<String, Value>) -> String {
        let known = self.challenges.get(record).map_or(&[][..], Vec::as_slice);
        let Some(newest) = known.last() else {
            request.insert("code".to_owned(), "123456".into());
            return "123456".to_owned();
        };
        let (challenge, variant) = match self.dice.below(if self.is_attack { 40 } else { 10 }) {
            0..2 => (newest, "correct"),
            2 => (known.iter().nth_back(1).unwrap_or(newest), "correct"),
            3 => (newest, "short"),
            _ => (newest, "wrong"),
        };
        request.insert("code_of".to_owned(), challenge.clone().into());
        request.insert("code_variant".to_owned(), variant.into());
        let code = &self.codes[challenge];
        match variant {
            "correct" => code.clone(),
            "short" => code[1..].to_owned(),
            // Another first digit, which no code of a challenge has.
            _ => format!("9{}", &code[1..]),
        }
    }
}
