//! `buf curl`, a client of each protocol by another maker.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Database, Ended, Kind, Replica, repository, run};

/// Calls a method by a protocol; `more` are further arguments.
fn buf_curl(replica: &Replica, more: &[&str], method: &str, request: &Value) -> Ended {
    let buf = std::env::var_os("TEST_BUF")
        .expect("TEST_BUF names buf; run `./check tests`, which gets it into target/tools");
    let mut command = Command::new(buf);
    command
        .args(["curl", "--data", &request.to_string()])
        .args(more)
        .arg(format!(
            "http://{}/otp.v1.OtpService/{method}",
            replica.address()
        ))
        .env("HOME", repository::path("target/tmp"));
    run(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn buf_curl_calls_by_each_protocol() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let proto = repository::path("proto").display().to_string();
    let schema = ["--schema", &proto];
    for (number, protocol) in [
        &["--protocol", "connect"][..],
        &["--protocol", "connect", "--http2-prior-knowledge"],
        &["--protocol", "grpcweb"],
        &["--protocol", "grpcweb", "--http2-prior-knowledge"],
        &["--protocol", "grpc", "--http2-prior-knowledge"],
    ]
    .into_iter()
    .enumerate()
    {
        let more = [&schema[..], protocol].concat();
        let recipient = format!("+7999123456{number}");
        let request = json!({ "recipient": recipient });
        let sent = buf_curl(&replica, &more, "SendOtp", &request).done();
        let sent: Value = serde_json::from_str(&sent).expect("buf prints JSON");
        assert_eq!(sent["recipient"], recipient, "{protocol:?}");
        let error = buf_curl(&replica, &more, "SendOtp", &request).failed();
        for part in [
            "resource_exhausted",
            "google.rpc.ErrorInfo",
            "google.rpc.RetryInfo",
        ] {
            assert!(error.contains(part), "{protocol:?}: {error}");
        }
        let challenge = sent["challengeId"].as_str().expect("a text");
        let code = replica.code(challenge).await;
        let request = json!({ "recipient": recipient, "code": code });
        let verified = buf_curl(&replica, &more, "VerifyOtp", &request).done();
        assert!(
            verified.contains("VERIFY_OUTCOME_VERIFIED"),
            "{protocol:?}: {verified}"
        );
    }
}
