//! Use with grpcurl, which knows only the server's address.

use std::{ffi::OsString, process::Command};

use tokio_stream::{StreamExt as _, once};
use tonic_reflection::pb::{
    v1::{self, server_reflection_client::ServerReflectionClient as V1Client},
    v1alpha::{self, server_reflection_client::ServerReflectionClient as V1AlphaClient},
};

use crate::support::{Database, Ended, Kind, Replica, run};

/// Services other than reflection, of which each version lists only itself.
const SERVICES: [&str; 2] = ["grpc.health.v1.Health", "otp.v1.OtpService"];
const REFLECTION: &str = "grpc.reflection.";

fn grpcurl() -> OsString {
    std::env::var_os("TEST_GRPCURL").expect(
        "TEST_GRPCURL names the binary of grpcurl; run `./check tests`, which gets one into target/tools",
    )
}

/// Asks the server's own description, since no other is given.
fn describe(replica: &Replica, arguments: &[&str]) -> String {
    let mut command = Command::new(grpcurl());
    command.arg("-plaintext").arg(replica.address().to_string());
    run(command.args(arguments)).done()
}

fn call(replica: &Replica, method: &str, request: &str) -> Ended {
    let mut command = Command::new(grpcurl());
    command
        .args(["-plaintext", "-d", request])
        .arg(replica.address().to_string());
    run(command.arg(method))
}

/// A field of a reply, as grpcurl prints it.
fn field(reply: &str, name: &str) -> serde_json::Value {
    let reply: serde_json::Value = serde_json::from_str(reply).expect("grpcurl prints JSON");
    reply[name].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_lists_describes_and_calls_by_reflection() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;

    let listed = describe(&replica, &["list"]);
    let services = listed.lines().filter(|name| !name.starts_with(REFLECTION));
    assert_eq!(services.collect::<Vec<_>>(), SERVICES);
    let methods = describe(&replica, &["list", "otp.v1.OtpService"]);
    assert_eq!(
        methods.lines().collect::<Vec<_>>(),
        [
            "otp.v1.OtpService.CancelOtp",
            "otp.v1.OtpService.GetOtpStatus",
            "otp.v1.OtpService.SendOtp",
            "otp.v1.OtpService.VerifyOtp",
        ]
    );
    let method = describe(&replica, &["describe", "otp.v1.OtpService.SendOtp"]);
    assert!(
        method
            .contains("rpc SendOtp ( .otp.v1.SendOtpRequest ) returns ( .otp.v1.SendOtpResponse )"),
        "{method}"
    );
    let message = describe(&replica, &["describe", "otp.v1.SendOtpRequest"]);
    assert!(
        message.contains("map<string, string> variables = 8;"),
        "{message}"
    );

    let request = r#"{"recipient": "8 (999) 123-45-67", "region": "RU"}"#;
    let sent = call(&replica, "otp.v1.OtpService/SendOtp", request).done();
    assert_eq!(field(&sent, "recipient"), "+79991234567");
    assert_eq!(field(&sent, "channel"), "CHANNEL_SMS");
    let challenge_id = field(&sent, "challengeId");
    let code = replica.code(challenge_id.as_str().expect("a text")).await;
    let request = format!(r#"{{"recipient": "+79991234567", "code": "{code}"}}"#);
    let verdict = call(&replica, "otp.v1.OtpService/VerifyOtp", &request).done();
    assert_eq!(field(&verdict, "verified"), true);
    assert_eq!(field(&verdict, "outcome"), "VERIFY_OUTCOME_VERIFIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn error_details_are_readable() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let shown = |method: &str, request: &str, words: &[&str]| {
        let complaint = call(&replica, method, request).failed();
        for word in words {
            assert!(complaint.contains(word), "no {word} in {complaint}");
        }
    };
    shown(
        "otp.v1.OtpService/SendOtp",
        r#"{"recipient": "hello"}"#,
        &[
            "Code: InvalidArgument",
            "type.googleapis.com/google.rpc.ErrorInfo",
            r#""reason":"RECIPIENT_INVALID""#,
            r#""domain":"otp.v1""#,
            "type.googleapis.com/google.rpc.BadRequest",
            r#""field":"recipient""#,
        ],
    );
    let request = r#"{"recipient": "+79991234567"}"#;
    call(&replica, "otp.v1.OtpService/SendOtp", request).done();
    shown(
        "otp.v1.OtpService/SendOtp",
        request,
        &[
            "Code: ResourceExhausted",
            r#""reason":"RESEND_TOO_SOON""#,
            r#""challenge_id":""#,
            "type.googleapis.com/google.rpc.RetryInfo",
            r#""retryDelay":""#,
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_distinguishes_liveness_from_readiness() {
    let database = Database::new(Kind::Sqlite).await;
    let serving = Replica::start(&database).await;
    let absent = "postgres://postgres@127.0.0.1:1/absent";
    let without_store = Replica::launch(absent, &database, &[]).await;
    for (replica, service, expected) in [
        (&serving, "", "SERVING"),
        (&serving, "otp.v1.OtpService", "SERVING"),
        (&serving, "liveness", "SERVING"),
        (&without_store, "", "NOT_SERVING"),
        (&without_store, "otp.v1.OtpService", "NOT_SERVING"),
        (&without_store, "liveness", "SERVING"),
    ] {
        let request = format!(r#"{{"service": "{service}"}}"#);
        let status = call(replica, "grpc.health.v1.Health/Check", &request).done();
        assert_eq!(field(&status, "status"), expected, "{service:?}");
    }
    let unknown = call(
        &serving,
        "grpc.health.v1.Health/Check",
        r#"{"service": "x"}"#,
    )
    .failed();
    assert!(unknown.contains("Code: NotFound"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_reflection_versions_are_served() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;

    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
        ..Default::default()
    };
    let mut answers = V1Client::new(replica.channel())
        .server_reflection_info(once(request))
        .await
        .expect("v1 answers")
        .into_inner();
    let answer = answers
        .next()
        .await
        .expect("one answer")
        .expect("it is one");
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("{answer:?}");
    };
    let mut names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    names.retain(|name| !name.starts_with(REFLECTION));
    names.sort();
    assert_eq!(names, SERVICES);

    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "google.rpc.RetryInfo".to_owned(),
            ),
        ),
        ..Default::default()
    };
    let mut answers = V1AlphaClient::new(replica.channel())
        .server_reflection_info(once(request))
        .await
        .expect("v1alpha answers")
        .into_inner();
    let answer = answers
        .next()
        .await
        .expect("one answer")
        .expect("it is one");
    let described = matches!(
        answer.message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
    );
    assert!(described, "{answer:?}");
}
