//! Control of the log: deduplication, the level at run time, the audit log.

use std::fs;

use otpd::grpc::v1::{GetOtpStatusRequest, SendOtpRequest};
use serde_json::Value;

use crate::{
    outbox::gateway::{DOWN, Gateway},
    support::{Database, Kind, OPERATIONS, Replica, audited, otpd, run, token_digest},
};

const LEFT_OUT: &str = "otpd_log_lines_suppressed_total";
/// Longer than any test.
const FOR_EVER: (&str, &str) = ("OTPD_LOG_DEDUP_WINDOW", "1h");

fn send(recipient: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_warnings_are_deduplicated() {
    let gateway = Gateway::start().await;
    let database = Database::new(Kind::Sqlite).await;
    let provider = |name| gateway.provider(name, "breaker_failures = 1000");
    let file = database.configure(&format!(
        "{}{}\n[[routes]]\nproviders = [\"one\", \"two\"]\n",
        provider("one"),
        provider("two")
    ));
    gateway.will("one", DOWN);
    let environment = [OPERATIONS, FOR_EVER, ("OTPD_CONFIG", file.as_str())];
    let replica = Replica::start_with(&database, &environment).await;
    let mut client = replica.client();
    for number in 0..20 {
        let sent = client.send_otp(send(&format!("+7999{number:07}"))).await;
        sent.expect("it is queued");
    }
    // Each message fails with one and is taken by two.
    replica
        .wait_for_lines("Message accepted by provider", 20)
        .await;
    let failed = "Delivery attempt failed";
    assert_eq!(
        replica.log().matches(failed).count(),
        1,
        "{}",
        replica.log()
    );
    assert_eq!(replica.scrape().await.value(LEFT_OUT), 19);

    // Another cause has a line of its own.
    gateway.will("two", DOWN);
    client.send_otp(send("+79995555555")).await.expect("queued");
    replica.wait_for_lines(failed, 2).await;
    let lines = replica.log();
    let lines: Vec<&str> = lines.lines().filter(|line| line.contains(failed)).collect();
    assert!(lines[0].contains("provider=\"one\""), "{lines:?}");
    assert!(lines[1].contains("provider=\"two\""), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn suppressed_warnings_are_reported_after_the_window() {
    let gateway = Gateway::start().await;
    gateway.will("one", DOWN);
    let database = Database::new(Kind::Sqlite).await;
    let file = database.configure(&format!(
        "{}\n[[routes]]\nproviders = [\"one\"]\n",
        gateway.provider("one", "breaker_failures = 1000000")
    ));
    let environment = [
        OPERATIONS,
        ("OTPD_LOG_DEDUP_WINDOW", "500ms"),
        ("OTPD_LOG_FORMAT", "json"),
        ("OTPD_DELIVERY__POLL_INTERVAL", "50ms"),
        ("OTPD_CONFIG", &file),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let mut client = replica.client();
    let mut number = 0;
    while !replica.log().contains("left_out") {
        number += 1;
        let sent = client.send_otp(send(&format!("+7999{number:07}"))).await;
        sent.expect("it is queued");
    }
    let line = replica.wait_for_line("left_out").await;
    let line: Value = serde_json::from_str(&line).expect("it is still JSON");
    assert!(line["left_out"].as_u64().expect("a number") > 0, "{line}");
    assert_eq!(line["message"], "[OTP] Delivery attempt failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_level_is_set_at_run_time() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    let ask = || async {
        let about = GetOtpStatusRequest {
            recipient: "+79991234567".to_owned(),
            ..Default::default()
        };
        let reply = replica.client().get_otp_status(about).await;
        reply.expect("there is a status");
    };
    let level = || replica.operate("GET", "/log-level", "");
    assert_eq!(level().await, (200, "info\n".to_owned()));
    ask().await;
    replica.wait_for_lines("Status returned", 1).await;

    let set = replica.operate("PUT", "/log-level", "warn\n").await;
    assert_eq!(set, (200, "warn\n".to_owned()));
    replica.wait_for_line("[OTP AUDIT] Log level set").await;
    ask().await;
    for bad in ["", "loud", "WARN", &"x".repeat(100)] {
        let (status, reply) = replica.operate("PUT", "/log-level", bad).await;
        assert_eq!(status, 400, "{reply}");
    }
    assert_eq!(replica.operate("POST", "/log-level", "info").await.0, 405);
    assert_eq!(level().await, (200, "warn\n".to_owned()));

    replica.operate("PUT", "/log-level", "info").await;
    ask().await;
    replica.wait_for_lines("Status returned", 2).await;
    assert_eq!(replica.log().matches("Status returned").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_log_has_its_own_file() {
    let database = Database::new(Kind::Sqlite).await;
    let audit = database.directory().join("audit.jsonl");
    let file = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\n",
        token_digest("known")
    ));
    let path = audit.display().to_string();
    fs::write(&audit, "{\"before\":true}\n").expect("the directory takes files");
    let environment = [
        ("OTPD_CONFIG", file.as_str()),
        ("OTPD_AUDIT_LOG", &path),
        // However often they say the same.
        FOR_EVER,
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let mut stranger = replica.client_of("unknown");
    for _ in 0..3 {
        stranger
            .send_otp(send("+79991234567"))
            .await
            .expect_err("it is unknown");
    }
    let (status, log) = replica.stop().await;
    assert!(status.success());
    assert!(!log.contains("[OTP AUDIT]"), "{log}");
    let text = fs::read_to_string(&audit).expect("it exists");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines[0]["before"], true);
    assert_eq!(lines[1]["message"], "[OTP AUDIT] Authentication failed");
    assert_eq!(lines[1]["rpc"], "SendOtp");
    assert!(lines[1]["timestamp"].is_string(), "{text}");
    assert_eq!(audited(&text, "Authentication failed", ""), 3, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_audit_log_is_reopened_after_sighup() {
    let database = Database::new(Kind::Sqlite).await;
    let audit = database.directory().join("audit.jsonl");
    let rotated = database.directory().join("audit.jsonl.1");
    let file = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\n",
        token_digest("known")
    ));
    let path = audit.display().to_string();
    let environment = [
        OPERATIONS,
        ("OTPD_CONFIG", file.as_str()),
        ("OTPD_AUDIT_LOG", &path),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let set_level = async || replica.operate("PUT", "/log-level", "info").await;
    let lines = |path| {
        let text = fs::read_to_string(path).expect("it exists");
        text.matches("Log level set").count()
    };
    set_level().await;
    while lines(&audit) < 1 {
        tokio::task::yield_now().await;
    }
    fs::rename(&audit, &rotated).expect("it exists");
    set_level().await;
    replica.signal("HUP");
    // The configuration is read after the file has been opened again.
    replica.wait_for_line("Configuration reloaded").await;
    set_level().await;
    let (status, _) = replica.stop().await;
    assert!(status.success());
    assert_eq!((lines(&rotated), lines(&audit)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn unwritable_audit_log_prevents_start() {
    let database = Database::new(Kind::Sqlite).await;
    let ended = run(otpd()
        .current_dir(database.directory())
        .env("OTPD_LISTEN", "127.0.0.1:0")
        .env("OTPD_AUDIT_LOG", "/nowhere/audit"));
    let line = ended.line(64);
    assert!(line.contains("audit_log: cannot be opened"), "{line}");
}
