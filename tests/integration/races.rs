//! Concurrent attempts across replicas have the result of some sequential order.

use otpd::grpc::v1::{
    CancelOtpRequest, SendOtpRequest, VerifyOtpRequest, VerifyOtpResponse, VerifyOutcome,
    otp_service_client::OtpServiceClient,
};
use tonic::{Status, transport::Channel};

use crate::support::{Database, Fleet, Kind, Typed, asked, on_each_store, reason};

const MAX_ATTEMPTS: u32 = 5;
/// A code that was sent.
struct Sent {
    recipient: String,
    challenge_id: String,
    code: String,
}

/// Replicas without the wait after five wrong answers, which would hide that they are
/// five.
async fn start(kind: Kind) -> (Database, Fleet) {
    Fleet::start(kind, &[("OTPD_POLICY__FAILURE_DELAY", "0s")]).await
}

impl Fleet {
    /// Number of races in the gate; `OTPD_TEST_RACES` sets another number. Without the version
    /// check of a record, one race between right and wrong answers fails in half of the runs, so
    /// 25 of them miss the fault once in 33 million runs. SQLite writes to the disk for each
    /// answer.
    fn races(&self) -> usize {
        asked("OTPD_TEST_RACES").unwrap_or(match self.kind {
            Kind::Postgres => 25,
            Kind::Sqlite => 10,
        })
    }

    /// Sends a code to the recipient of that number.
    async fn send(&self, number: usize) -> Sent {
        let sender = number % self.replicas.len();
        let request = send_request(number);
        let sent = self.clients[sender].clone().send_otp(request).await;
        let sent = sent.expect("it is sent").into_inner();
        Sent {
            code: self.replicas[sender].code(&sent.challenge_id).await,
            recipient: sent.recipient,
            challenge_id: sent.challenge_id,
        }
    }

    /// Gives answers at the same moment; every one of them gets a verdict.
    async fn answer(&self, sent: &Sent, answers: Vec<Typed>) -> Vec<VerifyOtpResponse> {
        let verdicts = self.at_once(answers.len(), |index, client| {
            // Right answers differ in nothing, wrong ones in their last digit.
            let code = match answers[index] {
                Typed::Mistyped => nth_wrong(&sent.code, index),
                typed @ Typed::Right => typed.text(&sent.code),
            };
            verify(client, sent.recipient.clone(), code)
        });
        let verdicts = verdicts.await.into_iter();
        verdicts
            .map(|verdict| verdict.expect("OVERLOADED or worse"))
            .collect()
    }
}

fn recipient(number: usize) -> String {
    format!("+7999{number:07}")
}

fn send_request(number: usize) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient(number),
        ..Default::default()
    }
}

async fn verify(
    mut client: OtpServiceClient<Channel>,
    recipient: String,
    code: String,
) -> Result<VerifyOtpResponse, Status> {
    let request = VerifyOtpRequest {
        recipient,
        code,
        ..Default::default()
    };
    Ok(client.verify_otp(request).await?.into_inner())
}

/// One of nine wrong answers.
fn nth_wrong(code: &str, index: usize) -> String {
    let (head, last) = code.split_at(code.len() - 1);
    let last: usize = last.parse().expect("a digit");
    let wrong = format!("{head}{}", (last + 1 + index % 9) % 10);
    assert_ne!(wrong, code);
    wrong
}

fn count(verdicts: &[VerifyOtpResponse], outcome: VerifyOutcome) -> usize {
    let verdicts = verdicts.iter();
    verdicts
        .filter(|verdict| verdict.outcome() == outcome)
        .count()
}

/// Returns the remaining attempts after each checked wrong code, the largest first.
fn remaining(verdicts: &[VerifyOtpResponse]) -> Vec<u32> {
    let mut remaining: Vec<u32> = verdicts
        .iter()
        .filter(|verdict| verdict.outcome() == VerifyOutcome::WrongCode)
        .map(|verdict| verdict.attempts_remaining)
        .collect();
    remaining.sort_unstable_by(|one, other| other.cmp(one));
    remaining
}

async fn concurrent_correct_codes_verify_exactly_once(kind: Kind) {
    const ANSWERS: usize = 32;
    let (_database, fleet) = start(kind).await;
    for race in 0..fleet.races() {
        let sent = fleet.send(race).await;
        let verdicts = fleet.answer(&sent, vec![Typed::Right; ANSWERS]).await;
        assert_eq!(count(&verdicts, VerifyOutcome::Verified), 1);
        assert_eq!(count(&verdicts, VerifyOutcome::NotFound), ANSWERS - 1);
        let verified = verdicts.iter().find(|verdict| verdict.verified);
        let verified = verified.expect("it was just counted");
        assert_eq!(verified.challenge_id, sent.challenge_id);
    }
}

async fn concurrent_wrong_codes_consume_exactly_max_attempts(kind: Kind) {
    const ANSWERS: usize = 64;
    let (_database, fleet) = start(kind).await;
    for race in 0..fleet.races() {
        let sent = fleet.send(race).await;
        let verdicts = fleet.answer(&sent, vec![Typed::Mistyped; ANSWERS]).await;
        assert_eq!(remaining(&verdicts), [4, 3, 2, 1, 0]);
        let exhausted = count(&verdicts, VerifyOutcome::AttemptsExhausted);
        assert_eq!(exhausted, ANSWERS - 5);
        for client in &fleet.clients[..fleet.replicas.len()] {
            let right = verify(client.clone(), sent.recipient.clone(), sent.code.clone());
            let refused = right.await.expect("there is an outcome");
            assert_eq!(refused.outcome(), VerifyOutcome::AttemptsExhausted);
        }
    }
}

async fn correct_code_on_last_attempt_verifies(kind: Kind) {
    let (_database, fleet) = start(kind).await;
    for race in 0..fleet.races().div_ceil(5) {
        let sent = fleet.send(race).await;
        let verdicts = fleet.answer(&sent, vec![Typed::Mistyped; 4]).await;
        assert_eq!(remaining(&verdicts), [4, 3, 2, 1]);
        let verdicts = fleet.answer(&sent, vec![Typed::Right; 8]).await;
        assert_eq!(count(&verdicts, VerifyOutcome::Verified), 1);
        assert_eq!(count(&verdicts, VerifyOutcome::NotFound), 7);
    }
}

async fn correct_and_wrong_codes_race(kind: Kind) {
    const ANSWERS: usize = 32;
    let (_database, fleet) = start(kind).await;
    let (mut lucky, mut judged_most) = (0, 0);
    for race in 0..fleet.races() {
        let sent = fleet.send(race).await;
        // From one right answer in eight to seven.
        let answers = (0..ANSWERS).map(|index| {
            if index % 8 <= race % 7 {
                Typed::Right
            } else {
                Typed::Mistyped
            }
        });
        let verdicts = fleet.answer(&sent, answers.collect()).await;
        let verified = count(&verdicts, VerifyOutcome::Verified);
        let wrong = remaining(&verdicts);
        assert!(verified <= 1);
        assert!(verified + wrong.len() <= 5);
        // One after the other, without a gap.
        let expected: Vec<u32> = (0..MAX_ATTEMPTS).rev().take(wrong.len()).collect();
        assert_eq!(wrong, expected);
        // All later outcomes are the same, whatever ended the code.
        let verified_late = if verified == 1 {
            count(&verdicts, VerifyOutcome::NotFound)
        } else {
            assert_eq!(wrong.len(), 5);
            count(&verdicts, VerifyOutcome::AttemptsExhausted)
        };
        assert_eq!(verified_late + verified + wrong.len(), ANSWERS);
        lucky += verified;
        judged_most = judged_most.max(wrong.len());
    }
    assert!(lucky > 0, "in no race the right code won");
    assert!(judged_most > 0, "in no race a wrong answer was judged");
}

async fn concurrent_sends_issue_one_code(kind: Kind) {
    const SENDS: usize = 16;
    let (_database, fleet) = start(kind).await;
    for race in 0..fleet.races() {
        let sends = fleet.at_once(SENDS, |_, mut client| async move {
            client.send_otp(send_request(race)).await
        });
        let (sent, refused): (Vec<_>, Vec<_>) = sends.await.into_iter().partition(Result::is_ok);
        assert_eq!(sent.len(), 1);
        for refused in refused {
            let status = refused.expect_err("it was just partitioned");
            assert_eq!(reason(&status), "RESEND_TOO_SOON", "{status}");
        }
    }
}

async fn verify_and_cancel_race_has_one_winner(kind: Kind) {
    const CALLS: usize = 8;
    let (_database, fleet) = start(kind).await;
    for race in 0..fleet.races() {
        let sent = fleet.send(race).await;
        // The order of the calls changes from race to race.
        let done = fleet.at_once(CALLS, |index, mut client| {
            let (recipient, code) = (sent.recipient.clone(), sent.code.clone());
            async move {
                if (index + race) % 2 == 0 {
                    let verdict = verify(client, recipient, code).await;
                    verdict.expect("there is an outcome").verified
                } else {
                    let request = CancelOtpRequest {
                        recipient,
                        ..Default::default()
                    };
                    let reply = client.cancel_otp(request).await;
                    reply.expect("there is a reply").into_inner().cancelled
                }
            }
        });
        let done = done.await.into_iter().filter(|&done| done).count();
        assert_eq!(done, 1, "verified or cancelled, exactly once");
    }
}

on_each_store! {
    concurrent_correct_codes_verify_exactly_once
    concurrent_wrong_codes_consume_exactly_max_attempts
    correct_code_on_last_attempt_verifies
    correct_and_wrong_codes_race
    concurrent_sends_issue_one_code
    verify_and_cancel_race_has_one_winner
}
