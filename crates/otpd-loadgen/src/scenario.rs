//! One pair: SendOtp, then VerifyOtp of the code.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tonic::Status;

use super::{
    codes::{self, CodeSource},
    connection::LoadConnection,
    invariants::InvariantChecker,
    load::PairStart,
    recipients::{RecipientSupply, TestUser},
    stats::{self, CallKind, Stats},
};
use otpd_contract::v1::{
    SendOtpRequest, SendOtpResponse, VerifyOtpRequest, VerifyOtpResponse, VerifyOutcome,
};

/// How long a pair waits for its code in the logs: longer than a message should ever
/// take to be handed over.
const CODE_PATIENCE: Duration = Duration::from_secs(10);

/// What a code is counted as that no log told in time.
const CODE_NOT_SEEN: &str = "CODE_NOT_SEEN";

/// A share of pairs, evenly spread.
#[derive(Debug)]
pub struct PairShare {
    share: f64,
    number: AtomicU64,
}

impl PairShare {
    /// From 0, none, to 1, all.
    pub fn new(share: f64) -> Self {
        Self {
            share,
            number: AtomicU64::new(0),
        }
    }

    /// Whether the next one is of the share.
    #[expect(clippy::cast_precision_loss, reason = "nobody waits for 2^53 pairs")]
    pub fn next(&self) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed) as f64;
        (self.share * (number + 1.0)).floor() > (self.share * number).floor()
    }
}

/// What pairs have in common.
#[derive(Debug)]
pub struct PairScenario {
    /// To the servers, in turn.
    pub connections: Vec<LoadConnection>,
    /// Whom codes are for.
    pub recipients: RecipientSupply,
    /// Where codes come from.
    pub codes: CodeSource,
    /// What codes are for.
    pub purpose: String,
    /// In which pairs a wrong code comes first.
    pub wrong: PairShare,
    /// What has been counted.
    pub tally: Stats,
    /// What verdicts are held against.
    pub rules: InvariantChecker,
}

impl PairScenario {
    /// The connection for the first call of a pair, and those for later ones. The next
    /// one is to another server, so that what one wrote another one reads.
    pub fn connection(&self, start: PairStart, call: usize) -> &LoadConnection {
        &self.connections[(start.lane + call) % self.connections.len()]
    }

    /// Runs a pair to its end.
    pub async fn run(&self, start: PairStart) {
        let verified = self.verify_what_is_sent(start).await;
        self.tally.ended(verified, start.counted);
    }

    async fn verify_what_is_sent(&self, start: PairStart) -> bool {
        let person = self.recipients.next();
        let sent = self
            .connection(start, 0)
            .send(self.send_request(&person))
            .await;
        let reply = match sent {
            Ok(reply) => reply,
            Err(status) => return self.failed(&status, start),
        };
        if start.counted {
            self.tally
                .answered(CallKind::Send, start.planned.elapsed(), None);
        }
        let Some(code) = self.code(&reply, start).await else {
            return false;
        };
        if self.wrong.next() {
            let wrong = codes::wrong(&code);
            match self.verify(&person, wrong, start).await {
                Ok(VerifyOutcome::WrongCode) => {}
                Ok(VerifyOutcome::Verified) => {
                    self.rules.wrong_code_verified(&reply.challenge_id);
                    return false;
                }
                Ok(_) => return false,
                Err(status) => return self.failed(&status, start),
            }
        }
        match self.verify(&person, code, start).await {
            Ok(outcome) => outcome == VerifyOutcome::Verified,
            Err(status) => self.failed(&status, start),
        }
    }

    /// The code that was sent; that there is none in time is a failure.
    async fn code(&self, reply: &SendOtpResponse, start: PairStart) -> Option<String> {
        let code = self.codes.of(reply, CODE_PATIENCE).await;
        if code.is_none() {
            self.tally.failed(CODE_NOT_SEEN, start.counted);
        }
        code
    }

    async fn verify(
        &self,
        person: &TestUser,
        code: String,
        start: PairStart,
    ) -> Result<VerifyOutcome, Status> {
        let request = self.verify_request(person, code);
        let begin = Instant::now();
        let reply = self.connection(start, 1).verify(request).await?;
        if start.counted {
            let outcome = outcome_name(&reply);
            self.tally
                .answered(CallKind::Verify, begin.elapsed(), Some(outcome));
        }
        Ok(reply.outcome())
    }

    fn failed(&self, status: &Status, start: PairStart) -> bool {
        self.tally.failed(&stats::failure(status), start.counted);
        false
    }

    /// Asks for a code.
    pub fn send_request(&self, person: &TestUser) -> SendOtpRequest {
        SendOtpRequest {
            recipient: person.recipient.clone(),
            purpose: self.purpose.clone(),
            client_ip: person.client_ip.clone(),
            ..Default::default()
        }
    }

    /// Asks whether a code is right.
    pub fn verify_request(&self, person: &TestUser, code: String) -> VerifyOtpRequest {
        VerifyOtpRequest {
            recipient: person.recipient.clone(),
            purpose: self.purpose.clone(),
            client_ip: person.client_ip.clone(),
            code,
            ..Default::default()
        }
    }
}

/// A verdict as the report names it.
pub fn outcome_name(reply: &VerifyOtpResponse) -> &'static str {
    let name = reply.outcome().as_str_name();
    name.trim_start_matches("VERIFY_OUTCOME_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_evenly_spread() {
        for (share, of_each_ten) in [(0.0, 0), (0.1, 1), (0.5, 5), (0.7, 7), (1.0, 10)] {
            let share = PairShare::new(share);
            for ten in 0..100 {
                let hits = (0..10).filter(|_| share.next()).count();
                assert!(hits.abs_diff(of_each_ten) <= 1, "{share:?} after {ten}");
            }
        }
        let share = PairShare::new(0.25);
        assert_eq!((0..10_000).filter(|_| share.next()).count(), 2_500);
    }
}
