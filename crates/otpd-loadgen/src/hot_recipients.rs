//! Load on few recipients with all connections; every outcome is checked against the
//! rules.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::Status;

use super::{
    codes,
    load::PairStart,
    recipients::TestUser,
    scenario::{PairScenario, outcome_name},
    stats::{self, CallKind},
};
use otpd_contract::v1::SendOtpResponse;

/// Refusals that such a load must expect.
const EXPECTED: [&str; 5] = [
    "RESEND_TOO_SOON",
    "SEND_LIMIT",
    "VERIFY_LIMIT",
    "VERIFY_DELAYED",
    "VERIFY_LOCKED",
];

/// Code for a verification if the real one is unknown. A longer one would be rejected
/// without a check.
const GUESS: &str = "000000";

/// Maximum time to wait for the code of a message. It may never be logged, if another
/// pair has spent the code meanwhile and the message is dropped.
const CODE_TIMEOUT: Duration = Duration::from_secs(1);

/// Load on few recipients.
#[derive(Debug)]
pub struct HotRecipientLoad {
    pairs: Arc<PairScenario>,
    recipients: Vec<HotRecipient>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct HotRecipient {
    person: TestUser,
    /// Code that was last sent, as far as it is known.
    code: Mutex<String>,
}

impl HotRecipientLoad {
    /// Creates a load on that many new recipients.
    pub fn new(pairs: Arc<PairScenario>, recipients: usize) -> Self {
        let recipient = |_| HotRecipient {
            person: pairs.recipients.next(),
            code: Mutex::new(GUESS.to_owned()),
        };
        Self {
            recipients: (0..recipients).map(recipient).collect(),
            next: AtomicUsize::new(0),
            pairs,
        }
    }

    /// Requests a code for one of the recipients. Submits a wrong one, if it is its turn,
    /// and then the correct one twice at the same moment, on two connections.
    pub async fn run(&self, start: PairStart) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let recipient = &self.recipients[next % self.recipients.len()];
        let mut as_expected = self.send(recipient, start).await;
        let code = recipient.code();
        if self.pairs.wrong.next() {
            let wrong = codes::wrong(&code);
            as_expected &= self.verify(recipient, wrong, 1, start).await;
        }
        let (one, other) = tokio::join!(
            self.verify(recipient, code.clone(), 1, start),
            self.verify(recipient, code.clone(), 2, start),
        );
        self.pairs
            .tally
            .record_pair(as_expected && one && other, start.counted);
    }

    async fn send(&self, recipient: &HotRecipient, start: PairStart) -> bool {
        let request = self.pairs.send_request(&recipient.person);
        let sent = self.pairs.connection(start, 0).send(request).await;
        match sent {
            Ok(reply) => {
                self.record_call(CallKind::Send, start.planned, None, start);
                self.receive_code(recipient, &reply).await;
                true
            }
            Err(status) => self.refused(CallKind::Send, start.planned, &status, start),
        }
    }

    /// Waits for the code that was sent.
    async fn receive_code(&self, recipient: &HotRecipient, reply: &SendOtpResponse) {
        if let Some(code) = self.pairs.codes.of(reply, CODE_TIMEOUT).await {
            *recipient
                .code
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = code;
        }
    }

    async fn verify(
        &self,
        recipient: &HotRecipient,
        code: String,
        call: usize,
        start: PairStart,
    ) -> bool {
        let request = self.pairs.verify_request(&recipient.person, code);
        let begin = Instant::now();
        match self.pairs.connection(start, call).verify(request).await {
            Ok(reply) => {
                self.record_call(CallKind::Verify, begin, Some(outcome_name(&reply)), start);
                self.pairs
                    .rules
                    .record(&reply.challenge_id, reply.outcome());
                true
            }
            Err(status) => self.refused(CallKind::Verify, begin, &status, start),
        }
    }

    fn refused(&self, rpc: CallKind, begin: Instant, status: &Status, start: PairStart) -> bool {
        let reason = stats::reason(status);
        let expected = EXPECTED.contains(&reason.as_str());
        if expected {
            self.record_call(rpc, begin, Some(&reason), start);
        } else {
            self.pairs
                .tally
                .record_failure(&stats::failure(status), start.counted);
        }
        expected
    }

    fn record_call(&self, rpc: CallKind, begin: Instant, outcome: Option<&str>, start: PairStart) {
        if start.counted {
            self.pairs.tally.record_call(rpc, begin.elapsed(), outcome);
        }
    }
}

impl HotRecipient {
    fn code(&self) -> String {
        let code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        code.clone()
    }
}
