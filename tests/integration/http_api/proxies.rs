//! nginx and HAProxy in front, with connections that they keep open.

use std::net::SocketAddr;

use serde_json::json;
use tokio::task::JoinSet;

use super::smuggling::ambiguous;
use crate::support::{
    Database, HaProxy, Kind, Nginx, Replica,
    http1::{Http1, HttpReply, call, path, post},
};

/// A proxy of either kind.
enum AnyProxy {
    Nginx(Nginx),
    HaProxy(HaProxy),
}

impl AnyProxy {
    fn both(server: SocketAddr) -> [Self; 2] {
        let haproxy = Self::HaProxy(HaProxy::start_http1(server));
        [Self::Nginx(Nginx::start(server)), haproxy]
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Nginx(proxy) => proxy.address(),
            Self::HaProxy(proxy) => proxy.address(),
        }
    }
}

async fn status(address: SocketAddr, number: usize) -> HttpReply {
    let request = json!({ "recipient": format!("+7999{number:07}") });
    call(address, "GetOtpStatus", &[], &request.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_gets_its_own_response_through_proxies() {
    const CLIENTS: usize = 8;
    const CALLS: usize = 100;
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    for proxy in AnyProxy::both(replica.address()) {
        let address = proxy.address();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(async move {
                let mut client = Http1::connect(address).await;
                for call in 0..CALLS {
                    let recipient = format!("+7999{:07}", number * CALLS + call);
                    let request = json!({ "recipient": recipient }).to_string();
                    client
                        .write(&post(&path("GetOtpStatus"), &[], &request))
                        .await;
                    let reply = client.reply().await.expect("there is a reply");
                    assert_eq!(reply.status, 200, "{reply:?}");
                    assert_eq!(reply.json()["recipient"], recipient);
                }
            });
        }
        clients.join_all().await;
        let refused = call(address, "SendOtp", &[], r#"{"recipient":"hello"}"#).await;
        assert_eq!(
            (refused.status, &*refused.reason()),
            (400, "RECIPIENT_INVALID")
        );
        let long = call(address, "SendOtp", &[], &" ".repeat(100_000)).await;
        assert!(matches!(long.status, 400 | 502), "{long:?}");
        let origin = call(
            address,
            "SendOtp",
            &[("origin", "https://evil.example")],
            "{}",
        )
        .await;
        assert_eq!(origin.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_through_proxies_hide_no_other_request() {
    // More than the connections that a proxy keeps open.
    const CALLS: usize = 10;
    let database = Database::new(Kind::Sqlite).await;
    let settings = [("OTPD_POLICY__RESEND_AFTER", "0s")];
    let replica = Replica::start_with(&database, &settings).await;
    let mut seen = 0;
    for proxy in AnyProxy::both(replica.address()) {
        let address = proxy.address();
        for (name, request) in ambiguous() {
            let mut client = Http1::connect(address).await;
            client.write(&request).await;
            client.write(&post("/marker", &[], "{}")).await;
            // The proxy answers two requests separately, so that nothing is hidden.
            while let Some(reply) = client.reply().await {
                if reply.status == 200 && reply.json()["challengeId"].is_string() {
                    println!("{name}: two requests");
                    seen += 1;
                }
                if reply.status == 404 || reply.header("connection") == "close" {
                    break;
                }
            }
            for number in 0..CALLS {
                let reply = status(address, number).await;
                assert_eq!(reply.status, 200, "{name}: {reply:?}");
                let recipient = format!("+7999{number:07}");
                assert_eq!(reply.json()["recipient"], recipient, "{name}");
            }
        }
    }
    let log = replica.stop().await.1;
    let sent = log.matches("OTP queued").count();
    assert_eq!(sent, seen, "a hidden request was carried out: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_proxies_end_without_a_failed_request() {
    const CALLS: usize = 300;
    let database = Database::new(Kind::Sqlite).await;
    let age = [("OTPD_CONNECTIONS__MAX_AGE", "50ms")];
    let replica = Replica::start_with(&database, &age).await;
    for proxy in AnyProxy::both(replica.address()) {
        let mut client = Http1::connect(proxy.address()).await;
        for number in 0..CALLS {
            let request = json!({ "recipient": format!("+7999{number:07}") }).to_string();
            client
                .write(&post(&path("GetOtpStatus"), &[], &request))
                .await;
            let reply = client.reply().await.expect("there is a reply");
            assert_eq!(reply.status, 200, "{number}: {reply:?}");
        }
    }
}
