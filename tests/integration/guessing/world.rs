//! Environment of the attacker: the real rules, with records and shared limits in memory
//! and a clock set by the simulation.

use std::{collections::HashMap, time::Duration};

use otpd::keys::os_rng;
use otpd_rules::{
    self, BatchedLimit, CallerName, ChallengeNonce, ChallengeSelector, Channel, Decision, OtpCode,
    Purpose, PurposePolicy, RateLimitKind, RateLimitState, Recipient, Record, Refusal,
    RequestFingerprint, SendOutcome, SendRequest, SubmittedCode, Timestamp, VerifyOutcome,
    VerifyRequest,
};

/// Start of every simulation.
pub const START: Timestamp = Timestamp::from_milliseconds(1_800_000_000_000);
pub const DAY: Duration = Duration::from_hours(24);
pub const MONTH: Duration = Duration::from_hours(30 * 24);
pub const YEAR: Duration = Duration::from_hours(365 * 24);

/// An address from which requests come; the limits per client count by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(pub u32);

/// One record as the attacker sees it, with his actions on it.
#[derive(Debug)]
pub struct Target {
    caller: u32,
    purpose: Purpose,
    recipient: Recipient,
    record: Option<Record>,
    /// Times of all checked guesses; all of them were wrong.
    pub judged_at: Vec<Timestamp>,
    /// Number of guesses at each code, in order.
    guesses: Vec<(ChallengeNonce, u32)>,
    /// Messages that reached the victim, her own included.
    pub messages: u32,
    /// Number of logins of the victim.
    pub successes: u32,
}

impl Target {
    pub fn new(caller: u32, recipient: u32, purpose: u32) -> Self {
        Self {
            caller,
            purpose: Purpose::parse(&format!("purpose-{purpose}")).expect("it is a purpose"),
            recipient: Recipient::from_canonical(format!("+7999{recipient:07}")),
            record: None,
            judged_at: Vec::new(),
            guesses: Vec::new(),
            messages: 0,
            successes: 0,
        }
    }

    /// The chance that none of the guesses was right: of a code's values each is
    /// guessed once, so `n` guesses at it are right with a chance of exactly `n` in
    /// all its values; and codes know nothing of each other. As a logarithm, since it
    /// is so near to 1.
    pub fn logarithm_of_missing(&self, values: f64) -> f64 {
        self.guesses
            .iter()
            .map(|&(_, guesses)| (-f64::from(guesses) / values).ln_1p())
            .sum()
    }

    /// Returns the largest number of guesses that were checked within 30 days, both ends included.
    pub fn worst_month(&self) -> usize {
        let mut first = 0;
        let mut worst = 0;
        for (last, &judged_at) in self.judged_at.iter().enumerate() {
            while self.judged_at[first].saturating_add(MONTH) < judged_at {
                first += 1;
            }
            worst = worst.max(last + 1 - first);
        }
        worst
    }
}

/// Records, limits and policy.
#[derive(Debug)]
pub struct World {
    pub policy: PurposePolicy,
    pub targets: Vec<Target>,
    limits: HashMap<(RateLimitKind, u32, Client), Timestamp>,
    requests: u128,
}

impl World {
    pub fn new(policy: PurposePolicy, targets: Vec<Target>) -> Self {
        Self {
            policy,
            targets,
            limits: HashMap::new(),
            requests: 0,
        }
    }

    /// Returns the caller of a target, whose limits a client shares.
    pub fn caller(&self, target: usize) -> u32 {
        self.targets[target].caller
    }

    pub fn send(
        &mut self,
        target: usize,
        client: Client,
        now: Timestamp,
    ) -> Result<SendOutcome, Refusal> {
        let limit = self.limit(target, RateLimitKind::IpSendsPerHour, client);
        let identity = self.identity();
        let Target {
            caller,
            purpose,
            recipient,
            record,
            ..
        } = &self.targets[target];
        let request = SendRequest {
            identity,
            caller: CallerName::new(format!("caller-{caller}")),
            recipient: recipient.clone(),
            purpose: purpose.clone(),
            channel: Channel::Sms,
            test: None,
            barred: None,
            message: None,
            keeps_channels: false,
        };
        let random = &mut os_rng();
        let decision = otpd_rules::send(
            record.clone(),
            limit.as_slice(),
            &request,
            &self.policy,
            now,
            random,
        );
        let sent = self.commit(target, RateLimitKind::IpSendsPerHour, client, decision, now);
        self.targets[target].messages += u32::from(sent.is_ok());
        sent
    }

    pub fn verify(
        &mut self,
        target: usize,
        client: Client,
        code: &SubmittedCode,
        now: Timestamp,
    ) -> Result<VerifyOutcome, Refusal> {
        let limit = self.limit(target, RateLimitKind::IpFailuresPerHour, client);
        let identity = self.identity();
        let request = VerifyRequest {
            identity,
            code: code.clone(),
            challenge: ChallengeSelector::Newest,
            receipt: false,
        };
        let record = self.targets[target].record.clone();
        let decision = otpd_rules::verify(record, limit.as_slice(), &request, &self.policy, now);
        let verdict = self.commit(
            target,
            RateLimitKind::IpFailuresPerHour,
            client,
            decision,
            now,
        );
        let target = &mut self.targets[target];
        match verdict {
            Ok(VerifyOutcome::WrongCode { challenge, .. }) => {
                target.judged_at.push(now);
                match target.guesses.last_mut() {
                    Some((code, guesses)) if *code == challenge => *guesses += 1,
                    _ => target.guesses.push((challenge, 1)),
                }
            }
            Ok(VerifyOutcome::Verified { .. }) => target.successes += 1,
            _ => {}
        }
        verdict
    }

    /// The code that lies in the victim's inbox, if it is still good.
    pub fn live_code(&self, target: usize, now: Timestamp) -> Option<&OtpCode> {
        let record = self.targets[target].record.as_ref()?;
        let secret = record.challenge.live_secret(&self.policy, now)?;
        Some(&secret.code)
    }

    /// The limit of one client with one caller, unless it is off.
    fn limit(&self, target: usize, name: RateLimitKind, client: Client) -> Option<RateLimitState> {
        let key = (name, self.caller(target), client);
        Some(RateLimitState {
            name,
            rate: self.policy.rate(name)?,
            full_at: self.limits.get(&key).copied(),
            paid: false,
        })
    }

    fn identity(&mut self) -> RequestFingerprint {
        self.requests += 1;
        RequestFingerprint {
            id: self.requests.to_le_bytes(),
            fields: [0; 16],
            writer: 0,
            named: false,
        }
    }

    fn commit<T>(
        &mut self,
        target: usize,
        name: RateLimitKind,
        client: Client,
        decision: Decision<T>,
        now: Timestamp,
    ) -> T {
        if let Some(record) = decision.record {
            self.targets[target].record = Some(record);
        }
        let key = (name, self.caller(target), client);
        let limit = self.limit(target, name, client);
        let update = limit.and_then(|limit| decision.rate_limits.update(&limit, now));
        if let Some(update) = update {
            let full_at = self.limits.entry(key).or_insert(now);
            let mut batched = BatchedLimit::new(*full_at);
            batched.update(update, now);
            *full_at = batched.full_at;
        }
        decision.outcome
    }
}

/// A code of as many digits as `code` that is another one.
pub fn wrong(code: &OtpCode) -> SubmittedCode {
    let (first, rest) = code.expose().split_at(1);
    let other = if first == "0" { "1" } else { "0" };
    SubmittedCode::parse(&format!("{other}{rest}")).expect("these are digits")
}

/// Returns the code that the owner reads and types.
pub fn right(code: &OtpCode) -> SubmittedCode {
    SubmittedCode::parse(code.expose()).expect("these are digits")
}
