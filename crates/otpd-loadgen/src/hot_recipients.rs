//! Hammers few recipients with all there is, and holds every verdict against the rules.

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

/// Refusals that whoever hammers must expect.
const EXPECTED: [&str; 5] = [
    "RESEND_TOO_SOON",
    "SEND_LIMIT",
    "VERIFY_LIMIT",
    "VERIFY_DELAYED",
    "VERIFY_LOCKED",
];

/// What is answered where the code is not known: a code too long would be refused, and
/// not judged.
const GUESS: &str = "000000";

/// How long the code of a message is waited for: it may never be told, where another
/// pair has spent the code meanwhile and the message is dropped.
const CODE_PATIENCE: Duration = Duration::from_secs(1);

/// The hammered recipients.
#[derive(Debug)]
pub struct HotRecipientLoad {
    pairs: Arc<PairScenario>,
    recipients: Vec<HotRecipient>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct HotRecipient {
    person: TestUser,
    /// The code that was last sent, as far as it is known.
    code: Mutex<String>,
}

impl HotRecipientLoad {
    /// So many new recipients.
    pub fn new(pairs: Arc<PairScenario>, recipients: usize) -> Self {
        let hammered = |_| HotRecipient {
            person: pairs.recipients.next(),
            code: Mutex::new(GUESS.to_owned()),
        };
        Self {
            recipients: (0..recipients).map(hammered).collect(),
            next: AtomicUsize::new(0),
            pairs,
        }
    }

    /// Asks one of the recipients for a code; answers a wrong one, if it is its turn, and
    /// then the right one twice at the same moment, on two connections.
    pub async fn run(&self, start: PairStart) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let hammered = &self.recipients[next % self.recipients.len()];
        let mut as_expected = self.send(hammered, start).await;
        let code = hammered.code();
        if self.pairs.wrong.next() {
            let wrong = codes::wrong(&code);
            as_expected &= self.verify(hammered, wrong, 1, start).await;
        }
        let (one, other) = tokio::join!(
            self.verify(hammered, code.clone(), 1, start),
            self.verify(hammered, code.clone(), 2, start),
        );
        self.pairs
            .tally
            .ended(as_expected && one && other, start.counted);
    }

    async fn send(&self, hammered: &HotRecipient, start: PairStart) -> bool {
        let request = self.pairs.send_request(&hammered.person);
        let sent = self.pairs.connection(start, 0).send(request).await;
        match sent {
            Ok(reply) => {
                self.answered(CallKind::Send, start.planned, None, start);
                self.learn(hammered, &reply).await;
                true
            }
            Err(status) => self.refused(CallKind::Send, start.planned, &status, start),
        }
    }

    /// Waits for the code that was sent.
    async fn learn(&self, hammered: &HotRecipient, reply: &SendOtpResponse) {
        if let Some(code) = self.pairs.codes.of(reply, CODE_PATIENCE).await {
            *hammered.code.lock().unwrap_or_else(PoisonError::into_inner) = code;
        }
    }

    async fn verify(
        &self,
        hammered: &HotRecipient,
        code: String,
        call: usize,
        start: PairStart,
    ) -> bool {
        let request = self.pairs.verify_request(&hammered.person, code);
        let begin = Instant::now();
        match self.pairs.connection(start, call).verify(request).await {
            Ok(reply) => {
                self.answered(CallKind::Verify, begin, Some(outcome_name(&reply)), start);
                self.pairs
                    .rules
                    .judged(&reply.challenge_id, reply.outcome());
                true
            }
            Err(status) => self.refused(CallKind::Verify, begin, &status, start),
        }
    }

    fn refused(&self, rpc: CallKind, begin: Instant, status: &Status, start: PairStart) -> bool {
        let reason = stats::reason(status);
        let expected = EXPECTED.contains(&reason.as_str());
        if expected {
            self.answered(rpc, begin, Some(&reason), start);
        } else {
            self.pairs
                .tally
                .failed(&stats::failure(status), start.counted);
        }
        expected
    }

    fn answered(&self, rpc: CallKind, begin: Instant, outcome: Option<&str>, start: PairStart) {
        if start.counted {
            self.pairs.tally.answered(rpc, begin.elapsed(), outcome);
        }
    }
}

impl HotRecipient {
    fn code(&self) -> String {
        let code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        code.clone()
    }
}
