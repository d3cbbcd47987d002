//! A log that is not read, and unauthenticated clients that try to fill it.

use std::{fs, future::Future, time::Duration};

use futures_util::future::join_all;
use otpd::grpc::v1::{GetOtpStatusRequest, otp_service_client::OtpServiceClient};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{CallerClient, Database, Kind, OPERATIONS, Replica, audited, token_digest};

const DROPPED: &str = r#"otpd_log_lines_dropped_total{sink="stdout"}"#;
/// Calls that are made at once.
const CONCURRENCY: usize = 32;

/// A server with one caller and an unread log.
async fn start_unread(database: &Database) -> Replica {
    let file = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\n",
        token_digest("known")
    ));
    let environment = [
        OPERATIONS,
        ("OTPD_CONFIG", file.as_str()),
        // Its lines are longer.
        ("OTPD_LOG_FORMAT", "json"),
        ("OTPD_LOG_LEVEL", "debug"),
    ];
    Replica::start_unread(database, &environment).await
}

/// Makes `count` calls, `CONCURRENCY` at a time.
async fn call(client: &CallerClient, count: usize, expected: Code) {
    let calls = (0..CONCURRENCY).map(|_| {
        let mut client = client.clone();
        async move {
            for _ in 0..count / CONCURRENCY {
                let request = GetOtpStatusRequest {
                    recipient: "+79991234567".to_owned(),
                    ..Default::default()
                };
                let answer = client.get_otp_status(request).await;
                let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
                assert_eq!(code, expected);
            }
        }
    });
    join_all(calls).await;
}

/// Fails a test if its server hangs.
async fn within_reason<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_mins(2), work).await;
    done.expect("the server does not wait for its log")
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_log_blocks_neither_requests_nor_health_nor_shutdown() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = start_unread(&database).await;
    let work = async {
        // More than a pipe holds.
        call(&replica.client_of("unknown"), 2_048, Code::Unauthenticated).await;
        call(&replica.client_of("known"), 2_048, Code::Ok).await;
        replica.wait_for_health("", ServingStatus::Serving).await;
        replica
            .wait_for_health("liveness", ServingStatus::Serving)
            .await;
        replica.stop_unread().await
    };
    let status = within_reason(work).await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_lines_are_counted_and_reported_once_the_log_is_read() {
    let database = Database::new(Kind::Sqlite).await;
    let mut replica = start_unread(&database).await;
    let client = replica.client_of("known");
    let scrape = async |replica: &Replica| {
        let address = replica.operations();
        assert!(address.ip().is_loopback());
        replica.scrape().await.value(DROPPED)
    };
    within_reason(async {
        while scrape(&replica).await == 0 {
            call(&client, 1_024, Code::Ok).await;
        }
    })
    .await;
    // No line is written by these.
    let dropped = scrape(&replica).await;
    replica.read_log();
    let line = within_reason(replica.wait_for_line("Log lines dropped")).await;
    assert!(line.contains(&format!(r#""dropped":{dropped}"#)), "{line}");
    assert!(line.contains(r#""sink":"stdout""#), "{line}");
    // Later lines are written again.
    let lines = replica.log().matches("Status returned").count();
    call(&client, CONCURRENCY, Code::Ok).await;
    replica
        .wait_for_lines("Status returned", lines + CONCURRENCY)
        .await;
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(log.matches("Log lines dropped").count(), 1);
    let last = log.lines().last().expect("there are lines");
    assert!(last.contains("[OTP] Stopped"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_burst_makes_few_audit_lines() {
    const WINDOW: Duration = Duration::from_secs(10);
    const CALLS: usize = 4_096;
    let database = Database::new(Kind::Sqlite).await;
    let audit = database.directory().join("audit.jsonl");
    let path = audit.display().to_string();
    let file = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\n",
        token_digest("known")
    ));
    let environment = [("OTPD_CONFIG", file.as_str()), ("OTPD_AUDIT_LOG", &path)];
    let replica = Replica::start_with(&database, &environment).await;
    let start = tokio::time::Instant::now();
    call(&replica.client_of("unknown"), CALLS, Code::Unauthenticated).await;
    // Each connection has a port of its own.
    for _ in 0..CONCURRENCY {
        let mut client = OtpServiceClient::new(replica.channel());
        let refused = client.get_otp_status(GetOtpStatusRequest::default()).await;
        refused.expect_err("it brings no token");
    }
    let (status, _) = replica.stop().await;
    assert!(status.success(), "{status}");
    let text = fs::read_to_string(&audit).expect("it exists");
    // In each window a first line and a summary, of each of two causes.
    let windows = start.elapsed().as_secs() / WINDOW.as_secs() + 1;
    let lines = u64::try_from(text.lines().count()).expect("a file has an end");
    assert!(lines <= 4 * windows, "{windows} windows: {text}");
    let calls = |cause| audited(&text, "Authentication failed", cause);
    let expected = u64::try_from(CALLS).expect("a small number");
    assert_eq!(calls("no caller has this bearer token"), expected, "{text}");
    assert_eq!(calls("no bearer token"), 32, "{text}");
}
