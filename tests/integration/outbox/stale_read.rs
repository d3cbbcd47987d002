//! A late reply of the database about a code that ended meanwhile.

use otpd::grpc::v1::DeliveryState::{Dropped, Failed, Queued, Sent};

use super::{
    comparable, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, TAKES},
    route, send, verifies,
};
use crate::support::{Database, Proxy, Replica};

#[tokio::test(flavor = "multi_thread")]
async fn late_store_reply_counts_as_read_at_request_time() {
    let gateway = Gateway::start().await;
    let configuration = gateway.provider("only", "timeout = \"60s\"")
        + &gateway.provider("clock", "timeout = \"2100ms\"")
        + &route("default", &["only"])
        + &route("clock", &["clock"]);
    let database = Database::postgres().await;
    let file = database.configure(&configuration);
    let configuration = ("OTPD_CONFIG", file.as_str());
    let proxy = Proxy::forwarding(&database);
    // Only the reclaiming replica loads a record.
    let quiet = ("OTPD_STORE__PROBE_INTERVAL", "10m");
    let patient = ("OTPD_STORE__TIMEOUT", "10m");
    let environment = [
        configuration,
        quiet,
        patient,
        ("OTPD_STORE__MAX_CONNECTIONS", "1"),
    ];
    let slow = Replica::launch(proxy.url(), &database, &environment).await;
    slow.wait_for_line("Store available").await;
    let leaves_it = ("OTPD_DELIVERY__POLL_INTERVAL", "1h");
    let other = Replica::start_with(&database, &[configuration, quiet, leaves_it]).await;

    // The message fails once; the replica that reclaims it loads its record, and waits.
    gateway.will("only", Behaviour::Holds);
    let sent = send(&slow, 0, "").await;
    let code = gateway.asked_for(&sent.challenge_id).await.code;
    let lock = database.lock_records().await;
    gateway.will("only", DOWN);
    database.held_up_writer().await;
    proxy.hang();
    sqlx::Connection::close(lock)
        .await
        .expect("the lock is given up");

    // Two seconds pass after the load, and the code is used up.
    assert!(verifies(&other, 0, "", &code).await);
    gateway.will("clock", Behaviour::Holds);
    send(&other, 0, "clock").await;
    deliveries_in(&other, (0, "clock"), &[Queued]).await;
    gateway.will("only", TAKES);
    proxy.forward();
    let done = deliveries_in(&other, (0, ""), &[Dropped, Sent]).await;
    let expected = [("only", Failed, 1, "transient"), ("only", Dropped, 1, "")];
    assert_eq!(comparable(&done), expected);
    assert_eq!(gateway.state().count("only"), 1);
}
