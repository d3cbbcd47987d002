//! Listener of the public keys.

use super::{key_address, public_keys, serve};
use crate::support::{Database, Kind, OPERATIONS, Replica, http1};

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_served_on_their_own_listener_alone() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, 1).await.remove(0);
    let address = key_address(&replica);
    let ask = |method: &'static str, path: &'static str| {
        let request = http1::raw(method, path, &[("host", "otp.example")], "");
        async move { http1::exchange(address, &request).await }
    };
    let keys = ask("GET", "/.well-known/jwks.json").await;
    assert_eq!(keys.header("content-type"), "application/json");
    assert_eq!(keys.header("cache-control"), "public, max-age=600");
    let key = keys.json()["keys"][0].clone();
    assert_eq!(key["kty"], "EC");
    assert!(key.get("d").is_none(), "{key}");
    assert_eq!(ask("GET", "/metrics").await.status, 404);
    assert_eq!(ask("GET", "/").await.status, 404);
    let refused = ask("POST", "/.well-known/jwks.json").await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, "GET, HEAD")
    );

    // The listener of callers does not serve them.
    let request = http1::raw(
        "GET",
        "/.well-known/jwks.json",
        &[("host", "localhost")],
        "",
    );
    let other = http1::exchange(replica.address(), &request).await;
    assert!(other.status >= 400, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_public_keys_are_bounded() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, 1).await.remove(0);
    let address = key_address(&replica);
    let request = http1::raw(
        "GET",
        "/.well-known/jwks.json",
        &[("host", "otp.example")],
        "",
    );
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut client = http1::Http1::connect(address).await;
        client.write(&request).await;
        assert_eq!(client.reply().await.expect("there is room").status, 200);
        open.push(client);
    }
    let mut refused = http1::Http1::connect(address).await;
    refused.write(&request).await;
    assert!(refused.reply().await.is_none());
    replica.wait_for_line("Connection limit reached").await;
    drop(open);
    // Callers are not affected, and there is room again.
    assert_eq!(public_keys_eventually(&replica).await, 1);
}

/// Number of public keys, once the closed connections have made room.
async fn public_keys_eventually(replica: &Replica) -> usize {
    let request = http1::raw(
        "GET",
        "/.well-known/jwks.json",
        &[("host", "otp.example")],
        "",
    );
    loop {
        let mut client = http1::Http1::connect(key_address(replica)).await;
        client.write(&request).await;
        if client.reply().await.is_some() {
            return public_keys(replica).await.len();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_counted() {
    use super::{RECIPIENT, configure, send, submission, to, verify};
    let database = Database::new(Kind::Sqlite).await;
    let environment = configure(&database);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([OPERATIONS])
        .collect();
    let replica = Replica::start_with(&database, &environment).await;
    let count =
        |outcome: &str| format!(r#"otpd_receipts_total{{outcome="{outcome}",caller="crm"}}"#);
    let before = replica.scrape().await;
    assert!(before.text.contains(&count("failed")), "{}", before.text);
    let code = send(&replica, "crm", to(RECIPIENT)).await;
    verify(&mut replica.client_of("crm"), submission(RECIPIENT, &code)).await;
    let after = replica.scrape().await;
    assert_eq!(after.value(&count("issued")), 1);
    assert_eq!(after.value(&count("withheld")), 0);
    assert_eq!(after.value(&count("failed")), 0);
}
