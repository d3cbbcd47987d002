//! Faults of the network to the database.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    COOL_DOWN, DEADLINE, REQUESTS, SHORT_STORE_TIMEOUT, ask, ask_many, ask_many_of,
    assert_all_are_served, assert_all_unavailable, assert_one_line_each, assert_store_unavailable,
    reason, remarks, wait_for_health, watch_liveness,
};
use crate::support::{Database, Proxy, Replica};

#[tokio::test(flavor = "multi_thread")]
async fn database_unavailable_at_start_is_used_after_recovery() {
    let database = Database::postgres().await;
    let proxy = Proxy::refusing(&database);
    let replica = Replica::launch(proxy.url(), &database, &[]).await;
    let liveness = watch_liveness(&replica).await;

    wait_for_health(&replica, ServingStatus::NotServing).await;
    assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
    let outage = replica.wait_for_line("Store unavailable").await;
    assert!(outage.contains("Connection refused"), "{outage}");

    proxy.forward();
    wait_for_health(&replica, ServingStatus::Serving).await;
    replica.wait_for_lines("Store available", 1).await;
    assert_one_line_each(&remarks(&replica, 1).0);
    assert_all_are_served(&replica, &database, COOL_DOWN).await;
    assert!(!liveness.is_finished());
}

/// Makes the database go away by `switch`, twice, and come back.
async fn goes_away_and_comes_back(switch: fn(&Proxy)) {
    let database = Database::postgres().await;
    let proxy = Proxy::forwarding(&database);
    let replica = Replica::launch(proxy.url(), &database, &[SHORT_STORE_TIMEOUT]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    let liveness = watch_liveness(&replica).await;
    // So that the pool has connections to lose.
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }

    for outages in 1..=2_u32 {
        let (_, start) = remarks(&replica, 0);
        switch(&proxy);
        // Once the requests find out, once otpd has to without any.
        if outages == 1 {
            assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
        }
        wait_for_health(&replica, ServingStatus::NotServing).await;
        assert_all_unavailable(ask_many(&replica, DEADLINE)).await;
        replica
            .wait_for_lines("Store unavailable", outages as usize)
            .await;

        proxy.forward();
        wait_for_health(&replica, ServingStatus::Serving).await;
        replica
            .wait_for_lines("Store available", 1 + outages as usize)
            .await;
        assert_one_line_each(&remarks(&replica, start).0);
        assert_all_are_served(&replica, &database, COOL_DOWN * outages).await;
    }
    assert!(!liveness.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_database_is_reported_and_used_after_recovery() {
    goes_away_and_comes_back(Proxy::refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_database_is_reported_and_used_after_recovery() {
    goes_away_and_comes_back(Proxy::hang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_pooled_connections_are_replaced() {
    goes_away_and_comes_back(|proxy| {
        proxy.hang();
        proxy.lose();
    })
    .await;
}

/// Here the callers' patience ends long before otpd's with the store.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_database_is_reported_before_the_caller_deadline() {
    let database = Database::postgres().await;
    let proxy = Proxy::forwarding(&database);
    let patient = [("OTPD_STORE__TIMEOUT", "10m")];
    let replica = Replica::launch(proxy.url(), &database, &patient).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    // The connection to otpd stands when the time begins to run.
    let client = replica.client();
    ask(client.clone(), 0, DEADLINE)
        .await
        .expect("there is a store");
    proxy.hang();
    let requests = ask_many_of(&client, Duration::from_secs(10));
    for answer in requests.join_all().await {
        // otpd replies with the reason, before the caller's own deadline.
        let status = answer.expect_err("the store hangs");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED", "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_after_restart_need_at_most_one_retry() {
    let database = Database::postgres().await;
    let proxy = Proxy::forwarding(&database);
    let replica = Replica::launch(proxy.url(), &database, &[]).await;
    wait_for_health(&replica, ServingStatus::Serving).await;
    for answer in ask_many(&replica, DEADLINE).join_all().await {
        answer.expect("there is a store");
    }
    database.advance_clock(COOL_DOWN).await;

    // Some of these requests are cut off at each step, the others find connections that failed
    // while idle.
    let client = replica.client();
    let mut requests: JoinSet<_> = (0..REQUESTS)
        .map(|number| {
            let client = client.clone();
            async move {
                let mut answer = ask(client.clone(), number, DEADLINE).await;
                if let Err(status) = &answer {
                    assert_store_unavailable(status);
                    answer = ask(client, number, DEADLINE).await;
                }
                answer
            }
        })
        .collect();
    let mut answers = vec![requests.join_next().await.unwrap().unwrap()];
    proxy.cut();
    answers.extend(requests.join_all().await);
    for answer in answers {
        // A send that lost its reply but not its write.
        if let Err(status) = answer {
            assert_eq!(reason(&status), "RESEND_TOO_SOON", "{status:?}");
        }
    }
    assert_all_are_served(&replica, &database, COOL_DOWN * 2).await;
}
