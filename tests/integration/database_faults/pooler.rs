//! PgBouncer between otpd and its database.

use std::time::Duration;

use otpd::store::SESSION_OPTIONS;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    COOL_DOWN, DEADLINE, ask_many, assert_all_are_served, assert_all_unavailable,
    assert_one_line_each, remarks, wait_for_health,
};
use crate::support::{Database, PgBouncer, Replica};

/// Time after which the limits of a recipient are full again.
const A_WHILE: Duration = Duration::from_hours(2);

/// Only the pool mode is set: sessions are set up by statements, and startup parameters that
/// PgBouncer refuses are not sent.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_session_mode_works() {
    let database = Database::postgres().await;
    let mut pooler = PgBouncer::start(database.url(), "session");
    let replica = Replica::launch(&pooler.url(database.url()), &database, &[]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }
    assert_all_are_served(&replica, &database, COOL_DOWN).await;

    pooler.restart();
    assert_all_are_served_in_the_end(&replica, &database, COOL_DOWN * 2).await;
}

/// A restart of the pooler is an outage, if one is noticed at all.
async fn assert_all_are_served_in_the_end(replica: &Replica, database: &Database, now: Duration) {
    database.advance_clock(now).await;
    for answer in ask_many(replica, DEADLINE).join_all().await {
        if let Err(status) = answer {
            super::assert_store_unavailable(&status);
        }
    }
    wait_for_health(replica, ServingStatus::Serving).await;
    assert_all_are_served(replica, database, now + COOL_DOWN * 2).await;
}

/// Replicas share the sessions, in which settings and prepared statements would be those of the
/// previous client. The pooler is found, restarted, and set to the other mode and back.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_transaction_mode_works() {
    let database = Database::postgres().await;
    let mut pooler = PgBouncer::start(database.url(), "transaction");
    let url = pooler.url(database.url());
    let replicas = [
        Replica::launch(&url, &database, &[]).await,
        Replica::launch(&url, &database, &[]).await,
    ];
    let mut now = COOL_DOWN;
    for replica in &replicas {
        let line = replica.wait_for_line("Transaction pooler found").await;
        assert!(line.contains("settings=transaction"), "{line}");
        wait_for_health(replica, ServingStatus::Serving).await;
    }
    let asked = replicas
        .each_ref()
        .map(|replica| ask_many(replica, DEADLINE));
    for answers in asked {
        for answer in answers.join_all().await {
            if let Err(status) = answer {
                assert_eq!(super::reason(&status), "RESEND_TOO_SOON", "{status:?}");
            }
        }
    }
    for (mode, replica) in ["transaction", "session", "transaction"]
        .iter()
        .zip(replicas.iter().cycle())
    {
        pooler.replace(mode);
        now += A_WHILE;
        assert_all_are_served_in_the_end(replica, &database, now).await;
    }
}

/// The role has the settings, so that they need not be set in each transaction.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_role_are_found_behind_a_transaction_pooler() {
    let database = Database::postgres().await;
    let name = database.url().rsplit_once('/').expect("it has a name").1;
    let set = |(setting, value)| {
        format!("ALTER ROLE postgres IN DATABASE {name} SET {setting} = '{value}';")
    };
    let mut settings: String = SESSION_OPTIONS.map(set).concat();
    settings.push_str(&set(("lock_timeout", "500ms")));
    database.execute(&settings).await;
    let pooler = PgBouncer::start(database.url(), "transaction");
    let replica = Replica::launch(&pooler.url(database.url()), &database, &[]).await;
    let line = replica.wait_for_line("Transaction pooler found").await;
    assert!(line.contains("settings=role"), "{line}");
    wait_for_health(&replica, ServingStatus::Serving).await;
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}

/// There, a decision of one transaction cannot be written by several statements.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_statement_mode_is_rejected_with_the_remedy() {
    let database = Database::postgres().await;
    let mut pooler = PgBouncer::start(database.url(), "statement");
    let replica = Replica::launch(&pooler.url(database.url()), &database, &[]).await;
    let line = replica.wait_for_line("Store unavailable").await;
    assert!(line.contains("pool_mode = transaction"), "{line}");
    assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
    wait_for_health(&replica, ServingStatus::NotServing).await;
    assert_eq!(replica.log().matches("Store unavailable").count(), 1);

    pooler.replace("transaction");
    wait_for_health(&replica, ServingStatus::Serving).await;
    replica.wait_for_lines("Store available", 1).await;
    let remarks: Vec<String> = remarks(&replica, 1)
        .0
        .into_iter()
        // It went away between its two modes.
        .filter(|line| {
            !["refused", "closed", "EOF", "reset", "pooler found"]
                .iter()
                .any(|it| line.contains(it))
        })
        .collect();
    assert_one_line_each(&remarks);
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
}
