//! Databases that earlier versions wrote: this version opens them and answers as the earlier
//! one would have. Stored forms (record columns, idempotency entries, sealed content, delivery
//! history) outlive the names of the types that they are made from.
//!
//! `UPDATE_STORED_DATABASE=VERSION` writes the fixture of one more version, by the binary that
//! `TEST_OTPD` names.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command};

use otpd::grpc::v1::{
    Delivery, DeliveryState, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest,
    VerifyOtpResponse, VerifyOutcome,
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::support::{Database, Kind, Refusal, Replica, on_each_store, repository, run};

/// Instant at which the store's clock starts while a fixture is written.
const WRITTEN_FROM: i64 = 1_790_000_000_000;

const LIVE: &str = "+79990000001";
const MAILBOX: &str = "user@example.com";
const SPENT: &str = "+79990000002";
const DELAYED: &str = "+79990000003";
const LOCKED: &str = "+79990000004";
const UNSENT: &str = "+79990000005";
const CLIENT_IP: &str = "192.0.2.7";

/// Purpose whose records are locked after five failed attempts.
const STRICT: &str = "strict";
/// Purpose whose messages no provider accepts while the fixture is written.
const UNDELIVERED: &str = "undelivered";

/// Configuration under which a fixture is written and served.
const POLICY: &str = r"
[policy]
ip_sends_per_hour = 6
[purposes.strict]
failure_limit = 5
";

/// Routes of the fixture's writer: nothing listens at the port of the gateway.
const UNREACHABLE_GATEWAY: &str = r#"
[providers.gateway]
kind = "http"
channel = "sms"
url = "http://127.0.0.1:9/"
allow_private_addresses = true
json = { text = "{text}" }
[providers.console]
kind = "log"
[[routes]]
purposes = ["undelivered"]
providers = ["gateway"]
[[routes]]
providers = ["console"]
"#;

/// Facts about a fixture that its database does not show.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    /// Code and challenge id by recipient.
    codes: BTreeMap<String, (String, String)>,
    /// Level of the schema.
    level: i64,
    /// Instant of the store's clock when the fixture was complete.
    written_until: i64,
}

/// Starts the store's clock at that time, in milliseconds since the Unix epoch.
async fn start_clock_at(database: &Database, instant: i64) {
    database.set_clock_offset(0).await;
    let offset = instant - database.now().await;
    database.set_clock_offset(offset).await;
}

fn directory() -> PathBuf {
    repository::path("tests/integration/fixtures/databases")
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "postgres",
        Kind::Sqlite => "sqlite",
    }
}

fn send(recipient: &str, purpose: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        client_ip: CLIENT_IP.to_owned(),
        request_id: format!("send-{recipient}"),
        ..Default::default()
    }
}

fn verify(recipient: &str, purpose: &str, code: &str, request_id: &str) -> VerifyOtpRequest {
    VerifyOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        code: code.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

/// A code that is not `code`.
fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

/// Writes live codes, idempotency entries, failures, a lockout and a queued message.
async fn write_fixture(kind: Kind, database: &Database) -> Facts {
    let configuration = database.configure(&format!("{POLICY}{UNREACHABLE_GATEWAY}"));
    let environment = [("OTPD_CONFIG", configuration.as_str())];
    drop(Replica::start_with(database, &environment).await);
    start_clock_at(database, WRITTEN_FROM).await;
    let replica = Replica::start_with(database, &environment).await;
    let mut client = replica.client();
    let mut facts = Facts {
        level: database
            .number("SELECT max(version) FROM otp_migrations")
            .await,
        ..Facts::default()
    };
    for (recipient, purpose) in [
        (LIVE, ""),
        (MAILBOX, ""),
        (SPENT, ""),
        (DELAYED, ""),
        (LOCKED, STRICT),
    ] {
        let sent = client.send_otp(send(recipient, purpose)).await;
        let sent = sent.expect("it is sent").into_inner();
        let code = replica.code(&sent.challenge_id).await;
        if [DELAYED, LOCKED].contains(&recipient) {
            for attempt in 0..5 {
                let id = format!("attempt-{attempt}");
                let request = verify(recipient, purpose, wrong(&code), &id);
                client.verify_otp(request).await.expect("a wrong code");
            }
        }
        facts
            .codes
            .insert(recipient.to_owned(), (code, sent.challenge_id));
    }
    let (code, _) = &facts.codes[LIVE];
    let request = verify(LIVE, "", wrong(code), "wrong");
    client.verify_otp(request).await.expect("a wrong code");
    let (code, _) = &facts.codes[SPENT];
    let request = verify(SPENT, "", code, "right");
    client.verify_otp(request).await.expect("the right code");
    let sent = client.send_otp(send(UNSENT, UNDELIVERED)).await;
    sent.expect("the gateway is not waited for");
    queued_after_an_attempt(&replica).await;
    for recipient in [LIVE, MAILBOX, SPENT, DELAYED, LOCKED] {
        let purpose = if recipient == LOCKED { STRICT } else { "" };
        delivery_in(&replica, recipient, purpose, DeliveryState::Sent).await;
    }
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{log}");
    facts.written_until = database.now().await;
    store_fixture(kind, database, &facts).await;
    facts
}

async fn queued_after_an_attempt(replica: &Replica) {
    loop {
        let newest = delivery_in(replica, UNSENT, UNDELIVERED, DeliveryState::Queued).await;
        if newest.attempts > 0 {
            return;
        }
    }
}

/// The newest delivery of a recipient, once it is in that state.
async fn delivery_in(
    replica: &Replica,
    recipient: &str,
    purpose: &str,
    state: DeliveryState,
) -> Delivery {
    loop {
        let request = GetOtpStatusRequest {
            recipient: recipient.to_owned(),
            purpose: purpose.to_owned(),
            ..Default::default()
        };
        let status = replica.client().get_otp_status(request).await;
        let deliveries = status.expect("it answers").into_inner().deliveries;
        let newest = deliveries.last();
        // A record without a live code shows no deliveries any more.
        if newest.is_none_or(|newest| newest.state() == state) {
            return newest.cloned().unwrap_or_default();
        }
    }
}

fn fixture(version: &str) -> PathBuf {
    directory().join(version)
}

async fn store_fixture(kind: Kind, database: &Database, facts: &Facts) {
    let version = env::var("UPDATE_STORED_DATABASE").expect("it names the version");
    let directory = fixture(&version).join(kind_name(kind));
    fs::create_dir_all(&directory).expect("the fixtures can be written");
    fs::copy(database.keys_file(), directory.join("ring.keys")).expect("a small file");
    let text = serde_json::to_string_pretty(facts).expect("texts are plain");
    fs::write(directory.join("facts.json"), text + "\n").expect("a small file");
    match kind {
        Kind::Sqlite => {
            let path = directory.join("records.db");
            drop(fs::remove_file(&path));
            let mut connection = SqliteConnection::connect(database.url())
                .await
                .expect("it exists");
            // One file without a write-ahead log beside it.
            let statement = format!("VACUUM INTO '{}'", path.display());
            let copied = connection.execute(AssertSqlSafe(statement)).await;
            copied.expect("a copy");
        }
        Kind::Postgres => {
            let binaries = PathBuf::from(env::var_os("TEST_POSTGRES_BIN").expect("see ./check"));
            let dump = run(Command::new(binaries.join("pg_dump")).args([
                "--inserts",
                "--no-owner",
                "--no-privileges",
                &format!("--dbname={}", database.url()),
            ]))
            .done();
            // Settings that other releases of PostgreSQL do not know, and psql's own commands.
            let kept = dump.lines().filter(|line| {
                let is_data = !line.starts_with("SET ") && !line.starts_with('\\');
                is_data && !line.starts_with("--") && !line.is_empty()
            });
            let text = kept.collect::<Vec<_>>().join("\n");
            fs::write(directory.join("records.sql"), text + "\n").expect("a small file");
        }
    }
}

/// The database of a fixture, in a database of its own, with the keys that it was written with.
async fn restored(kind: Kind, version: &str) -> (Database, Facts) {
    let directory = fixture(version).join(kind_name(kind));
    let database = Database::new(kind).await;
    fs::copy(directory.join("ring.keys"), database.keys_file()).expect("a small file");
    match kind {
        Kind::Sqlite => {
            let path = database.directory().join("otpd.db");
            fs::copy(directory.join("records.db"), path).expect("a small file");
        }
        Kind::Postgres => {
            let text = fs::read_to_string(directory.join("records.sql")).expect("it is kept");
            let mut connection = PgConnection::connect(database.url())
                .await
                .expect("it was made");
            let loaded = connection.execute(AssertSqlSafe(text)).await;
            loaded.expect("a dump of PostgreSQL's own");
        }
    }
    let facts = fs::read_to_string(directory.join("facts.json")).expect("it is kept");
    (database, serde_json::from_str(&facts).expect("it is ours"))
}

fn versions() -> Vec<String> {
    let entries = fs::read_dir(directory()).expect("the fixtures are there");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("a plain name"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// Serves a restored fixture and compares each answer with the facts.
async fn serves(kind: Kind, version: &str) {
    let (database, facts) = restored(kind, version).await;
    start_clock_at(&database, facts.written_until).await;
    let configuration = database.configure(POLICY);
    let environment = [
        ("OTPD_CONFIG", configuration.as_str()),
        ("OTPD_DELIVERY__POLL_INTERVAL", "50ms"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let level = database
        .number("SELECT max(version) FROM otp_migrations")
        .await;
    assert!(level >= facts.level, "{version}");

    replays_idempotency_entries(&replica, &facts).await;
    verifies_live_codes(&replica, &facts).await;
    keeps_lockouts(&replica, &facts).await;
    keeps_rate_limits(&replica).await;
    delivers_the_queued_message(&replica).await;
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

async fn verified(replica: &Replica, request: VerifyOtpRequest) -> VerifyOtpResponse {
    let reply = replica.client().verify_otp(request).await;
    reply.expect("a verdict").into_inner()
}

async fn replays_idempotency_entries(replica: &Replica, facts: &Facts) {
    let (code, challenge_id) = &facts.codes[LIVE];
    let reply = replica.client().send_otp(send(LIVE, "")).await;
    let reply = reply.expect("the first answer again").into_inner();
    assert_eq!(&reply.challenge_id, challenge_id);
    let reply = verified(replica, verify(LIVE, "", wrong(code), "wrong")).await;
    assert_eq!(reply.outcome(), VerifyOutcome::WrongCode);
    assert_eq!(reply.attempts_remaining, 4);
    let (code, _) = &facts.codes[SPENT];
    let reply = verified(replica, verify(SPENT, "", code, "right")).await;
    assert_eq!(reply.outcome(), VerifyOutcome::Verified);
    let reply = verified(replica, verify(SPENT, "", code, "again")).await;
    assert_eq!(reply.outcome(), VerifyOutcome::NotFound);
}

async fn verifies_live_codes(replica: &Replica, facts: &Facts) {
    for recipient in [LIVE, MAILBOX] {
        let (code, challenge_id) = &facts.codes[recipient];
        let mut request = verify(recipient, "", code, "");
        request.challenge_id.clone_from(challenge_id);
        let reply = verified(replica, request).await;
        assert_eq!(reply.outcome(), VerifyOutcome::Verified, "{recipient}");
        assert_eq!(reply.recipient, recipient);
    }
}

async fn keeps_lockouts(replica: &Replica, facts: &Facts) {
    for (recipient, purpose, reason) in [
        (DELAYED, "", "VERIFY_DELAYED"),
        (LOCKED, STRICT, "VERIFY_LOCKED"),
    ] {
        let (code, _) = &facts.codes[recipient];
        let request = verify(recipient, purpose, code, "");
        let refused = replica.client().verify_otp(request).await;
        let refusal = Refusal::of(&refused.expect_err("it must wait"));
        assert_eq!(refusal.reason, reason, "{recipient}");
    }
}

/// The writer consumed the limit of the address.
async fn keeps_rate_limits(replica: &Replica) {
    let refused = replica.client().send_otp(send("+79990000006", "")).await;
    let refusal = Refusal::of(&refused.expect_err("the limit of the address is consumed"));
    assert_eq!(refusal.reason, "SEND_LIMIT");
}

async fn delivers_the_queued_message(replica: &Replica) {
    let line = replica.wait_for_line(&format!("recipient={UNSENT}")).await;
    let (_, rest) = line
        .split_once("Generated OTP: ")
        .expect("the log provider");
    let reply = verified(replica, verify(UNSENT, UNDELIVERED, &rest[..6], "")).await;
    assert_eq!(reply.outcome(), VerifyOutcome::Verified);
}

async fn database_of_an_earlier_version_is_served(kind: Kind) {
    if let Ok(version) = env::var("UPDATE_STORED_DATABASE") {
        let database = Database::new(kind).await;
        write_fixture(kind, &database).await;
        println!("wrote the fixture of {version}");
        return;
    }
    for version in versions() {
        serves(kind, &version).await;
    }
}

on_each_store! { database_of_an_earlier_version_is_served }
