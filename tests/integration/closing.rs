//! Lingering close: the end of a connection never resets it while its client still sends,
//! because a reset makes proxies discard the last replies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use otpd::grpc::v1::{GetOtpStatusRequest, otp_service_client::OtpServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tonic::{Code, Status, transport::Endpoint};

use crate::{
    abuse::frames::{Client, NO_ERROR, WINDOW_UPDATE, frame},
    support::{Database, HaProxy, Kind, OPERATIONS, Replica},
};

/// Reads until the server closes its side, then sends frames that the server will never
/// read. The second write after a reset would fail.
async fn assert_no_reset_at_end(client: &mut Client) -> Option<u32> {
    let end = client.acknowledge_until_end().await;
    let window_update = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    for number in 0..64 {
        let is_taken = client.write(&window_update).await;
        assert!(is_taken, "reset at WINDOW_UPDATE {number}");
    }
    end.goaway
}

async fn within_a_minute<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_mins(1), work).await;
    done.expect("the connection ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn old_or_idle_connection_closes_without_tcp_reset() {
    for key in ["OTPD_CONNECTIONS__MAX_AGE", "OTPD_CONNECTIONS__MAX_IDLE"] {
        let database = Database::new(Kind::Sqlite).await;
        let replica = Replica::start_with(&database, &[(key, "100ms")]).await;
        let mut client = Client::connect(replica.address()).await;
        let code = within_a_minute(assert_no_reset_at_end(&mut client)).await;
        assert_eq!(code, Some(NO_ERROR), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_closes_connections_without_tcp_reset() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let mut client = Client::connect(replica.address()).await;
    client.read_until(|end| end.acknowledged == 1).await;
    replica.signal("TERM");
    let code = within_a_minute(assert_no_reset_at_end(&mut client)).await;
    assert_eq!(code, Some(NO_ERROR));
    // The client ends its side as well, and the server does not wait longer than that.
    drop(client);
    let (status, log) = replica.end().await;
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_connection_closes_without_tcp_reset() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [("OTPD_CONNECTIONS__MAX", "1")];
    let replica = Replica::launch(database.url(), &database, &settings).await;
    replica.wait_for_line("[OTP] Store available").await;
    let mut first = Client::connect(replica.address()).await;
    first.read_until(|end| end.acknowledged == 1).await;
    let mut second = Client::connect(replica.address()).await;
    let code = within_a_minute(assert_no_reset_at_end(&mut second)).await;
    assert_eq!(code, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_http2_closes_without_tcp_reset() {
    let database = Database::new(Kind::Sqlite).await;
    let grpc_alone = [("OTPD_HTTP_API__ENABLED", "false")];
    let replica = Replica::start_with(&database, &grpc_alone).await;
    let mut stream = TcpStream::connect(replica.address())
        .await
        .expect("it listens");
    let request = [b'x'; 4_096];
    stream.write_all(&request).await.expect("it listens");
    let mut said = Vec::new();
    within_a_minute(stream.read_to_end(&mut said))
        .await
        .expect("no reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_never_closes_is_disconnected() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [("OTPD_CONNECTIONS__MAX_IDLE", "100ms")];
    let replica = Replica::start_with(&database, &settings).await;
    let mut client = Client::connect(replica.address()).await;
    client.acknowledge_until_end().await;
    let window_update = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    within_a_minute(async {
        while client.write(&window_update).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_reply_is_not_lost_to_tcp_reset() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    let address = replica.operations();
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // The body is longer than the part that the server reads before it replies.
    let head = "PUT /log-level HTTP/1.1\r\nhost: otpd\r\ncontent-length: 1000000\r\n\r\n";
    let request = [head.as_bytes(), &[b'x'; 4_096]].concat();
    stream.write_all(&request).await.expect("it listens");
    let mut reply = String::new();
    within_a_minute(stream.read_to_string(&mut reply))
        .await
        .expect("no reset");
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    for _ in 0..64 {
        stream.write_all(&[b'x'; 64]).await.expect("no reset");
    }
}

/// Calls through `proxy` until the server has ended enough connections; returns the
/// number of replies, and the calls that failed although they may have been served.
async fn call_through(
    proxy: &HaProxy,
    is_enough: impl Fn() -> bool + Clone + Send + 'static,
) -> (usize, Vec<Status>) {
    const CHANNELS: usize = 4;
    const CALLERS: usize = 64;
    let replies = Arc::new(AtomicUsize::new(0));
    let endpoint = format!("http://{}", proxy.address());
    let mut callers = JoinSet::new();
    let channels: Vec<_> = (0..CHANNELS)
        .map(|_| {
            let endpoint = Endpoint::from_shared(endpoint.clone()).expect("a URL");
            endpoint.connect_lazy()
        })
        .collect();
    for caller in 0..CALLERS {
        let mut client = OtpServiceClient::new(channels[caller % CHANNELS].clone());
        let (replies, is_enough) = (Arc::clone(&replies), is_enough.clone());
        callers.spawn(async move {
            let mut failed = Vec::new();
            while !is_enough() {
                let request = GetOtpStatusRequest {
                    recipient: format!("+7999{caller:07}"),
                    ..Default::default()
                };
                match client.get_otp_status(request).await {
                    Ok(_) => {
                        replies.fetch_add(1, Ordering::Relaxed);
                    }
                    // HAProxy answers 502 or 503 for a call that found its connection
                    // ending before the server has seen the call.
                    Err(status) if status.code() == Code::Unavailable => {}
                    Err(status) => failed.push(status),
                }
            }
            failed
        });
    }
    let failed = callers.join_all().await.into_iter().flatten().collect();
    (replies.load(Ordering::Relaxed), failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_calls_survive_connection_max_age() {
    const ENDED: usize = 300;
    let database = Database::new(Kind::Sqlite).await;
    let settings = [
        ("OTPD_CONNECTIONS__MAX_AGE", "50ms"),
        ("OTPD_LOG_LEVEL", "debug"),
    ];
    let replica = Arc::new(Replica::start_with(&database, &settings).await);
    let proxy = HaProxy::start(replica.address());
    let ended = Arc::new(AtomicUsize::new(0));
    let counting = {
        let (replica, ended) = (Arc::clone(&replica), Arc::clone(&ended));
        tokio::spawn(async move {
            for count in 1..=ENDED {
                replica.wait_for_lines("reason=\"max_age\"", count).await;
                ended.store(count, Ordering::Relaxed);
            }
        })
    };
    let is_enough = move || ended.load(Ordering::Relaxed) >= ENDED;
    let (replies, failed) = within_a_minute(call_through(&proxy, is_enough)).await;
    counting.await.expect("it only counts");
    assert!(replies > ENDED, "{replies}");
    assert!(
        failed.is_empty(),
        "{} of {} calls lost their reply, such as {:?}",
        failed.len(),
        replies + failed.len(),
        failed.first()
    );
}
