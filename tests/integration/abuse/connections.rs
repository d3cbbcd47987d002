//! Too many connections, and silent connections.

use std::{fs, process::Command};

use otpd::grpc::v1::{GetOtpStatusRequest, SendOtpRequest, otp_service_client::OtpServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tonic::transport::Channel;

use super::{
    beside_good_callers,
    frames::{Client, END_HEADERS, End, HEADERS, NO_ERROR, call, frame},
    within_reason,
};
use crate::support::{Database, Kind, Replica, TestCa, audited, dns, secure_channel};

/// A connection on which `first` is said and nothing else, until the server closes it.
async fn silent(replica: &Replica, first: &[u8]) -> usize {
    let mut stream = TcpStream::connect(replica.address())
        .await
        .expect("it listens");
    stream.write_all(first).await.expect("it listens");
    let mut said = Vec::new();
    // It is closed, or reset where not all was read that was said.
    let _ = stream.read_to_end(&mut said).await;
    said.len()
}

/// A client that the server has answered; none, if it closed the connection instead.
async fn admitted(replica: &Replica) -> Option<Client> {
    let mut client = Client::connect(replica.address()).await;
    let seen = client.read_until(|end| end.acknowledged == 1).await;
    (seen.acknowledged == 1).then_some(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_non_http2_connections_are_closed() {
    let settings = [
        ("OTPD_CONNECTIONS__HANDSHAKE_TIMEOUT", "500ms"),
        ("OTPD_HTTP_API__ENABLED", "false"),
    ];
    beside_good_callers(&settings, async |replica| {
        for first in ["", "PRI * HT", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
            silent(replica, first.as_bytes()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_idle_connections_are_closed_gracefully() {
    const COUNT: usize = 1_000;
    let settings = [
        ("OTPD_CONNECTIONS__MAX_IDLE", "2s"),
        ("OTPD_CONNECTIONS__MAX", "1200"),
        ("OTPD_CONNECTIONS__MEMORY_MIB", "513"),
    ];
    let ends = beside_good_callers(&settings, async |replica| {
        let mut clients = Vec::new();
        for _ in 0..COUNT {
            clients.push(Client::connect(replica.address()).await);
        }
        // All are there at once, and each has been heard.
        for client in &mut clients {
            client.read_until(|end| end.acknowledged == 1).await;
        }
        let mut ends = JoinSet::new();
        for client in clients {
            ends.spawn(client.acknowledging_end());
        }
        ends.join_all().await
    })
    .await;
    assert_eq!(ends.len(), COUNT);
    for end in ends {
        assert_eq!(end.goaway, Some(NO_ERROR), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_does_not_keep_its_connection_open() {
    let settings = [
        ("OTPD_CONNECTIONS__KEEPALIVE_INTERVAL", "300ms"),
        ("OTPD_CONNECTIONS__KEEPALIVE_TIMEOUT", "2s"),
    ];
    // Headers that never end, and a frame that never ends: neither can answer a PING.
    let headers = frame(HEADERS, 0, 1, &call());
    let cut_off = frame(HEADERS, END_HEADERS, 1, &call());
    for first in [headers.as_slice(), &cut_off[..20]] {
        let end: End = beside_good_callers(&settings, async |replica| {
            let mut client = Client::connect(replica.address()).await;
            assert!(client.write(first).await);
            client.end().await
        })
        .await;
        assert_eq!(end.answers, 0, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_connections_are_rejected_and_logged_once() {
    const MAX: usize = 8;
    let database = Database::new(Kind::Sqlite).await;
    let bound = MAX.to_string();
    let replica = Replica::start_with(&database, &[("OTPD_CONNECTIONS__MAX", &bound)]).await;
    let good = replica.channel();
    let ask = async || {
        let request = GetOtpStatusRequest {
            recipient: "+79991234567".to_owned(),
            ..Default::default()
        };
        let reply = OtpServiceClient::new(good.clone())
            .get_otp_status(request)
            .await;
        reply.expect("its connection was there before");
    };
    ask().await;
    let mut inside = Vec::new();
    within_reason(async {
        while let Some(client) = admitted(&replica).await {
            inside.push(client);
        }
    })
    .await;
    // Those that wait for health at the start may not have left when the first came.
    assert!(inside.len() < MAX, "{}", inside.len());
    for _ in 0..50 {
        assert_eq!(silent(&replica, b"").await, 0);
        ask().await;
    }
    // A connection that ends frees its place.
    drop(inside);
    within_reason(async { while admitted(&replica).await.is_none() {} }).await;
    let log = replica.stop().await.1;
    let reply = log.matches("Connection limit reached").count();
    assert_eq!(reply, 1, "{log}");
    assert!(log.contains("bound=\"connections.max\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn default_connection_limit_fits_1024_open_files() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let limited = Command::new("prlimit")
        .args(["--pid", &replica.id().to_string(), "--nofile=1024:1024"])
        .status();
    assert!(limited.expect("util-linux has it").success());
    let mut caller = replica.client();
    let send = async |caller: &mut OtpServiceClient<Channel>, recipient: &str| {
        let request = SendOtpRequest {
            recipient: recipient.to_owned(),
            ..Default::default()
        };
        let sent = caller.send_otp(request).await;
        sent.expect("it has its connection, and the store its files");
    };
    send(&mut caller, "+79991234567").await;
    let mut inside = Vec::new();
    within_reason(async {
        while let Some(client) = admitted(&replica).await {
            inside.push(client);
        }
    })
    .await;
    assert!(inside.len() > 390, "{}", inside.len());
    send(&mut caller, "+79991234568").await;
    // A replica that stops waits for its connections.
    drop(inside);
    let log = replica.stop().await.1;
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_handshake_times_out() {
    let database = Database::new(Kind::Sqlite).await;
    let authority = TestCa::new("ours");
    let server = authority.certify(dns("localhost"), |_| {});
    let place = |name: &str| database.directory().join(name);
    fs::write(place("server.crt"), &server.certificate).expect("the directory takes files");
    fs::write(place("server.key"), &server.key).expect("the directory takes files");
    let directory = database.directory();
    let directory = directory.display();
    let file = database.configure(&format!(
        "[tls]\ncertificate = \"{directory}/server.crt\"\nkey = \"{directory}/server.key\"\n\
         [connections]\nhandshake_timeout = \"500ms\""
    ));
    let replica =
        Replica::launch(database.url(), &database, &[("OTPD_CONFIG", file.as_str())]).await;
    replica.wait_for_line("[OTP] Store available").await;
    let good = secure_channel(&replica, &authority, None);
    let harm = async {
        // No byte, and the beginning of a ClientHello of 512 bytes.
        for first in [[].as_slice(), &[22, 3, 1, 2, 0, 1]] {
            silent(&replica, first).await;
        }
    };
    within_reason(crate::support::with_bystanders(&replica, &good, harm)).await;
    replica
        .wait_for_line("[OTP AUDIT] TLS handshake timed out")
        .await;
    let log = replica.stop().await.1;
    assert_eq!(audited(&log, "TLS handshake timed out", ""), 2, "{log}");
}
