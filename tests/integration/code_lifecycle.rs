//! Life of a code, from its send to its end, under the default policy. The model test has every
//! other order of calls (`tests/safety_net/model_based`).

use std::time::Duration;

use otpd::grpc::v1::{
    GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
    VerifyOutcome::{self, NotFound, Verified, WrongCode},
};

use crate::support::{CallerClient, Database, Kind, Refusal, Replica, Typed, on_each_store};

const RECIPIENT: &str = "+79991234567";

fn send_request() -> SendOtpRequest {
    SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    }
}

async fn send(client: &mut CallerClient) -> SendOtpResponse {
    let sent = client.send_otp(send_request()).await;
    sent.expect("it is sent").into_inner()
}

/// Verifies a code; returns the outcome and the remaining attempts.
async fn verify(client: &mut CallerClient, code: &str) -> (VerifyOutcome, u32) {
    let request = VerifyOtpRequest {
        recipient: RECIPIENT.to_owned(),
        code: code.to_owned(),
        ..Default::default()
    };
    let reply = client.verify_otp(request).await;
    let reply = reply.expect("there is an outcome").into_inner();
    assert_eq!(reply.verified, reply.outcome() == Verified);
    (reply.outcome(), reply.attempts_remaining)
}

async fn is_live(client: &mut CallerClient) -> bool {
    let request = GetOtpStatusRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let status = client.get_otp_status(request).await;
    status.expect("there is a status").into_inner().live
}

async fn code_lifecycle(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = Replica::start(&database).await;
    let mut client = replica.client_of("anyone");
    let client = &mut client;
    assert!(!is_live(client).await);

    let sent = send(client).await;
    assert!(!sent.resent);
    let code = replica.code(&sent.challenge_id).await;
    let wrong = Typed::Mistyped.text(&code);
    assert_eq!(verify(client, &wrong).await, (WrongCode, 4));
    let refused = client.send_otp(send_request()).await;
    let refused = Refusal::of(&refused.expect_err("the cool-down is not over"));
    assert_eq!(refused.reason, "RESEND_TOO_SOON");

    // The same code again, with its expiry and its attempts.
    database.advance_clock(Duration::from_mins(1)).await;
    let resent = send(client).await;
    assert!(resent.resent);
    assert_eq!(resent.challenge_id, sent.challenge_id);
    assert_eq!(resent.expires_at, sent.expires_at);
    assert_eq!(verify(client, &wrong).await, (WrongCode, 3));
    assert!(is_live(client).await);

    assert_eq!(verify(client, &code).await, (Verified, 0));
    assert!(!is_live(client).await);
    assert_eq!(verify(client, &code).await, (NotFound, 0));
    // A success ends the cool-down.
    let next = send(client).await;
    assert!(!next.resent);
    assert_ne!(next.challenge_id, sent.challenge_id);
}

on_each_store! {
    code_lifecycle
}
