//! A retried request gets its first reply again.

mod lost_reply;

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
    VerifyOtpResponse, VerifyOutcome, otp_service_client::OtpServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::support::{Database, Kind, Refusal, Replica, Typed, cancel, on_each_store, reason};

type Client = OtpServiceClient<Channel>;

const RECIPIENT: &str = "+79991234567";

fn send_request(request_id: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

fn verify_request(code: &str, request_id: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: RECIPIENT.to_owned(),
        code: code.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

fn cancel_request(request_id: &str) -> CancelOtpRequest {
    CancelOtpRequest {
        recipient: RECIPIENT.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

async fn send(mut client: Client, request: SendOtpRequest) -> SendOtpResponse {
    let sent = client.send_otp(request).await;
    sent.expect("it is sent").into_inner()
}

async fn verify(mut client: Client, request: VerifyOtpRequest) -> VerifyOtpResponse {
    let verdict = client.verify_otp(request).await;
    verdict.expect("there is an outcome").into_inner()
}

async fn attempts_remaining(mut client: Client) -> u32 {
    let request = GetOtpStatusRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let reply = client.get_otp_status(request).await;
    reply
        .expect("there is a status")
        .into_inner()
        .attempts_remaining
}

/// Returns the number of messages that these replicas sent for a challenge; for stopped replicas,
/// by their logs. Earlier messages were sent by then, because a later one was.
async fn messages(replicas: &[&Replica], logs: &[String], challenge_id: &str) -> usize {
    let mut all = logs.join("\n");
    for replica in replicas {
        let (port, lines) = (replica.address().port(), replica.log().lines().count());
        let other = SendOtpRequest {
            recipient: format!("later-{port}-{lines}@example.com"),
            ..Default::default()
        };
        let later = send(replica.client(), other).await;
        replica.code(&later.challenge_id).await;
        all.push_str(&replica.log());
        all.push('\n');
    }
    let mark = format!("challenge_id={challenge_id} ");
    let is_message = |line: &&str| line.contains("Generated OTP: ") && line.contains(&mark);
    all.lines().filter(is_message).count()
}

#[track_caller]
fn assert_reused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let refusal = Refusal::of(&answer.expect_err("the id is another request's"));
    assert_eq!(refusal.code, Code::InvalidArgument);
    assert_eq!(refusal.reason, "REQUEST_INVALID");
    assert_eq!(refusal.field, "request_id");
}

/// Two replicas and, in the place of one that was stopped, a third.
async fn repeated_requests_are_replayed_by_all_replicas(kind: Kind) {
    let database = Database::new(kind).await;
    let first = Replica::start(&database).await;
    let other = Replica::start(&database).await;
    // Each RPC has ids of its own.
    let sent = send(first.client(), send_request("same")).await;
    let code = first.code(&sent.challenge_id).await;
    let wrong = Typed::Mistyped.text(&code);
    let response = verify(first.client(), verify_request(&wrong, "same")).await;
    assert_eq!(response.outcome(), VerifyOutcome::WrongCode);
    let (_, log) = first.stop().await;
    let third = Replica::start(&database).await;
    for replica in [&other, &third] {
        assert_eq!(send(replica.client(), send_request("same")).await, sent);
        // A retry may come from another address and in another spelling.
        let elsewhere = SendOtpRequest {
            client_ip: "203.0.113.7".to_owned(),
            recipient: "+7 (999) 123 45 67".to_owned(),
            ..send_request("same")
        };
        assert_eq!(send(replica.client(), elsewhere).await, sent);
        let again = verify(replica.client(), verify_request(&wrong, "same")).await;
        assert_eq!(again, response);
    }
    assert_eq!(attempts_remaining(third.client()).await, 4);
    let status = other.client().send_otp(send_request("another")).await;
    assert_eq!(
        reason(&status.expect_err("it is refused")),
        "RESEND_TOO_SOON"
    );
    let another = verify(other.client(), verify_request(&wrong, "another")).await;
    assert_eq!(another.attempts_remaining, 3);

    let verified = verify(other.client(), verify_request(&code, "right")).await;
    assert!(verified.verified);
    for replica in [&other, &third] {
        let again = verify(replica.client(), verify_request(&code, "right")).await;
        assert_eq!(again, verified);
        let late = verify(replica.client(), verify_request(&code, "late")).await;
        assert_eq!(late.outcome(), VerifyOutcome::NotFound);
        let again = verify(replica.client(), verify_request(&wrong, "same")).await;
        assert_eq!(again, response);
        assert_eq!(send(replica.client(), send_request("same")).await, sent);
    }
    assert_eq!(
        messages(&[&other, &third], &[log], &sent.challenge_id).await,
        1
    );

    // A forgotten id is a new one.
    database.advance_clock(Duration::from_mins(11)).await;
    let anew = send(other.client(), send_request("same")).await;
    assert_ne!(anew.challenge_id, sent.challenge_id);
    assert!(cancel(third.client(), cancel_request("same")).await);
    assert!(cancel(other.client(), cancel_request("same")).await);
    assert!(!cancel(other.client(), cancel_request("another")).await);
    assert_eq!(
        messages(&[&other, &third], &[], &anew.challenge_id).await,
        1
    );
}

async fn idempotency_key_reuse_is_rejected(kind: Kind) {
    let database = Database::new(kind).await;
    let declared = [("OTPD_TEXTS__DEFAULT__VARIABLES__NAME__MAX_LENGTH", "20")];
    let replica = Replica::start_with(&database, &declared).await;
    let mut client = replica.client();
    let sent = send(replica.client(), send_request("send")).await;
    let code = replica.code(&sent.challenge_id).await;
    let variables = [("name".to_owned(), "value".to_owned())].into();
    for other in [
        SendOtpRequest {
            channel: 3,
            ..send_request("send")
        },
        SendOtpRequest {
            locale: "ru".to_owned(),
            ..send_request("send")
        },
        SendOtpRequest {
            variables,
            ..send_request("send")
        },
    ] {
        assert_reused(client.send_otp(other).await);
    }
    let wrong = Typed::Mistyped.text(&code);
    verify(replica.client(), verify_request(&wrong, "verify")).await;
    let named = VerifyOtpRequest {
        challenge_id: sent.challenge_id.clone(),
        ..verify_request(&wrong, "verify")
    };
    assert_reused(client.verify_otp(named).await);
    assert_reused(client.verify_otp(verify_request(&code, "verify")).await);
    assert_eq!(attempts_remaining(replica.client()).await, 4);

    assert!(cancel(replica.client(), cancel_request("cancel")).await);
    let named = CancelOtpRequest {
        challenge_id: sent.challenge_id.clone(),
        ..cancel_request("cancel")
    };
    assert_reused(client.cancel_otp(named).await);
    // Another record's requests have nothing to do with it.
    let other = SendOtpRequest {
        recipient: "+79991234568".to_owned(),
        ..send_request("send")
    };
    send(replica.client(), other).await;
    assert_eq!(messages(&[&replica], &[], &sent.challenge_id).await, 1);
}

on_each_store! {
    repeated_requests_are_replayed_by_all_replicas
    idempotency_key_reuse_is_rejected
}
