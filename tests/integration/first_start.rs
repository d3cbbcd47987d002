//! First starts: on an empty database, in an empty directory, several at once.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Database, Kind, Postgres, Replica, on_each_store};

const RECIPIENT: &str = "+79991234567";
/// A fraction of the two MiB that threads have: deep or large futures exceed it at once.
const SMALL_STACK: (&str, &str) = ("RUST_MIN_STACK", "393216");

async fn send_and_verify(replica: &Replica) {
    let mut client = replica.client();
    let sent = client
        .send_otp(SendOtpRequest {
            recipient: RECIPIENT.to_owned(),
            ..Default::default()
        })
        .await
        .expect("it is sent");
    let code = replica.code(&sent.into_inner().challenge_id).await;
    let verified = client
        .verify_otp(VerifyOtpRequest {
            recipient: RECIPIENT.to_owned(),
            code,
            ..Default::default()
        })
        .await
        .expect("there is a reply");
    assert!(verified.into_inner().verified);
}

async fn requests_fit_a_small_stack(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = Replica::start_with(&database, &[SMALL_STACK]).await;
    send_and_verify(&replica).await;
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{status}: {log}");
}

on_each_store!(requests_fit_a_small_stack);

#[tokio::test(flavor = "multi_thread")]
async fn first_start_leaves_no_error_in_the_postgresql_log() {
    let postgres = Postgres::start();
    let database = Database::in_server(&postgres.url()).await;
    let replica = Replica::start(&database).await;
    send_and_verify(&replica).await;
    assert!(replica.stop().await.0.success());
    let log = postgres.log();
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("FATAL"))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The files below a directory that other users can open.
fn open_to_others(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it exists");
    let entries = entries.map(|entry| entry.expect("it exists"));
    let open = entries.filter(|entry| {
        let metadata = entry.metadata().expect("it exists");
        metadata.is_file() && metadata.permissions().mode() & 0o077 != 0
    });
    open.map(|entry| entry.file_name().display().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn created_files_are_readable_only_by_their_owner() {
    let database = Database::new(Kind::Sqlite).await;
    let new_keys = database.directory().join("new.keys");
    let audit = database.directory().join("audit.jsonl");
    let audit = ("OTPD_AUDIT_LOG", audit.to_str().expect("it is text"));
    let replica = Replica::start_with(&database, &[audit]).await;
    send_and_verify(&replica).await;
    replica
        .command(&["keygen", "--output", new_keys.to_str().expect("it is text")])
        .done();
    for name in [
        "otpd.db",
        "otpd.db-wal",
        "otpd.db-shm",
        "otpd.db.lock",
        "audit.jsonl",
        "new.keys",
    ] {
        assert!(database.directory().join(name).exists(), "no {name}");
    }
    assert_eq!(open_to_others(&database.directory()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_file_readable_by_others_is_warned_about() {
    let database = Database::new(Kind::Sqlite).await;
    let file = database.directory().join("otpd.db");
    fs::write(&file, "").expect("the directory takes files");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let replica = Replica::start(&database).await;
    let line = replica.wait_for_line("Other users can open").await;
    assert!(line.contains("otpd.db") && line.contains("644"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_for_the_migration_of_another_process_is_logged() {
    let database = Database::new(Kind::Sqlite).await;
    let path = database.directory().join("otpd.db.lock");
    let other = fs::File::create(path).expect("the directory takes files");
    other.lock().expect("it is unused");
    let replica = Replica::launch(database.url(), &database, &[]).await;
    replica
        .wait_for_line("Waiting for another process that migrates the SQLite file")
        .await;
    other.unlock().expect("it is ours");
    replica.wait_for_health("", ServingStatus::Serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_for_an_sqlite_lock_is_logged() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let lock = database.lock_sqlite().await;
    let mut client = replica.client();
    let request = SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let (sent, _) = tokio::join!(
        client.send_otp(request),
        replica.wait_for_line("Waiting for a lock of the SQLite file"),
    );
    sent.expect_err("it cannot be written");
    lock.close().await.expect("it is ours");
    replica.wait_for_health("", ServingStatus::Serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_for_a_postgresql_lock_during_migration_is_logged() {
    let database = Database::new(Kind::Postgres).await;
    let mut other = PgConnection::connect(database.url())
        .await
        .expect("it runs");
    // No other session can create a table of that name before this one ends.
    other
        .execute("BEGIN; CREATE TABLE otp_migrations (version bigint);")
        .await
        .expect("the database is empty");
    let session: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut other)
        .await
        .expect("it is ours");
    let replica = Replica::launch(database.url(), &database, &[]).await;
    let line = replica
        .wait_for_line("Migration waits for a lock of other sessions")
        .await;
    assert!(line.contains(&format!("[{session}]")), "{line}");
    other.execute("ROLLBACK").await.expect("it is ours");
    replica.wait_for_health("", ServingStatus::Serving).await;
}
