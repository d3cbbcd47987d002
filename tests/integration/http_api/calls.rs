//! Calls in JSON: the same replies, log lines and counts as by gRPC.

use std::collections::BTreeMap;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest,
};
use prost::Message as _;
use serde_json::json;

use super::{RECIPIENT, done, send, tried};
use crate::support::{
    Database, Kind, OPERATIONS, Replica, Typed,
    http1::{exchange, path, post},
};

#[tokio::test(flavor = "multi_thread")]
async fn replies_in_json_equal_those_of_grpc() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let mut grpc = replica.client();
    let request = json!({
        "recipient": "8 (999) 123-45-67", "region": "RU", "channel": "CHANNEL_SMS",
        "client_ip": "203.0.113.7", "requestId": "send-1", "locale": null,
    });
    let sent = done(&replica, "SendOtp", request).await;
    // The first reply again, in the other form.
    let request = SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        region: "RU".to_owned(),
        channel: 1,
        client_ip: "203.0.113.7".to_owned(),
        request_id: "send-1".to_owned(),
        ..Default::default()
    };
    let same = grpc
        .send_otp(request)
        .await
        .expect("it is repeated")
        .into_inner();
    assert_eq!(
        sent,
        json!({
            "challengeId": same.challenge_id,
            "recipient": same.recipient,
            "channel": "CHANNEL_SMS",
            "expiresAt": same.expires_at.expect("it is set").to_string(),
            "resendAt": same.resend_at.expect("it is set").to_string(),
            "resent": same.resent,
            "codeLength": same.code_length,
        })
    );

    let code = replica.code(&same.challenge_id).await;
    let wrong = json!({ "recipient": RECIPIENT, "code": Typed::Mistyped.text(&code) });
    let wrong = done(&replica, "VerifyOtp", wrong).await;
    assert_eq!(
        wrong,
        json!({
            "verified": false, "outcome": "VERIFY_OUTCOME_WRONG_CODE", "attemptsRemaining": 4,
            "challengeId": same.challenge_id, "recipient": RECIPIENT,
        })
    );
    let status = done(&replica, "GetOtpStatus", json!({ "recipient": RECIPIENT })).await;
    let request = GetOtpStatusRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let same = grpc
        .get_otp_status(request)
        .await
        .expect("there is a status")
        .into_inner();
    assert_eq!(status["live"], true);
    assert_eq!(status["attemptsRemaining"], same.attempts_remaining);
    assert_eq!(
        status["expiresAt"],
        same.expires_at.expect("it is set").to_string()
    );
    assert_eq!(
        status["deliveries"][0]["provider"],
        same.deliveries[0].provider
    );
    assert_eq!(status["deliveries"][0]["state"], "DELIVERY_STATE_SENT");

    let right = json!({ "recipient": RECIPIENT, "code": code, "request_id": "verify-1" });
    let right = done(&replica, "VerifyOtp", right).await;
    assert_eq!(
        (&right["verified"], &right["outcome"]),
        (&json!(true), &json!("VERIFY_OUTCOME_VERIFIED"))
    );
    let request = VerifyOtpRequest {
        recipient: RECIPIENT.to_owned(),
        code,
        request_id: "verify-1".to_owned(),
        ..Default::default()
    };
    let same = grpc
        .verify_otp(request)
        .await
        .expect("it is repeated")
        .into_inner();
    assert!(same.verified);
    assert_eq!(
        right["verifiedAt"],
        same.verified_at.expect("it is set").to_string()
    );
    let cancelled = done(&replica, "CancelOtp", json!({ "recipient": RECIPIENT })).await;
    assert_eq!(
        cancelled,
        json!({ "cancelled": false, "failuresReset": false })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_messages_are_exchanged_without_frames() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let request = SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let message = request.encode_to_vec();
    let length = message.len().to_string();
    let headers = [
        ("content-type", "application/proto"),
        ("content-length", &length),
    ];
    let request = [post(&path("SendOtp"), &headers, ""), message].concat();
    let reply = exchange(replica.address(), &request).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/proto")
    );
    let sent = SendOtpResponse::decode(&*reply.body).expect("a message");
    assert_eq!(sent.recipient, RECIPIENT);
    // An error is JSON in each form.
    let reply = exchange(replica.address(), &request).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (429, "application/json")
    );
    assert_eq!(reply.reason(), "RESEND_TOO_SOON");
}

#[tokio::test(flavor = "multi_thread")]
async fn number_as_code_or_recipient_is_refused_and_costs_no_attempt() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let (_, code) = send(&replica, RECIPIENT).await;
    for (request, field) in [
        (
            format!(
                r#"{{"recipient":"{RECIPIENT}","code":{}}}"#,
                code.trim_start_matches('0')
            ),
            "code",
        ),
        (
            format!(r#"{{"recipient":79991234567,"code":"{code}"}}"#),
            "recipient",
        ),
        (
            format!(r#"{{"recipient":"{RECIPIENT}","code":["{code}"]}}"#),
            "code",
        ),
    ] {
        let reply = tried(&replica, "VerifyOtp", &request).await;
        assert_eq!(
            (reply.status, &*reply.reason()),
            (400, "REQUEST_INVALID"),
            "{request}"
        );
        let violation = &reply.detail("google.rpc.BadRequest")["debug"]["fieldViolations"][0];
        assert_eq!(violation["field"], field);
        let remedy = violation["description"].as_str().expect("a text");
        assert!(remedy.contains("must be a JSON string"), "{remedy}");
        assert!(!String::from_utf8_lossy(&reply.body).contains(&code));
    }
    let status = done(&replica, "GetOtpStatus", json!({ "recipient": RECIPIENT })).await;
    assert_eq!(status["attemptsRemaining"], 5);
    let right = done(
        &replica,
        "VerifyOtp",
        json!({ "recipient": RECIPIENT, "code": code }),
    )
    .await;
    assert_eq!(right["verified"], true);
}

/// Returns the log lines of requests about a recipient, without times and identifiers. Lines of
/// the delivery are last, because it runs beside the reply.
fn lines(log: &str, masked: &str) -> Vec<String> {
    // The delivery is a task of its own, and logs at any time.
    let is_request = |line: &&str| line.contains(masked) && !line.contains("provider=");
    let about = log.lines().filter(is_request);
    let fixed = about.map(|line| {
        let (_, text) = line.split_once("[OTP").expect("it is ours");
        let words = text.split(' ').filter(|word| {
            !["challenge_id=", "message_id=", "recipient="]
                .iter()
                .any(|name| word.starts_with(name))
        });
        let words: Vec<_> = words
            .map(|word| word.trim_matches(|letter: char| letter.is_ascii_digit()))
            .collect();
        words.join(" ")
    });
    let mut lines: Vec<String> = fixed.collect();
    lines.sort_by_key(|line| line.contains("Message accepted by provider"));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_and_counts_equal_those_of_grpc() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    let outcomes = async || {
        let scrape = replica.scrape().await;
        let is_counted = |name: &str| {
            name.starts_with("otpd_requests_total{")
                || name.starts_with("rpc_server_call_duration_seconds_count{")
        };
        let counted = scrape
            .series
            .into_iter()
            .filter(|(name, _)| is_counted(name));
        counted.collect::<BTreeMap<_, _>>()
    };
    let one = "+79991110001";
    let mut grpc = replica.client();
    let request = |recipient: &str| SendOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    };
    let sent = grpc
        .send_otp(request(one))
        .await
        .expect("it is sent")
        .into_inner();
    let code = replica.code(&sent.challenge_id).await;
    grpc.send_otp(request(one))
        .await
        .expect_err("it is too soon");
    for code in [Typed::Mistyped.text(&code), "x".to_owned(), code] {
        let recipient = one.to_owned();
        let request = VerifyOtpRequest {
            recipient,
            code,
            ..Default::default()
        };
        let _ = grpc.verify_otp(request).await;
    }
    let recipient = one.to_owned();
    let request = GetOtpStatusRequest {
        recipient: recipient.clone(),
        ..Default::default()
    };
    grpc.get_otp_status(request)
        .await
        .expect("there is a status");
    let request = CancelOtpRequest {
        recipient,
        ..Default::default()
    };
    grpc.cancel_otp(request).await.expect("nothing to cancel");
    replica.wait_for_line("no active code to cancel").await;
    let after_grpc = outcomes().await;

    let two = "+79991110002";
    let (_, code) = send(&replica, two).await;
    tried(
        &replica,
        "SendOtp",
        &json!({ "recipient": two }).to_string(),
    )
    .await;
    for code in [Typed::Mistyped.text(&code), "x".to_owned(), code] {
        let request = json!({ "recipient": two, "code": code });
        tried(&replica, "VerifyOtp", &request.to_string()).await;
    }
    done(&replica, "GetOtpStatus", json!({ "recipient": two })).await;
    done(&replica, "CancelOtp", json!({ "recipient": two })).await;
    replica.wait_for_lines("no active code to cancel", 2).await;
    let after_json = outcomes().await;

    let log = replica.log();
    let (by_grpc, by_json) = (lines(&log, "+7999***0001"), lines(&log, "+7999***0002"));
    assert!(by_grpc.len() > 7, "{log}");
    assert_eq!(by_grpc, by_json);
    assert!(after_grpc.len() > 6, "{after_grpc:?}");
    let is_call = |name: &str| !name.contains("_OTHER") && !name.contains("grpc.health");
    for (name, count) in after_grpc.into_iter().filter(|(name, _)| is_call(name)) {
        let count: u64 = count.parse().expect("a count");
        let sum: u64 = after_json[&name].parse().expect("a count");
        assert_eq!(sum, 2 * count, "{name}");
    }
}
