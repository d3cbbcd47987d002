//! Errors of the contract in the form of Connect, each beside the status of gRPC.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use otpd::grpc::v1::{CancelOtpRequest, SendOtpRequest, VerifyOtpRequest};
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::support::{
    Database, Kind, Refusal, Replica,
    http1::{HttpReply, call},
    token_digest,
};

const ANN: &str = "+79991234567";
const BOB: &str = "+79997654321";

async fn serve(database: &Database) -> Replica {
    let configuration = database.configure(&format!(
        r#"
[policy]
sends_per_day = 1
max_attempts = 1
failure_limit = 2
failure_delay = "1m"
ip_failures_per_hour = 1
[purposes.again]
resend_after = "0s"
sends_per_hour = 1
[callers.crm]
token_sha256 = ["{}"]
purposes = ["login", "again", "lock"]
destinations = ["RU"]
"#,
        token_digest("known")
    ));
    Replica::start_with(database, &[("OTPD_CONFIG", &configuration)]).await
}

/// Checks that an error says in JSON the same as the status of gRPC for the same request.
#[track_caller]
fn equals(reply: &HttpReply, status: &Status) {
    let refusal = Refusal::of(status);
    let json = reply.json();
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.reason(), refusal.reason, "{json}");
    let (http, code) = match refusal.code {
        Code::InvalidArgument => (400, "invalid_argument"),
        Code::FailedPrecondition => (400, "failed_precondition"),
        Code::Unauthenticated => (401, "unauthenticated"),
        Code::PermissionDenied => (403, "permission_denied"),
        Code::ResourceExhausted => (429, "resource_exhausted"),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (reply.status, json["code"].as_str()),
        (http, Some(code)),
        "{json}"
    );
    let info = reply.detail("google.rpc.ErrorInfo");
    let bytes = STANDARD_NO_PAD.decode(info["value"].as_str().expect("a text"));
    let decoded = pb::ErrorInfo::decode(&*bytes.expect("base64 without padding"));
    let decoded = decoded.expect("a message");
    assert_eq!(
        (&*decoded.reason, &*decoded.domain),
        (&*refusal.reason, "otp.v1")
    );
    let names: Vec<_> = decoded.metadata.keys().collect();
    for name in names {
        assert!(info["debug"]["metadata"][name].is_string(), "{info}");
    }
    let violation = &reply.detail("google.rpc.BadRequest")["debug"]["fieldViolations"][0];
    assert_eq!(
        violation["field"].as_str().unwrap_or_default(),
        refusal.field,
        "{json}"
    );
    assert_eq!(
        violation["description"].as_str().unwrap_or_default(),
        refusal.remedy
    );
    let delay = &reply.detail("google.rpc.RetryInfo")["debug"]["retryDelay"];
    assert_eq!(delay.is_string(), refusal.wait.is_some(), "{json}");
    let retry_after: Option<u64> = reply.header("retry-after").parse().ok();
    let seconds = refusal.wait.map(|wait| wait.as_secs_f64());
    assert_eq!(retry_after.is_some(), seconds.is_some(), "{reply:?}");
    if let (Some(retry_after), Some(seconds)) = (retry_after, seconds) {
        let retry_after = f64::from(u32::try_from(retry_after).expect("below a century"));
        assert!(
            (retry_after - seconds).abs() < 10.0,
            "{retry_after} {seconds}"
        );
    }
}

/// Makes a call that is refused in both forms, and compares them; returns the reason.
async fn refused(replica: &Replica, method: &str, request: serde_json::Value) -> String {
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let mut grpc = replica.client_of("known");
    let status = match method {
        "SendOtp" => {
            let channel = i32::try_from(request["channel"].as_i64().unwrap_or_default());
            let request = SendOtpRequest {
                recipient: text("recipient"),
                purpose: text("purpose"),
                client_ip: text("clientIp"),
                channel: channel.expect("it is small"),
                ..Default::default()
            };
            grpc.send_otp(request).await.map(drop)
        }
        "VerifyOtp" => {
            let request = VerifyOtpRequest {
                recipient: text("recipient"),
                purpose: text("purpose"),
                code: text("code"),
                client_ip: text("clientIp"),
                ..Default::default()
            };
            grpc.verify_otp(request).await.map(drop)
        }
        _ => {
            let request = CancelOtpRequest {
                recipient: text("recipient"),
                purpose: text("purpose"),
                reset_failures: true,
                ..Default::default()
            };
            grpc.cancel_otp(request).await.map(drop)
        }
    };
    let status = status.expect_err(method);
    let proof = [("authorization", "Bearer known")];
    let reply = call(replica.address(), method, &proof, &request.to_string()).await;
    equals(&reply, &status);
    reply.reason()
}

/// Makes a call that is answered.
async fn accepted(
    replica: &Replica,
    method: &str,
    request: serde_json::Value,
) -> serde_json::Value {
    let proof = [("authorization", "Bearer known")];
    let reply = call(replica.address(), method, &proof, &request.to_string()).await;
    assert_eq!(reply.status, 200, "{request}: {}", reply.json());
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_has_the_same_details_as_in_grpc() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database).await;
    let mut seen = Vec::new();
    for (method, request) in [
        (
            "SendOtp",
            json!({ "recipient": "hello", "purpose": "login" }),
        ),
        ("SendOtp", json!({ "recipient": ANN, "purpose": "LOGIN" })),
        (
            "VerifyOtp",
            json!({ "recipient": ANN, "purpose": "login", "code": "x" }),
        ),
        (
            "SendOtp",
            json!({ "recipient": ANN, "purpose": "login", "clientIp": "x" }),
        ),
        ("SendOtp", json!({ "recipient": ANN, "purpose": "payment" })),
        (
            "SendOtp",
            json!({ "recipient": "+447911123456", "purpose": "login" }),
        ),
        (
            "CancelOtp",
            json!({ "recipient": ANN, "purpose": "login", "resetFailures": true }),
        ),
    ] {
        seen.push(refused(&replica, method, request).await);
    }
    let send =
        |recipient: &str, purpose: &str| json!({ "recipient": recipient, "purpose": purpose });
    accepted(&replica, "SendOtp", send(ANN, "login")).await;
    seen.push(refused(&replica, "SendOtp", send(ANN, "login")).await);
    accepted(&replica, "SendOtp", send(ANN, "again")).await;
    seen.push(refused(&replica, "SendOtp", send(ANN, "again")).await);
    let wrong = |recipient: &str, ip: &str| json!({ "recipient": recipient, "purpose": "lock", "code": "000000", "clientIp": ip });
    for recipient in [ANN, BOB] {
        accepted(&replica, "SendOtp", send(recipient, "lock")).await;
    }
    let verdict = accepted(&replica, "VerifyOtp", wrong(ANN, "203.0.113.7")).await;
    assert_eq!(verdict["verified"], false);
    seen.push(refused(&replica, "VerifyOtp", wrong(BOB, "203.0.113.7")).await);
    seen.push(refused(&replica, "VerifyOtp", wrong(ANN, "203.0.113.8")).await);
    assert_eq!(
        seen,
        [
            "RECIPIENT_INVALID",
            "PURPOSE_INVALID",
            "CODE_MALFORMED",
            "REQUEST_INVALID",
            "PURPOSE_NOT_ALLOWED",
            "DESTINATION_BLOCKED",
            "RESET_NOT_ALLOWED",
            "RESEND_TOO_SOON",
            "SEND_LIMIT",
            "VERIFY_LIMIT",
            "VERIFY_DELAYED",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_callers_are_refused_before_their_message() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database).await;
    let mut grpc = replica.client_of("unknown");
    let status = grpc.send_otp(SendOtpRequest::default()).await;
    let status = status.expect_err("it is not known");
    for body in [
        "",
        "{",
        r#"{"recipient":"+79991234567"}"#,
        &" ".repeat(70_000),
    ] {
        for proof in ["Bearer unknown", "Basic a25vd24=", "known"] {
            let reply = call(
                replica.address(),
                "SendOtp",
                &[("authorization", proof)],
                body,
            )
            .await;
            equals(&reply, &status);
        }
    }
    let records = database.number("SELECT COUNT(*) FROM otp_record").await;
    assert_eq!(records, 0);
}
