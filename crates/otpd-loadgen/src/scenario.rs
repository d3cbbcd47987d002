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
    ReceiptRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest, VerifyOtpResponse,
    VerifyOutcome,
};

/// Maximum time to wait for a code in the logs, longer than the delivery of a message
/// should ever take.
const CODE_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the failure of a pair that found no code in the logs in time.
const CODE_NOT_SEEN: &str = "CODE_NOT_SEEN";

/// Name of the failure of a verification without the receipt that it asked for.
const RECEIPT_MISSING: &str = "RECEIPT_MISSING";

/// Nonce of all receipts.
const NONCE: &str = "benchmark-benchmark-12";

/// Share of pairs, evenly spread.
#[derive(Debug)]
pub struct PairShare {
    share: f64,
    number: AtomicU64,
}

impl PairShare {
    /// Creates a share from 0 (none) to 1 (all).
    pub fn new(share: f64) -> Self {
        Self {
            share,
            number: AtomicU64::new(0),
        }
    }

    /// Returns true if the next pair belongs to the share.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a run has fewer than 2^53 pairs"
    )]
    pub fn next(&self) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed) as f64;
        (self.share * (number + 1.0)).floor() > (self.share * number).floor()
    }
}

/// State that pairs share.
#[derive(Debug)]
pub struct PairScenario {
    /// Connections to the servers, in turn.
    pub connections: Vec<LoadConnection>,
    /// Recipients of codes.
    pub recipients: RecipientSupply,
    /// Source of codes.
    pub codes: CodeSource,
    /// Purpose of codes.
    pub purpose: String,
    /// Audience of the receipts that verifications ask for; `None` if they ask for none.
    pub receipt_audience: Option<String>,
    /// Share of pairs that submit a wrong code first.
    pub wrong: PairShare,
    /// Statistics of calls and pairs.
    pub tally: Stats,
    /// Checker of the outcomes.
    pub rules: InvariantChecker,
}

impl PairScenario {
    /// Returns the connection for a call of a pair. The next call goes to another server,
    /// which so reads the state that the first one wrote.
    pub fn connection(&self, start: PairStart, call: usize) -> &LoadConnection {
        &self.connections[(start.lane + call) % self.connections.len()]
    }

    /// Runs a pair to its end.
    pub async fn run(&self, start: PairStart) {
        let verified = self.verify_what_is_sent(start).await;
        self.tally.record_pair(verified, start.counted);
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
                .record_call(CallKind::Send, start.planned.elapsed(), None);
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

    /// Returns the code that was sent; a code that does not arrive in time is a failure.
    async fn code(&self, reply: &SendOtpResponse, start: PairStart) -> Option<String> {
        let code = self.codes.of(reply, CODE_TIMEOUT).await;
        if code.is_none() {
            self.tally.record_failure(CODE_NOT_SEEN, start.counted);
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
                .record_call(CallKind::Verify, begin.elapsed(), Some(outcome));
        }
        if self.receipt_audience.is_some() && reply.verified && reply.receipt.is_empty() {
            self.tally.record_failure(RECEIPT_MISSING, start.counted);
        }
        Ok(reply.outcome())
    }

    fn failed(&self, status: &Status, start: PairStart) -> bool {
        self.tally
            .record_failure(&stats::failure(status), start.counted);
        false
    }

    /// Builds the request for a code.
    pub fn send_request(&self, person: &TestUser) -> SendOtpRequest {
        SendOtpRequest {
            recipient: person.recipient.clone(),
            purpose: self.purpose.clone(),
            client_ip: person.client_ip.clone(),
            ..Default::default()
        }
    }

    /// Builds the request for the verification of a code.
    pub fn verify_request(&self, person: &TestUser, code: String) -> VerifyOtpRequest {
        VerifyOtpRequest {
            recipient: person.recipient.clone(),
            purpose: self.purpose.clone(),
            client_ip: person.client_ip.clone(),
            code,
            receipt: self
                .receipt_audience
                .as_ref()
                .map(|audience| ReceiptRequest {
                    audience: audience.clone(),
                    // As long as a random one; receipts of a benchmark are not used.
                    nonce: NONCE.to_owned(),
                    include_recipient: false,
                }),
            ..Default::default()
        }
    }
}

/// Returns the name of an outcome in the report.
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
