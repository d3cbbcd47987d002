//! The process: concurrent starts, and shutdown.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use otpd::{
    grpc::v1::{GetOtpStatusRequest, SendOtpRequest, SendOtpResponse, VerifyOtpRequest},
    key_file,
};
use sqlx::Connection as _;
use tokio::task::JoinSet;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Database, Kind, Refusal, Replica, on_each_store, otpd, run};

const PHONE: &str = "+79991234567";
/// Default location of the key file: beside the SQLite file, which for a database of a test is
/// where its prepared key file is, too.
const DEFAULT_KEYS: (&str, &str) = ("OTPD_KEYS_FILE", "");
/// Longer than any test, so that a wait of this length ends only by an event.
const VERY_LONG: &str = "1h";

async fn send(replica: &Replica) -> SendOtpResponse {
    let request = SendOtpRequest {
        recipient: PHONE.to_owned(),
        ..Default::default()
    };
    let sent = replica.client().send_otp(request).await;
    sent.expect("it is sent").into_inner()
}

async fn verifies(replica: &Replica, code: String) -> bool {
    let request = VerifyOtpRequest {
        recipient: PHONE.to_owned(),
        code,
        ..Default::default()
    };
    let verdict = replica.client().verify_otp(request).await;
    verdict.expect("there is an outcome").into_inner().verified
}

async fn knows_a_live_code(replica: &Replica) -> bool {
    let request = GetOtpStatusRequest {
        recipient: PHONE.to_owned(),
        ..Default::default()
    };
    let reply = replica.client().get_otp_status(request).await;
    reply.expect("there is a status").into_inner().live
}

#[tokio::test(flavor = "multi_thread")]
async fn development_keys_are_created_once_and_survive_restart() {
    let database = Database::sqlite();
    fs::remove_file(database.keys_file()).expect("it was prepared");

    let replica = Replica::start_with(&database, &[DEFAULT_KEYS]).await;
    let metadata = fs::metadata(database.keys_file()).expect("otpd made it");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let keys = key_file::read(&database.keys_file()).expect("otpd made it");
    let sent = send(&replica).await;
    let code = replica.code(&sent.challenge_id).await;
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{status}");
    let first = log.lines().next().expect("it logged");
    assert!(
        first.contains("[OTP] Development environment: callers are not authenticated"),
        "{first}"
    );
    assert!(first.contains("codes are printed here"), "{first}");
    let named = format!("keys=\"{}\"", database.keys_file().display());
    assert!(first.contains(&named), "{first} does not name the key file");
    assert!(
        log.lines()
            .last()
            .is_some_and(|last| last.ends_with("[OTP] Stopped")),
        "{log}"
    );

    let restarted = Replica::start_with(&database, &[DEFAULT_KEYS]).await;
    assert_eq!(
        key_file::read(&database.keys_file()).expect("it is still there"),
        keys
    );
    assert!(verifies(&restarted, code).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_starts_create_one_sqlite_file_and_one_key_file() {
    let database = Database::sqlite();
    fs::remove_file(database.keys_file()).expect("it was prepared");
    let replicas = Replica::start_many_with(&database, 2, &[DEFAULT_KEYS]).await;
    let sent = send(&replicas[0]).await;
    let code = replicas[0].code(&sent.challenge_id).await;
    assert!(verifies(&replicas[1], code).await);
    let unfinished = fs::read_dir(database.directory())
        .expect("it exists")
        .map(|entry| entry.expect("it is readable").file_name())
        .filter(|name| name.to_string_lossy().starts_with("otpd.keys."));
    assert_eq!(unfinished.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_starts_on_an_empty_postgres_all_serve() {
    let database = Database::postgres().await;
    let replicas = Replica::start_many(&database, 4).await;
    let sent = send(&replicas[0]).await;
    for replica in &replicas {
        assert!(knows_a_live_code(replica).await);
    }
    let code = replicas[0].code(&sent.challenge_id).await;
    assert!(verifies(&replicas[3], code).await);
    for replica in &replicas {
        assert!(!knows_a_live_code(replica).await);
    }
}

async fn replica_with_different_keys_does_not_start(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = Replica::start(&database).await;
    let sent = send(&replica).await;

    let other_keys = database.directory().join("other.keys");
    key_file::create(&other_keys).expect("the directory takes files");
    let line = serve(&database, &other_keys).line(64);
    assert!(
        line.starts_with("otpd: keys: the database's records were made with another index key"),
        "{line}"
    );
    let code = replica.code(&sent.challenge_id).await;
    assert!(verifies(&replica, code).await);
}

/// Runs a server that is expected to end by itself.
fn serve(database: &Database, keys_file: &Path) -> crate::support::Ended {
    run(otpd()
        .current_dir(database.directory())
        .env("DATABASE_URL", database.url())
        .env("OTPD_KEYS_FILE", keys_file)
        .env("OTPD_LISTEN", "127.0.0.1:0"))
}

async fn migrate_command_migrates_the_schema(kind: Kind) {
    let database = Database::new(kind).await;
    let migrate = |url: &str| {
        run(otpd()
            .current_dir(database.directory())
            .env("DATABASE_URL", url)
            .arg("migrate"))
    };
    for _ in 0..2 {
        let printed = migrate(database.url()).done();
        assert!(printed.starts_with("The schema of "), "{printed}");
        assert!(printed.ends_with(" is up to date.\n"), "{printed}");
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM otp_record").await, 0);
    let replica = Replica::start(&database).await;
    send(&replica).await;

    let line = migrate("sqlite::memory:").line(64);
    assert!(line.starts_with("otpd: database_url: "), "{line}");
    let line = migrate("postgres://postgres@127.0.0.1:1/absent").line(69);
    assert!(line.starts_with("otpd: database_url: "), "{line}");
    let line = migrate("sqlite:///nowhere/otpd.db").line(69);
    assert!(line.starts_with("otpd: database_url: "), "{line}");
}

/// A server, the lock that holds up the requests which it runs, and those.
async fn with_requests_running(
    database: &Database,
    count: u32,
) -> (
    Replica,
    sqlx::PgConnection,
    JoinSet<Result<String, tonic::Status>>,
) {
    let patient = [("OTPD_STORE__TIMEOUT", VERY_LONG)];
    let replica = Replica::start_with(database, &patient).await;
    let lock = database.lock_records().await;
    let mut calls = JoinSet::new();
    let client = replica.client();
    for number in 0..count {
        let mut client = client.clone();
        calls.spawn(async move {
            let request = SendOtpRequest {
                recipient: format!("+7999123{number:04}"),
                ..Default::default()
            };
            let sent = client.send_otp(request).await?;
            Ok(sent.into_inner().challenge_id)
        });
    }
    for number in 0..count {
        replica
            .wait_for_line(&format!(
                "Request received rpc=SendOtp caller=development recipient=+7999***{number:04}"
            ))
            .await;
    }
    (replica, lock, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_requests_in_flight() {
    what_runs_at_a_signal_is_finished("TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_finishes_requests_in_flight() {
    what_runs_at_a_signal_is_finished("INT").await;
}

async fn what_runs_at_a_signal_is_finished(signal: &str) {
    let database = Database::postgres().await;
    let (replica, lock, calls) = with_requests_running(&database, 8).await;
    replica.signal(signal);
    replica.wait_for_line("[OTP] Shutting down").await;
    lock.close().await.expect("the lock is given up");

    let sent = calls.join_all().await;
    let (status, log) = replica.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(
        log.lines()
            .last()
            .is_some_and(|last| last.ends_with("[OTP] Stopped")),
        "{log}"
    );
    assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
    let live = "SELECT COUNT(*) FROM otp_record WHERE state = 'live'";
    assert_eq!(database.number(live).await, 8);

    // The next replica sends the messages that were left, and none twice.
    let next = Replica::start(&database).await;
    for challenge_id in sent {
        let challenge_id = challenge_id.expect("it is finished");
        let mark = format!("challenge_id={challenge_id} recipient=");
        if !log.contains(&mark) {
            next.code(&challenge_id).await;
        }
        let logs = format!("{log}\n{}", next.log());
        assert_eq!(logs.matches(&mark).count(), 1, "{logs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_aborts_requests_in_flight() {
    let database = Database::postgres().await;
    let (replica, _lock, calls) = with_requests_running(&database, 1).await;
    replica.signal("TERM");
    replica.wait_for_line("[OTP] Shutting down").await;
    replica.signal("INT");
    let (status, log) = replica.end().await;
    assert_eq!(status.code(), Some(143));
    assert!(log.ends_with("[OTP] Aborted on second signal"), "{log}");
    for call in calls.join_all().await {
        call.expect_err("its server is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_shutdown_timeout_get_unavailable() {
    let database = Database::postgres().await;
    let short = [
        ("OTPD_SHUTDOWN_TIMEOUT", "10ms"),
        ("OTPD_STORE__TIMEOUT", VERY_LONG),
    ];
    let replica = Replica::start_with(&database, &short).await;
    let lock = database.lock_records().await;
    let mut client = replica.client();
    let call = tokio::spawn(async move {
        let request = SendOtpRequest {
            recipient: PHONE.to_owned(),
            ..Default::default()
        };
        client.send_otp(request).await
    });
    replica.wait_for_line("Request received rpc=SendOtp").await;
    replica.signal("TERM");
    let status = call
        .await
        .expect("it does not panic")
        .expect_err("there was no time");
    let refusal = Refusal::of(&status);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (tonic::Code::Unavailable, "SHUTTING_DOWN")
    );
    assert!(refusal.wait.is_some(), "{refusal:?}");
    replica
        .wait_for_line("Shutdown grace period exceeded")
        .await;
    lock.close().await.expect("the lock is given up");
    let (status, log) = replica.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("reason=SHUTTING_DOWN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reports_not_serving_before_shutdown() {
    let database = Database::sqlite();
    let replica = Replica::start_with(&database, &[("OTPD_SHUTDOWN_DELAY", VERY_LONG)]).await;
    let mut watches = Vec::new();
    for service in ["", "otp.v1.OtpService"] {
        let mut watch = replica.watch_health(service).await;
        let first = watch
            .message()
            .await
            .expect("health answers")
            .expect("at once");
        assert_eq!(first.status(), ServingStatus::Serving);
        watches.push(watch);
    }
    replica.signal("TERM");
    for mut watch in watches {
        let next = watch
            .message()
            .await
            .expect("health answers")
            .expect("a change");
        assert_eq!(next.status(), ServingStatus::NotServing);
    }

    // A client that has not noticed yet is still served, also over new connections.
    let sent = send(&replica).await;
    let code = replica.code(&sent.challenge_id).await;
    assert!(verifies(&replica, code).await);
    assert_eq!(replica.command(&["health"]).said_no(), "NOT_SERVING\n");
    let liveness = ["health", "--service", "liveness"];
    assert_eq!(replica.command(&liveness).done(), "SERVING\n");

    replica.signal("TERM");
    let (status, _) = replica.end().await;
    assert_eq!(status.code(), Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_watch_does_not_block_shutdown() {
    let database = Database::sqlite();
    let replica = Replica::start(&database).await;
    let mut watches = Vec::new();
    for service in ["", "otp.v1.OtpService", "liveness"] {
        let mut watch = replica.watch_health(service).await;
        watch
            .message()
            .await
            .expect("health answers")
            .expect("at once");
        watches.push(watch);
    }
    let (status, log) = replica.stop().await;
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
    for (mut watch, last) in watches.into_iter().zip([
        Some(ServingStatus::NotServing),
        Some(ServingStatus::NotServing),
        None,
    ]) {
        let mut seen = None;
        while let Some(change) = watch.message().await.expect("it ends in order") {
            seen = Some(change.status());
        }
        assert_eq!(seen, last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_health_check_does_not_block_shutdown() {
    let database = Database::postgres().await;
    let often = [("OTPD_STORE__PROBE_INTERVAL", "10ms")];
    let replica = Replica::start_with(&database, &often).await;
    let lock = database.lock_records().await;
    database.held_up_writer().await;

    // Longer than all its waits; without a limit a failure would hang.
    let ended = tokio::time::timeout(Duration::from_mins(1), replica.stop()).await;
    let (status, log) = ended.expect("it ends though the database does not answer");
    assert_eq!(status.code(), Some(0), "{log}");
    lock.close().await.expect("the lock is given up");
}

on_each_store! {
    replica_with_different_keys_does_not_start
    migrate_command_migrates_the_schema
}
