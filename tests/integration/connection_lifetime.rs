//! Connections at their maximum age: callers reconnect, and no request is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use otpd::grpc::v1::{GetOtpStatusRequest, SendOtpRequest, otp_service_client::OtpServiceClient};
use otpd_loadgen::was_not_sent;
use sqlx::Connection as _;
use tokio::{net::TcpStream, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

use crate::support::{Database, Kind, Replica};

/// A channel that counts its connections.
fn counting(replica: &Replica) -> (Channel, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let (address, counter) = (replica.address(), Arc::clone(&made));
    let connector = tower::service_fn(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { TcpStream::connect(address).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    (endpoint.connect_with_connector_lazy(connector), made)
}

fn about(number: usize) -> GetOtpStatusRequest {
    GetOtpStatusRequest {
        recipient: format!("+7999{number:07}"),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_max_age_is_transparent_to_callers() {
    const CONNECTIONS: usize = 12;
    const CALLERS: usize = 4;
    let database = Database::new(Kind::Sqlite).await;
    let age = [("OTPD_CONNECTIONS__MAX_AGE", "50ms")];
    let replica = Replica::start_with(&database, &age).await;
    let (channel, made) = counting(&replica);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (mut client, made) = (OtpServiceClient::new(channel.clone()), Arc::clone(&made));
        callers.spawn(async move {
            let mut calls = 0;
            while made.load(Ordering::SeqCst) < CONNECTIONS {
                match client.get_otp_status(about(caller)).await {
                    Ok(_) => calls += 1,
                    // This client alone fails a call that it has not sent when it finds
                    // its connection ended; others send it over the next one.
                    Err(status) => assert!(was_not_sent(&status), "{status:?}"),
                }
            }
            calls
        });
    }
    let waited = tokio::time::timeout(Duration::from_mins(1), callers.join_all());
    let calls = waited.await.expect("connections end");
    assert!(calls.iter().all(|calls| *calls > CONNECTIONS), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_a_closing_connection_finish() {
    let database = Database::postgres().await;
    let settings = [
        ("OTPD_CONNECTIONS__MAX_AGE", "300ms"),
        ("OTPD_LOG_LEVEL", "debug"),
        ("OTPD_STORE__TIMEOUT", "1h"),
    ];
    let replica = Replica::start_with(&database, &settings).await;
    let lock = database.lock_records().await;
    let mut client = replica.client();
    let call = tokio::spawn(async move {
        let request = SendOtpRequest {
            recipient: "+79991234567".to_owned(),
            ..Default::default()
        };
        client.send_otp(request).await
    });
    replica.wait_for_line("Request received rpc=SendOtp").await;
    replica
        .wait_for_newest_line(|line| {
            line.contains("Connection closing") && line.contains("reason=\"max_age\"")
        })
        .await;
    lock.close().await.expect("the lock is given up");
    let sent = call
        .await
        .expect("it does not panic")
        .expect("it is finished");
    replica.code(&sent.into_inner().challenge_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_are_aborted_after_max_age_grace() {
    let database = Database::postgres().await;
    let settings = [
        ("OTPD_CONNECTIONS__MAX_AGE", "300ms"),
        ("OTPD_CONNECTIONS__MAX_AGE_GRACE", "10ms"),
        ("OTPD_STORE__TIMEOUT", "1h"),
    ];
    // A watch of health would be cut off as well.
    let replica = Replica::launch(database.url(), &database, &settings).await;
    replica.wait_for_line("[OTP] Store available").await;
    let lock = database.lock_records().await;
    let request = about(1);
    let mut client = replica.client();
    let waited = tokio::time::timeout(Duration::from_mins(1), client.get_otp_status(request));
    waited
        .await
        .expect("it ends")
        .expect_err("its connection was cut off");
    lock.close().await.expect("the lock is given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_watch_keeps_its_connection_active() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [
        ("OTPD_CONNECTIONS__MAX_IDLE", "100ms"),
        ("OTPD_LOG_LEVEL", "debug"),
    ];
    let replica = Replica::start_with(&database, &settings).await;
    let mut watch = replica.watch_health("").await;
    watch
        .message()
        .await
        .expect("health answers")
        .expect("at once");
    // Others that are idle end meanwhile.
    for round in 1..4 {
        let mut client = replica.client();
        client
            .get_otp_status(about(round))
            .await
            .expect("there is a status");
        replica.wait_for_lines("Connection closing", round).await;
    }
    replica.signal("TERM");
    watch
        .message()
        .await
        .expect("its connection is still there")
        .expect("a change");
}
