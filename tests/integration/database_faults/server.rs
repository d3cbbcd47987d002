//! Faults of the database server: crashes, stops, exhausted resources, replacement.

use std::process::{Command, Stdio};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    COOL_DOWN, DEADLINE, REQUESTS, SHORT_STORE_TIMEOUT, ask_many, assert_all_are_served,
    assert_all_unavailable, assert_store_unavailable, reason, remarks, send, wait_for_health,
    with_deadline,
};
use crate::support::{Database, Postgres, Replica, give_to_server_user};
use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest, otp_service_client::OtpServiceClient};

/// Maximum number of log lines of an outage; its end has one.
const MOST_LINES: usize = 5;
/// Number of codes that are sent before an outage, and after it.
const SENDS: usize = 50;

pub(super) fn assert_few_lines(replica: &Replica, start: usize) {
    let (remarks, _) = remarks(replica, start);
    let of = |text: &str| remarks.iter().filter(|line| line.contains(text)).count();
    assert_eq!(of("Store available"), 1, "{remarks:#?}");
    assert!(
        (1..=MOST_LINES).contains(&of("Store unavailable")),
        "{remarks:#?}"
    );
    assert_eq!(of("Store "), remarks.len(), "{remarks:#?}");
}

/// Sends to new recipients until the receiver of `notify` is dropped, and returns the
/// acknowledged sends. A refused send is repeated when there is a store.
async fn send_all_the_time(
    channel: Channel,
    notify: mpsc::UnboundedSender<()>,
    first: usize,
) -> Vec<(usize, String)> {
    let mut client = OtpServiceClient::new(channel.clone());
    let mut acknowledged = Vec::new();
    for number in first.. {
        let message = SendOtpRequest {
            recipient: person(number),
            ..Default::default()
        };
        match client.send_otp(with_deadline(message, DEADLINE)).await {
            Ok(reply) => {
                acknowledged.push((number, reply.into_inner().challenge_id));
                if notify.send(()).is_err() {
                    break;
                }
            }
            Err(status) => {
                assert_store_unavailable(&status);
                wait_until_it_serves(channel.clone()).await;
            }
        }
    }
    acknowledged
}

async fn wait_until_it_serves(channel: Channel) {
    let mut health = HealthClient::new(channel);
    let watched = health.watch(HealthCheckRequest::default()).await;
    let mut changes = watched.expect("health answers").into_inner();
    while let Some(change) = changes.message().await.expect("health answers") {
        if change.status() == ServingStatus::Serving {
            return;
        }
    }
}

/// More recipients than there are telephone numbers.
fn person(number: usize) -> String {
    format!("person-{number}@example.com")
}

async fn assert_all_verify(replica: &Replica, acknowledged: Vec<(usize, String)>) {
    for (number, challenge) in acknowledged {
        let message = VerifyOtpRequest {
            recipient: person(number),
            code: replica.code(&challenge).await,
            ..Default::default()
        };
        let verdict = replica.client().verify_otp(message).await;
        assert!(
            verdict.expect("there is an outcome").into_inner().verified,
            "{number}"
        );
    }
}

/// Under load the server is restarted, crashed, and killed.
#[tokio::test(flavor = "multi_thread")]
async fn database_crash_or_stop_loses_no_acknowledged_write() {
    let postgres = Postgres::start();
    let database = Database::in_server(&postgres.url()).await;
    let replica = Replica::launch(database.url(), &database, &[SHORT_STORE_TIMEOUT]).await;
    replica.wait_for_lines("Store available", 1).await;
    let ends: [fn(&Postgres); 3] = [Postgres::restart, Postgres::crash, |server| {
        server.kill();
        server.start_again();
    }];
    for (outages, end) in (1..).zip(ends) {
        wait_for_health(&replica, ServingStatus::Serving).await;
        let (_, start) = remarks(&replica, 0);
        let (notify, mut acknowledgements) = mpsc::unbounded_channel();
        let sending = send_all_the_time(replica.channel(), notify, outages * 100_000);
        let sending = tokio::spawn(sending);
        // Some are acknowledged before it, some after, and some are under way.
        for _ in 0..SENDS {
            acknowledgements.recv().await.expect("it sends");
        }
        tokio::task::block_in_place(|| end(&postgres));
        while acknowledgements.try_recv().is_ok() {}
        for _ in 0..SENDS {
            acknowledgements.recv().await.expect("it sends");
        }
        drop(acknowledgements);
        let acknowledged = sending.await.expect("every answer is as it should be");
        assert!(acknowledged.len() >= 2 * SENDS);
        // A server that is back soon enough is not even missed.
        let (remarks, _) = remarks(&replica, start);
        assert!(remarks.len() <= 1 + MOST_LINES, "{remarks:#?}");
        assert_all_verify(&replica, acknowledged).await;
    }
}

/// Another client uses all connections of the server.
#[tokio::test(flavor = "multi_thread")]
async fn exhausted_database_connections_are_reported_and_used_after_recovery() {
    let postgres = Postgres::start_with("max_connections = 8\nsuperuser_reserved_connections = 0");
    let database = Database::in_server(&postgres.url()).await;
    let mut others = Vec::new();
    let exhausted = loop {
        match PgConnection::connect(&postgres.url()).await {
            Ok(other) => others.push(other),
            Err(error) => break error.to_string(),
        }
    };
    assert!(exhausted.contains("too many clients"), "{exhausted}");
    let replica = Replica::launch(database.url(), &database, &[SHORT_STORE_TIMEOUT]).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert!(line.contains("too many clients"), "{line}");
    wait_for_health(&replica, ServingStatus::NotServing).await;
    assert_all_unavailable(ask_many(&replica, DEADLINE)).await;

    drop(others);
    wait_for_health(&replica, ServingStatus::Serving).await;
    replica.wait_for_lines("Store available", 1).await;
    assert_few_lines(&replica, 1);
    // Now otpd needs more connections than there are: requests without one are refused in time, and
    // the others continue.
    let mut acknowledged = 0;
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        match answer {
            Ok(()) => acknowledged += 1,
            Err(status) => assert_store_unavailable(&status),
        }
    }
    assert!(acknowledged > 0);
    wait_for_health(&replica, ServingStatus::Serving).await;
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}

/// A password is changed, and a role may no longer log in.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_database_user_is_reported_and_used_after_recovery() {
    let postgres = Postgres::start();
    postgres
        .admit("host all postgres 127.0.0.1/32 trust\nhost all otpd 127.0.0.1/32 scram-sha-256\n");
    postgres
        .execute("CREATE ROLE otpd LOGIN PASSWORD 'first'; SELECT pg_reload_conf()")
        .await;
    let database = Database::in_server(&postgres.url()).await;
    let mut owner = PgConnection::connect(database.url())
        .await
        .expect("it runs");
    owner
        .execute("ALTER SCHEMA public OWNER TO otpd")
        .await
        .expect("a superuser may");
    let url = database.url().replacen("postgres@", "otpd:first@", 1);
    let replica = Replica::launch(&url, &database, &[SHORT_STORE_TIMEOUT]).await;
    replica.wait_for_lines("Store available", 1).await;
    for (outages, (refuse, admit, cause)) in (1..).zip([
        (
            "ALTER ROLE otpd PASSWORD 'second'",
            "ALTER ROLE otpd PASSWORD 'first'",
            "password authentication failed",
        ),
        (
            "ALTER ROLE otpd NOLOGIN",
            "ALTER ROLE otpd LOGIN",
            "not permitted to log in",
        ),
    ]) {
        let (_, start) = remarks(&replica, 0);
        postgres.execute(refuse).await;
        // Those that are connected stay so.
        let number = 10 * outages;
        send(replica.client(), number, DEADLINE)
            .await
            .expect("there is a connection");
        postgres
            .execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'otpd'",
            )
            .await;
        wait_for_health(&replica, ServingStatus::NotServing).await;
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
        replica.wait_for_line(cause).await;
        postgres.execute(admit).await;
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica.wait_for_lines("Store available", 1 + outages).await;
        assert_few_lines(&replica, start);
        send(replica.client(), number + 1, DEADLINE)
            .await
            .expect("it is sent");
    }
}

/// Three replicas start at once on a server that has room for none of their pools at
/// their full size.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_scarce_database_connections() {
    let postgres = Postgres::start_with("max_connections = 14");
    let database = Database::in_server(&postgres.url()).await;
    let few = [("OTPD_STORE__MAX_CONNECTIONS", "2")];
    let replicas = Replica::start_many_with(&database, 3, &few).await;
    let requests: Vec<JoinSet<_>> = replicas
        .iter()
        .map(|replica| ask_many(replica, DEADLINE))
        .collect();
    for requests in requests {
        let answers = requests.join_all().await;
        assert_eq!(answers.len(), REQUESTS);
        for answer in answers {
            if let Err(status) = answer {
                assert_eq!(reason(&status), "RESEND_TOO_SOON", "{status:?}");
            }
        }
    }
}

/// A disk that is soon full; gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` if this process may not mount one.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
            .then_some(Self(directory))
    }

    /// A directory in it that is the server's own.
    fn tablespace(&self) -> std::path::PathBuf {
        let path = self.0.path().join("space");
        std::fs::create_dir(&path).expect("everybody may");
        give_to_server_user(&path);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A mount that stays only blocks the removal of its directory.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The error alone is seeded in another test, which needs no right to mount.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_reported_and_used_after_recovery() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("this user may not mount a small disk");
        return;
    };
    let postgres = Postgres::start();
    let space = disk.tablespace();
    postgres
        .execute(&format!(
            "CREATE TABLESPACE small LOCATION '{}';
             ALTER SYSTEM SET default_tablespace = 'small';
             SELECT pg_reload_conf()",
            space.display()
        ))
        .await;
    let database = Database::in_server(&postgres.url()).await;
    let replica = Replica::start_with(&database, &[SHORT_STORE_TIMEOUT]).await;
    replica.wait_for_lines("Store available", 1).await;
    let (_, start) = remarks(&replica, 0);
    let mut connection = PgConnection::connect(database.url())
        .await
        .expect("it runs");
    connection
        .execute(
            "CREATE TABLE filling (bytes bytea);
             ALTER TABLE filling ALTER bytes SET STORAGE PLAIN",
        )
        .await
        .expect("there is room yet");
    let fill = "INSERT INTO filling SELECT decode(repeat('00', 7000), 'hex')";
    let line = loop {
        if let Err(error) = connection.execute(fill).await {
            break error.to_string();
        }
    };
    assert!(line.contains("No space left"), "{line}");

    let refused = send(replica.client(), 1, DEADLINE).await;
    assert_store_unavailable(&refused.expect_err("there is no room for it"));
    wait_for_health(&replica, ServingStatus::NotServing).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert!(line.contains("No space left"), "{line}");
    assert_all_unavailable(ask_many(&replica, DEADLINE)).await;

    connection
        .execute("DROP TABLE filling")
        .await
        .expect("that needs no room");
    wait_for_health(&replica, ServingStatus::Serving).await;
    replica.wait_for_lines("Store available", 2).await;
    assert_few_lines(&replica, start);
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}

/// Another user has made the schema; the one that serves may not change it.
#[tokio::test(flavor = "multi_thread")]
async fn database_user_without_ddl_rights_serves() {
    let postgres = Postgres::start();
    let database = Database::in_server(&postgres.url()).await;
    drop(Replica::start(&database).await);
    let mut owner = PgConnection::connect(database.url())
        .await
        .expect("it runs");
    owner
        .execute(
            "CREATE ROLE otpd LOGIN;
             GRANT SELECT, INSERT, UPDATE, DELETE
             ON otp_record, otp_limit, otp_message, otp_index_key TO otpd;
             GRANT SELECT ON otp_clock, otp_migrations TO otpd",
        )
        .await
        .expect("a superuser may");
    let url = database.url().replacen("postgres@", "otpd@", 1);
    let replica = Replica::launch(&url, &database, &[]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}
