//! Leased messages at the shutdown of a replica.

use otpd::grpc::v1::DeliveryState::Sent;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{
    OFTEN, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, TAKES},
    route, send, serve,
};
use crate::support::{Kind, Replica};

/// Messages that wait without a lease.
const GIVEN_BACK: &str = "SELECT count(*) FROM otp_message, otp_clock
     WHERE state = 'queued' AND due_at <= now";

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_attempts_and_releases_leases() {
    const MESSAGES: usize = 5;
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        gateway.will("narrow", Behaviour::Holds);
        let narrow = gateway.provider("narrow", "max_concurrency = 2\ntimeout = \"60s\"");
        let routed = format!("{narrow}{}", route("default", &["narrow"]));
        let (database, replica) = serve(kind, &routed).await;
        for number in 0..MESSAGES {
            send(&replica, number, "").await;
        }
        gateway.wait_for(|state| state.open("narrow") == 2).await;
        replica.signal("TERM");
        replica.wait_for_line("[OTP] Shutting down").await;
        // The attempts still run.
        let others = i64::try_from(MESSAGES).expect("a few") - 2;
        database.wait_for_number(GIVEN_BACK, others).await;
        assert_eq!(gateway.state().open("narrow"), 2);
        gateway.will("narrow", TAKES);
        let (status, log) = replica.end().await;
        assert_eq!(status.code(), Some(0));
        assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
        let sent = "SELECT count(*) FROM otp_message WHERE state = 'sent'";
        assert_eq!(database.number(sent).await, 2);
        assert_eq!(database.number(GIVEN_BACK).await, others);
        assert_eq!(gateway.state().asked.len(), 2);

        let file = database.directory().join("otpd.toml");
        let configuration = ("OTPD_CONFIG", file.to_str().expect("a test's path"));
        let other = Replica::start_with(&database, &[configuration, OFTEN]).await;
        for number in 0..MESSAGES {
            deliveries_in(&other, (number, ""), &[Sent]).await;
        }
        let mut recipients: Vec<String> = {
            let state = gateway.state();
            state.asked.iter().map(|asked| asked.to.clone()).collect()
        };
        recipients.sort_unstable();
        let expected: Vec<String> = (0..MESSAGES).map(super::recipient).collect();
        assert_eq!(recipients, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_beyond_shutdown_timeout_is_abandoned_and_the_rest_finishes() {
    let gateway = Gateway::start().await;
    gateway.will("endless", Behaviour::Holds);
    let endless = gateway.provider("endless", "timeout = \"60s\"");
    let routed = format!(
        "shutdown_delay = \"0s\"\nshutdown_timeout = \"10ms\"\n{endless}{}",
        route("default", &["endless"])
    );
    let (_database, replica) = serve(Kind::Sqlite, &routed).await;
    send(&replica, 0, "").await;
    gateway.wait_for(|state| state.open("endless") == 1).await;
    // All connections are closed: only the message is waited for.
    replica.signal("TERM");
    let (status, log) = replica.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("Shutdown grace period exceeded"), "{log}");
    assert!(log.contains("messages=1"), "{log}");
    assert!(log.contains("[OTP] Stopped"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_releases_messages_being_reclaimed() {
    let gateway = Gateway::start().await;
    gateway.will("only", DOWN);
    let only = gateway.provider("only", "");
    let (database, replica) = serve(
        Kind::Postgres,
        &format!("{only}{}", route("default", &["only"])),
    )
    .await;
    send(&replica, 0, "").await;
    let waits = "SELECT count(*) FROM otp_message WHERE state = 'queued'";
    database.wait_for_number(waits, 1).await;
    // It is reclaimed, and the reclaiming replica waits for the store.
    let mut lock = PgConnection::connect(database.url())
        .await
        .expect("the database was made");
    lock.execute("BEGIN; LOCK TABLE otp_message IN SHARE MODE;")
        .await
        .expect("the schema is up to date");
    database.held_up_writer().await;
    replica.signal("TERM");
    replica.wait_for_line("[OTP] Shutting down").await;
    lock.close().await.expect("the lock is given up");
    let (status, _) = replica.end().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(database.number(waits).await, 1, "nobody is left to send it");
}
