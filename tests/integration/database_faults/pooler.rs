//! PgBouncer between otpd and its database.

use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    COOL_DOWN, DEADLINE, ask_many, assert_all_are_served, assert_all_unavailable,
    assert_one_line_each, remarks, wait_for_health,
};
use crate::support::{Database, PgBouncer, Replica};

/// With nothing set but its mode: sessions are set up by statements, and what PgBouncer
/// refuses to be told at the start it is not told.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_session_mode_works() {
    let database = Database::postgres().await;
    let pooler = PgBouncer::start(database.url(), "session");
    let replica = Replica::launch(&pooler.url(database.url()), &database, &[]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }
    assert_all_are_served(&replica, &database, COOL_DOWN).await;

    let pooler = pooler.replace(database.url(), "session");
    assert_all_are_served_in_the_end(&replica, &database).await;
    drop(pooler);
}

/// A restart of the pooler is an outage, if one is noticed at all.
async fn assert_all_are_served_in_the_end(replica: &Replica, database: &Database) {
    database.advance_clock(COOL_DOWN * 2).await;
    for answer in ask_many(replica, DEADLINE).join_all().await {
        if let Err(status) = answer {
            super::assert_store_unavailable(&status);
        }
    }
    wait_for_health(replica, ServingStatus::Serving).await;
    assert_all_are_served(replica, database, COOL_DOWN * 4).await;
}

/// There, a session's settings and prepared statements are those of whoever came before.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_transaction_mode_is_rejected_with_the_remedy() {
    for mode in ["transaction", "statement"] {
        let database = Database::postgres().await;
        let pooler = PgBouncer::start(database.url(), mode);
        let replica = Replica::launch(&pooler.url(database.url()), &database, &[]).await;
        let line = replica.wait_for_line("Store unavailable").await;
        assert!(line.contains("pool_mode = session"), "{line}");
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
        wait_for_health(&replica, ServingStatus::NotServing).await;
        assert_eq!(replica.log().matches("Store unavailable").count(), 1);

        let pooler = pooler.replace(database.url(), "session");
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica.wait_for_lines("Store available", 1).await;
        let remarks: Vec<String> = remarks(&replica, 1)
            .0
            .into_iter()
            // It went away between its two modes.
            .filter(|line| {
                !["refused", "closed", "EOF", "reset"]
                    .iter()
                    .any(|it| line.contains(it))
            })
            .collect();
        assert_one_line_each(&remarks);
        assert_all_are_served(&replica, &database, COOL_DOWN).await;
        drop(pooler);
    }
}
