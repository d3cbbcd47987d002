//! A purge removes only rows that affect no reply.

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, GetOtpStatusResponse, SendOtpRequest, VerifyOtpRequest,
    VerifyOutcome, otp_service_client::OtpServiceClient,
};
use tonic::transport::Channel;

use crate::support::{Database, Kind, Replica, cancel, on_each_store};

const FIRST: &str = "+79990000001";
const UNANSWERED: &str = "+79990000002";
const VERIFIED: &str = "+79990000003";
const CANCELLED: &str = "+79990000004";

const MINUTE: Duration = Duration::from_mins(1);

/// Starts a replica that purges all the time, and stops it when it has removed just
/// `removed` records and messages at once.
async fn purge(database: &Database, removed: u32) {
    let environment = [
        ("OTPD_STORE__PURGE_INTERVAL", "10ms"),
        ("OTPD_LOG_LEVEL", "debug"),
    ];
    let replica = Replica::start_with(database, &environment).await;
    let line = replica.wait_for_line("[OTP] Expired records purged").await;
    assert!(line.ends_with(&format!("removed={removed}")), "{line}");
    let (status, _) = replica.stop().await;
    assert!(status.success());
}

async fn records(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM otp_record").await
}

async fn send(client: &mut OtpServiceClient<Channel>, recipient: &str) -> String {
    let request = SendOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    };
    let sent = client.send_otp(request).await.expect("it is sent");
    let sent = sent.into_inner();
    assert!(!sent.resent);
    sent.challenge_id
}

async fn verdict(
    client: &mut OtpServiceClient<Channel>,
    recipient: &str,
    code: &str,
) -> VerifyOutcome {
    let request = VerifyOtpRequest {
        recipient: recipient.to_owned(),
        code: code.to_owned(),
        ..Default::default()
    };
    let verdict = client
        .verify_otp(request)
        .await
        .expect("there is an outcome");
    verdict.into_inner().outcome()
}

/// Asserts that the replies about all recipients are those about unknown ones.
async fn assert_forgotten(client: &mut OtpServiceClient<Channel>, code: &str) {
    for recipient in [FIRST, UNANSWERED, VERIFIED, CANCELLED] {
        for code in [code, "0000"] {
            let verdict = verdict(client, recipient, code).await;
            assert_eq!(verdict, VerifyOutcome::NotFound, "{recipient}");
        }
        let request = GetOtpStatusRequest {
            recipient: recipient.to_owned(),
            ..Default::default()
        };
        let status = client
            .get_otp_status(request)
            .await
            .expect("there is a reply")
            .into_inner();
        let nothing = GetOtpStatusResponse {
            recipient: recipient.to_owned(),
            ..Default::default()
        };
        assert_eq!(status, nothing);
        let request = CancelOtpRequest {
            recipient: recipient.to_owned(),
            ..Default::default()
        };
        assert!(!cancel(client.clone(), request).await, "{recipient}");
    }
}

async fn purge_removes_only_rows_without_effect(kind: Kind) {
    let database = Database::new(kind).await;
    // Limits apart, which keep a record until they are full again.
    let environment = [
        ("OTPD_STORE__PURGE_INTERVAL", "1d"),
        ("OTPD_POLICY__SENDS_PER_HOUR", "0"),
        ("OTPD_POLICY__SENDS_PER_DAY", "0"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let client = &mut replica.client();

    send(client, FIRST).await;
    database.advance_clock(30 * MINUTE).await;
    let unanswered = send(client, UNANSWERED).await;
    let code = replica.code(&unanswered).await;
    let id = send(client, VERIFIED).await;
    let right = replica.code(&id).await;
    let judged = verdict(client, VERIFIED, &right).await;
    assert_eq!(judged, VerifyOutcome::Verified);
    let request = CancelOtpRequest {
        challenge_id: send(client, CANCELLED).await,
        ..Default::default()
    };
    assert!(cancel(client.clone(), request).await);
    assert_eq!(records(&database).await, 4);

    // A code lives 5 minutes and is reported as expired for an hour: the first record is past both,
    // the others are not.
    database.advance_clock(80 * MINUTE).await;
    purge(&database, 2).await;
    assert_eq!(records(&database).await, 3);
    let response = verdict(client, UNANSWERED, &code).await;
    assert_eq!(response, VerifyOutcome::Expired);
    let response = verdict(client, FIRST, &code).await;
    assert_eq!(response, VerifyOutcome::NotFound);

    // The replies are the same before the records are removed, and after.
    database.advance_clock(100 * MINUTE).await;
    assert_forgotten(client, &code).await;
    assert_eq!(records(&database).await, 3);
    purge(&database, 6).await;
    assert_eq!(records(&database).await, 0);
    assert_forgotten(client, &code).await;
    send(client, UNANSWERED).await;
    assert_eq!(records(&database).await, 1);
}

on_each_store! {
    purge_removes_only_rows_without_effect
}
