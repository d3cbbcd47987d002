//! Hostile clients of HTTP/1.1, beside callers whose calls all succeed. They are listed in
//! docs/security/hostile-callers.md.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    abuse::{beside_good_callers, within_reason},
    support::{
        Database, Kind, OPERATIONS, Replica,
        http1::{Http1, HttpReply, path, post, raw},
        with_bystanders,
    },
};

const REQUEST: &str = r#"{"recipient":"+79990000002"}"#;
const SLOW_HEADERS: [(&str, &str); 1] = [("OTPD_CONNECTIONS__HANDSHAKE_TIMEOUT", "700ms")];
const SLOW_BODY: [(&str, &str); 1] = [("OTPD_CONNECTIONS__REQUEST_BODY_TIMEOUT", "2s")];

fn request() -> Vec<u8> {
    post(&path("GetOtpStatus"), &[], REQUEST)
}

/// Writes a byte at a time, each after another call, until the server closes the connection.
async fn trickle(replica: &Replica, client: &mut Http1, byte: &[u8]) {
    let mut other = Http1::connect(replica.address()).await;
    while client.write(byte).await {
        other.write(&request()).await;
        let reply = other.reply().await.expect("there is a reply");
        assert_eq!(reply.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_end_the_connection() {
    beside_good_callers(&SLOW_HEADERS, async |replica| {
        // No byte, half of a request line, or half of the headers; then silence, or single bytes;
        // on a new connection, and after an answered request.
        let whole = request();
        for start in [&b""[..], b"POST /otp", &whole[..60]] {
            for is_reused in [false, true] {
                let mut client = Http1::connect(replica.address()).await;
                if is_reused {
                    client.write(&whole).await;
                    assert_eq!(client.reply().await.expect("there is a reply").status, 200);
                    if start.is_empty() {
                        // Idle connections have `max_idle`.
                        continue;
                    }
                }
                client.write(start).await;
                assert!(client.reply().await.is_none());
            }
            let mut client = Http1::connect(replica.address()).await;
            client.write(start).await;
            Box::pin(trickle(replica, &mut client, b"a")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_or_missing_body_is_refused() {
    let whole = request();
    let length = whole.len();
    for first in [length - REQUEST.len(), length - 1] {
        let reply = beside_good_callers(&SLOW_BODY, async |replica| {
            let mut client = Http1::connect(replica.address()).await;
            client.write(&whole[..first]).await;
            client.reply().await
        })
        .await;
        let reply = reply.expect("there is a reply");
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (504, Some("deadline_exceeded"))
        );
        assert!(
            reply.json()["message"]
                .as_str()
                .is_some_and(|text| text.contains("within 2s"))
        );
    }
    let status = beside_good_callers(&SLOW_BODY, async |replica| {
        let mut client = Http1::connect(replica.address()).await;
        client
            .write(&post(
                &path("GetOtpStatus"),
                &[("content-length", "60000")],
                "{",
            ))
            .await;
        Box::pin(trickle(replica, &mut client, b" ")).await;
        client.reply().await.map(|reply| reply.status)
    })
    .await;
    // The response, unless the client wrote so much that its connection was reset.
    assert!(matches!(status, None | Some(504)), "{status:?}");
    let own = [("connect-timeout-ms", "300"), ("content-length", "9")];
    let reply = beside_good_callers(&[], async |replica| {
        let mut client = Http1::connect(replica.address()).await;
        client.write(&post(&path("GetOtpStatus"), &own, "{")).await;
        client.reply().await
    })
    .await;
    assert_eq!(reply.map(|reply| reply.status), Some(504));
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_bodies_are_refused() {
    for chunked in [false, true] {
        let status = beside_good_callers(&SLOW_BODY, async |replica| {
            let mut client = Http1::connect(replica.address()).await;
            let headers = [("host", "localhost"), ("content-type", "application/json")];
            let length = if chunked {
                ("transfer-encoding", "chunked")
            } else {
                ("content-length", "99999999999")
            };
            client
                .write(&raw(
                    "POST",
                    &path("SendOtp"),
                    &[&headers[..], &[length]].concat(),
                    "",
                ))
                .await;
            let part = if chunked {
                format!("1000\r\n{}\r\n", " ".repeat(4_096))
            } else {
                " ".repeat(4_096)
            };
            while client.write(part.as_bytes()).await {}
            client.reply().await.map(|reply| reply.status)
        })
        .await;
        assert!(matches!(status, None | Some(400)), "{status:?}");
    }
    // A client that stops in time gets the reason.
    for length in [70_000, 1024 * 1024] {
        let reply = beside_good_callers(&[], async |replica| {
            let mut client = Http1::connect(replica.address()).await;
            client
                .write(&post(&path("SendOtp"), &[], &" ".repeat(length)))
                .await;
            client.reply().await
        })
        .await;
        assert_eq!(reply.expect("there is a reply").reason(), "REQUEST_INVALID");
    }
}

/// Response to a request that ends its connection, and says so.
async fn last_reply(replica: &Replica, request: &[u8]) -> HttpReply {
    let mut client = Http1::connect(replica.address()).await;
    client.write(request).await;
    let reply = client.reply().await.expect("there is a reply");
    assert_eq!(reply.header("connection"), "close");
    assert!(client.ends().await);
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_body_ends_the_connection_with_its_response() {
    Box::pin(beside_good_callers(&SLOW_BODY, async |replica| {
        // Read, although the request is refused: the connection serves the next one.
        let mut client = Http1::connect(replica.address()).await;
        for length in [2, 60_000] {
            let body = " ".repeat(length);
            client.write(&post("/none", &[], &body)).await;
            let reply = client.reply().await.expect("there is a reply");
            assert_eq!((reply.status, reply.header("connection")), (404, ""));
        }
        // Not read: a proxy would lose the next request on this connection.
        let long = " ".repeat(100_000);
        let cut_off = ("content-length", "9");
        for (request, status) in [
            (post("/none", &[], &long), 404),
            (post(&path("GetOtpStatus"), &[], &long), 400),
            (post(&path("GetOtpStatus"), &[cut_off], "{"), 504),
        ] {
            let reply = Box::pin(last_reply(replica, &request)).await;
            assert_eq!(reply.status, status);
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_headers_are_refused() {
    for (size, count, status) in [
        (1_000, 14, 200),
        (1_000, 17, 431),
        (1_000_000, 1, 431),
        (1, 101, 431),
    ] {
        let reply = beside_good_callers(&[], async |replica| {
            let mut client = Http1::connect(replica.address()).await;
            let padding = "x".repeat(size);
            let names: Vec<_> = (0..count).map(|number| format!("x-{number}")).collect();
            let headers: Vec<_> = names.iter().map(|name| (&**name, &*padding)).collect();
            client
                .write(&post(&path("GetOtpStatus"), &headers, REQUEST))
                .await;
            client.reply().await
        })
        .await;
        let reply = reply.expect("there is a reply");
        assert_eq!(reply.status, status, "{count} of {size}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    const COUNT: usize = 2_000;
    beside_good_callers(&[], async |replica| {
        let mut client = Http1::connect(replica.address()).await;
        for number in 0..COUNT {
            let request = format!(r#"{{"recipient":"+7999{number:07}"}}"#);
            assert!(
                client
                    .write(&post(&path("GetOtpStatus"), &[], &request))
                    .await
            );
            if number % 100 == 99 {
                for asked in number - 99..=number {
                    let reply = client.reply().await.expect("there is a reply");
                    assert_eq!(reply.json()["recipient"], format!("+7999{asked:07}"));
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_reads_no_response_is_disconnected() {
    let settings = [("OTPD_CONNECTIONS__KEEPALIVE_TIMEOUT", "2s")];
    beside_good_callers(&settings, async |replica| {
        let mut client = Http1::connect(replica.address()).await;
        let requests = post("/none", &[], "{}").repeat(100);
        // Both sides' buffers fill up, and then this waits until the connection ends.
        while client.write(&requests).await {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_idle_connections_are_closed() {
    const COUNT: usize = 500;
    let settings = [
        ("OTPD_CONNECTIONS__MAX_IDLE", "2s"),
        ("OTPD_CONNECTIONS__MAX", "600"),
        ("OTPD_CONNECTIONS__MEMORY_MIB", "257"),
    ];
    beside_good_callers(&settings, async |replica| {
        let mut clients = JoinSet::new();
        for _ in 0..COUNT {
            let mut client = Http1::connect(replica.address()).await;
            client.write(&request()).await;
            assert_eq!(client.reply().await.expect("there is a reply").status, 200);
            clients.spawn(async move { client.ends().await });
        }
        assert!(
            clients
                .join_all()
                .await
                .into_iter()
                .all(|graceful| graceful)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_end_the_connection() {
    let address = "host: localhost\r\n";
    for request in [
        "GARBAGE\r\n\r\n".to_owned(),
        "POST /x HTTP/9.9\r\n\r\n".to_owned(),
        format!("POST /x HTTP/1.1\r\n{address}bad header: 1\r\n\r\n"),
        format!("POST /x HTTP/1.1\r\n{address}content-length: -1\r\n\r\n"),
        format!("POST /x HTTP/1.1\r\n{address}content-length: 1, 2\r\n\r\n"),
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
    ] {
        let status = beside_good_callers(&[], async |replica| {
            let mut client = Http1::connect(replica.address()).await;
            client.write(request.as_bytes()).await;
            let status = client.reply().await.map(|reply| reply.status);
            assert!(client.ends().await);
            status
        })
        .await;
        assert!(
            matches!(status, None | Some(400)),
            "{request:?}: {status:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_large_requests_is_bounded() {
    const CONNECTIONS: usize = 100;
    let database = Database::new(Kind::Sqlite).await;
    let settings = [OPERATIONS, ("OTPD_CONNECTIONS__REQUEST_BODY_TIMEOUT", "5m")];
    let replica = Replica::start_with(&database, &settings).await;
    let channel = replica.channel();
    let harm = async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = Http1::connect(replica.address()).await;
            // Almost all of the longest message, behind almost the longest headers.
            let padding = "x".repeat(15_000);
            let headers = [("content-length", "65536"), ("x-padding", &*padding)];
            client
                .write(&post(&path("SendOtp"), &headers, &" ".repeat(60_000)))
                .await;
            clients.push(client);
        }
        let reserved = "otpd_connection_memory_reserved_bytes";
        let scrape = replica
            .scrape_until(|scrape| scrape.value(reserved) > 40 << 20)
            .await;
        let reserved = scrape.value(reserved);
        assert!(reserved <= 192 << 20, "{reserved}");
        assert!(replica.memory() < 256 * 1024, "{} KiB", replica.memory());
    };
    within_reason(with_bystanders(&replica, &channel, harm)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_connections_and_a_shutdown_finish_their_requests() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [("OTPD_CONNECTIONS__MAX_AGE", "300ms")];
    let replica = Replica::start_with(&database, &settings).await;
    within_reason(async {
        let mut client = Http1::connect(replica.address()).await;
        loop {
            if !client.write(&request()).await {
                break;
            }
            let Some(reply) = client.reply().await else {
                break;
            };
            assert_eq!(reply.status, 200);
            if reply.header("connection") == "close" {
                break;
            }
        }
        assert!(client.ends().await);
    })
    .await;
    // An idle connection does not hold up the end of the server.
    let mut idle = Http1::connect(replica.address()).await;
    idle.write(&request()).await;
    idle.reply().await.expect("there is a reply");
    let (status, log) = tokio::time::timeout(Duration::from_secs(30), replica.stop())
        .await
        .expect("it stops");
    assert!(status.success(), "{log}");
    assert!(!log.contains("Shutdown grace period exceeded"), "{log}");
}
