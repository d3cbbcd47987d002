//! More requests than capacity, expired deadlines, and callers that disconnect.

mod flood;
mod status;

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
};
use sqlx::Connection as _;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Request, Response, Status};

use crate::support::{Database, Refusal, Replica, token_digest};

/// Holding the store up must not make otpd give up on it.
const PATIENT: (&str, &str) = ("OTPD_STORE__TIMEOUT", "1h");
/// Long enough for a reply that comes at nine tenths of it to be there in time.
const TIMEOUT: Duration = Duration::from_secs(3);

fn recipient(number: usize) -> String {
    format!("+7999123{number:04}")
}

fn send_request(number: usize) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient(number),
        ..Default::default()
    }
}

type Sent = Result<Response<SendOtpResponse>, Status>;

/// Sends, and waits until that has come to otpd.
async fn send(replica: &Replica, number: usize) -> JoinHandle<Sent> {
    let mut client = replica.client();
    let sending = tokio::spawn(async move { client.send_otp(send_request(number)).await });
    replica
        .wait_for_line(&format!(
            "Request received rpc=SendOtp caller=development recipient=+7999***{number:04}"
        ))
        .await;
    sending
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// It is otpd that says so, not the caller's own clock.
fn assert_too_late<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let refusal = Refusal::of(&answer.expect_err("the store is held up"));
    assert_eq!(refusal.code, Code::DeadlineExceeded);
    assert_eq!(refusal.reason, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_deadline_returns_error_without_side_effects() {
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[PATIENT]).await;
    let lock = database.lock_records().await;
    // The batch that is under way keeps the others waiting.
    let first = send(&replica, 0).await;
    let (mut one, mut two, mut three, mut four) = (
        replica.client(),
        replica.client(),
        replica.client(),
        replica.client(),
    );
    let (sending, verifying, cancelling, telling) = tokio::join!(
        one.send_otp(timed(send_request(1))),
        two.verify_otp(timed(VerifyOtpRequest {
            recipient: recipient(1),
            code: "000000".to_owned(),
            ..Default::default()
        })),
        three.cancel_otp(timed(CancelOtpRequest {
            recipient: recipient(1),
            ..Default::default()
        })),
        four.get_otp_status(timed(GetOtpStatusRequest {
            recipient: recipient(1),
            ..Default::default()
        })),
    );
    assert_too_late(sending);
    assert_too_late(verifying);
    assert_too_late(cancelling);
    assert_too_late(telling);

    lock.close().await.expect("the lock is given up");
    first.await.unwrap().expect("it had time");
    // The next request finds the queue empty.
    send(&replica, 2).await.await.unwrap().expect("it had time");
    let records = "SELECT COUNT(*) FROM otp_record";
    assert_eq!(database.number(records).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_before_decision_has_no_side_effects() {
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[PATIENT]).await;
    let lock = database.lock_records().await;
    let first = send(&replica, 0).await;
    let gone = send(&replica, 1).await;
    gone.abort();
    let line = replica
        .wait_for_line("Client disconnected before response")
        .await;
    assert!(line.contains("rpc=SendOtp"), "{line}");
    assert!(line.contains("recipient=+7999***0001"), "{line}");

    lock.close().await.expect("the lock is given up");
    first.await.unwrap().expect("its caller waits");
    send(&replica, 2)
        .await
        .await
        .unwrap()
        .expect("its caller waits");
    let records = "SELECT COUNT(*) FROM otp_record";
    assert_eq!(database.number(records).await, 2);
    let messages = "SELECT COUNT(*) FROM otp_message";
    assert_eq!(database.number(messages).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_after_decision_still_commits() {
    let database = Database::postgres().await;
    let replica = Replica::start_with(&database, &[PATIENT]).await;
    let lock = database.lock_writes().await;
    let gone = send(&replica, 1).await;
    database.held_up_writer().await;
    gone.abort();
    replica
        .wait_for_line("Client disconnected before response")
        .await;
    // Its end does not come before that, either.
    replica.signal("TERM");
    replica.wait_for_line("[OTP] Shutting down").await;

    lock.close().await.expect("the lock is given up");
    let (status, log) = replica.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
    let records = "SELECT COUNT(*) FROM otp_record";
    assert_eq!(database.number(records).await, 1);
    // Sent, or released for the next replica.
    let next = Replica::start(&database).await;
    let message = "SELECT COUNT(*) FROM otp_message WHERE state = 'sent'";
    database.wait_for_number(message, 1).await;
    let logs = format!("{log}\n{}", next.log());
    assert_eq!(logs.matches("Generated OTP").count(), 1, "{logs}");
}

/// Callers by their tokens.
async fn serve_callers(database: &Database, queue_size: usize) -> Replica {
    let callers: String = ["loud", "quiet"]
        .map(|name| {
            let digest = token_digest(name);
            format!("[callers.{name}]\ntoken_sha256 = [\"{digest}\"]\n")
        })
        .concat();
    let configuration = database.configure(&callers);
    let queue_size = queue_size.to_string();
    let settings = [
        ("OTPD_CONFIG", &*configuration),
        ("OTPD_STORE__QUEUE_SIZE", &*queue_size),
        PATIENT,
    ];
    Replica::start_with(database, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn burst_is_shed_without_starving_other_callers() {
    const WAITING: usize = 20;
    const FLOOD: usize = 500;
    const QUIET: usize = 5;
    let database = Database::postgres().await;
    let replica = serve_callers(&database, WAITING).await;
    let lock = database.lock_records().await;
    // The batch under way.
    let mut quiet = JoinSet::new();
    let mut send_quietly = |number| {
        let mut client = replica.client_of("quiet");
        quiet.spawn(async move { client.send_otp(send_request(number)).await });
    };
    send_quietly(0);
    database.held_up_writer().await;

    let loud = replica.client_of("loud");
    let mut flood: JoinSet<Sent> = (0..FLOOD)
        .map(|number| {
            let mut client = loud.clone();
            async move { client.send_otp(send_request(number)).await }
        })
        .collect();
    // No reply was sent before, so that these are refused at once.
    while flood.len() > WAITING {
        assert_overloaded(flood.join_next().await.unwrap().unwrap());
    }
    assert_eq!(replica.command(&["health"]).done(), "SERVING\n");

    // Another one comes in, each time at the cost of the one with most waiting.
    for number in 1..=QUIET {
        send_quietly(number);
    }
    while flood.len() > WAITING - QUIET {
        assert_overloaded(flood.join_next().await.unwrap().unwrap());
    }
    lock.close().await.expect("the lock is given up");
    for sent in quiet
        .join_all()
        .await
        .into_iter()
        .chain(flood.join_all().await)
    {
        sent.expect("there was room");
    }
    let records = "SELECT COUNT(*) FROM otp_record";
    let sent = i64::try_from(WAITING + 1).expect("a few");
    assert_eq!(database.number(records).await, sent);
}

#[track_caller]
fn assert_overloaded(answer: Sent) {
    let refusal = Refusal::of(&answer.expect_err("the store is held up"));
    assert_eq!(refusal.code, Code::Unavailable, "{refusal:?}");
    assert_eq!(refusal.reason, "OVERLOADED");
    let wait = refusal.wait.expect("it says when to come back");
    assert!(wait >= Duration::from_millis(100), "{wait:?}");
}
