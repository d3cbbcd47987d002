//! Failover: the primary changes among several servers.

use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    DEADLINE, REQUESTS, SHORT_STORE_TIMEOUT, ask_many, assert_all_unavailable, recipient, remarks,
    send, wait_for_health,
};
use crate::support::{Database, Postgres, Replica};
use otpd::grpc::v1::VerifyOtpRequest;

/// A primary, a standby that has every acknowledged write, and a database in them.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    database: Database,
}

impl Pair {
    async fn start() -> Self {
        let primary = Postgres::start();
        let database = Database::in_server(&primary.url()).await;
        let standby = primary.standby();
        primary
            .execute("ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()")
            .await;
        Self {
            primary,
            standby,
            database,
        }
    }

    /// Both, in this order.
    fn url(&self, servers: [&Postgres; 2]) -> String {
        let (_, name) = self.database.url().rsplit_once('/').expect("it has a name");
        let [first, second] = servers.map(Postgres::address);
        format!("postgres://postgres@{first},{second}/{name}?target_session_attrs=read-write")
    }
}

/// Sends a code to each of some recipients, and returns the codes.
async fn send_codes(replica: &Replica, numbers: std::ops::Range<usize>) -> Vec<(usize, String)> {
    let mut codes = Vec::new();
    for number in numbers {
        let challenge = send(replica.client(), number, DEADLINE)
            .await
            .expect("it is sent");
        codes.push((number, replica.code(&challenge).await));
    }
    codes
}

async fn assert_verified(replica: &Replica, codes: Vec<(usize, String)>) {
    for (number, code) in codes {
        let message = VerifyOtpRequest {
            recipient: recipient(number),
            code,
            ..Default::default()
        };
        let verdict = replica.client().verify_otp(message).await;
        assert!(verdict.expect("there is an outcome").into_inner().verified);
    }
}

fn lines_with(remarks: &[String], text: &str) -> usize {
    remarks.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_standby_takes_over_without_losing_acknowledged_writes() {
    let pair = Pair::start().await;
    let url = pair.url([&pair.primary, &pair.standby]);
    // The order in which they are named makes no difference.
    let turned = pair.url([&pair.standby, &pair.primary]);
    let one = Replica::launch(&url, &pair.database, &[SHORT_STORE_TIMEOUT]).await;
    let other = Replica::launch(&turned, &pair.database, &[SHORT_STORE_TIMEOUT]).await;
    for replica in [&one, &other] {
        wait_for_health(replica, ServingStatus::Serving).await;
    }
    let codes = send_codes(&one, 0..10).await;
    let start = remarks(&one, 0).1;

    pair.primary.kill();
    for replica in [&one, &other] {
        wait_for_health(replica, ServingStatus::NotServing).await;
        assert_all_unavailable(ask_many(replica, DEADLINE)).await;
    }
    pair.standby.promote();
    for replica in [&one, &other] {
        wait_for_health(replica, ServingStatus::Serving).await;
    }
    one.wait_for_lines("Store available", 2).await;
    assert_verified(&other, codes).await;
    let codes = send_codes(&one, 100..110).await;
    let (remarks, _) = remarks(&one, start);
    assert_eq!(lines_with(&remarks, "Switched to another database host"), 1);
    assert_eq!(lines_with(&remarks, "Store available"), 1);
    let outage = &remarks[0];
    assert!(outage.contains("Store unavailable cause=no server accepts writes ("));
    assert!(outage.contains("the database is read-only"), "{outage}");
    // The other lines are about the end of the old server.
    assert!(remarks.len() <= 6, "{remarks:#?}");

    // The old primary does not know that it was replaced: it accepts writes and waits for a standby
    // that no longer follows it. A replica that starts now still finds the new primary.
    pair.primary.start_again();
    pair.primary
        .execute("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")
        .await;
    let late = Replica::launch(&url, &pair.database, &[SHORT_STORE_TIMEOUT]).await;
    wait_for_health(&late, ServingStatus::Serving).await;
    assert_verified(&late, codes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_host_is_left_for_the_primary() {
    let pair = Pair::start().await;
    let url = pair.url([&pair.primary, &pair.standby]);
    let replica = Replica::launch(&url, &pair.database, &[]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    // So that there are connections to be left.
    let sent = ask_many(&replica, DEADLINE).join_all().await;
    assert_eq!(
        sent.iter().filter(|answer| answer.is_ok()).count(),
        REQUESTS
    );
    let codes = send_codes(&replica, 200..205).await;

    // It goes on, and so do its connections.
    pair.primary
        .execute("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
        .await;
    wait_for_health(&replica, ServingStatus::NotServing).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert_eq!(
        line.matches("the database is read-only").count(),
        2,
        "{line}"
    );
    assert_all_unavailable(ask_many(&replica, DEADLINE)).await;

    pair.standby.promote();
    wait_for_health(&replica, ServingStatus::Serving).await;
    assert_verified(&replica, codes).await;
    // And back, once the other one is gone and this one takes writes again.
    pair.standby.stop();
    pair.primary
        .execute(
            "SET default_transaction_read_only = off;
             ALTER SYSTEM RESET default_transaction_read_only;
             ALTER SYSTEM RESET synchronous_standby_names;
             SELECT pg_reload_conf()",
        )
        .await;
    replica
        .wait_for_lines("Switched to another database host", 2)
        .await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    send_codes(&replica, 300..305).await;
}
