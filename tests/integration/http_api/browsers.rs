//! Web pages cannot make the browser of a visitor call otpd.

use super::RECIPIENT;
use crate::support::{
    Database, Kind, OPERATIONS, Replica, audited,
    http1::{HttpReply, call, exchange, path, raw},
    token_digest,
};

async fn send(replica: &Replica, headers: &[(&str, &str)]) -> HttpReply {
    let request = format!(r#"{{"recipient":"{RECIPIENT}"}}"#);
    call(replica.address(), "GetOtpStatus", headers, &request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_web_pages_are_refused_unless_their_origin_is_listed() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [
        OPERATIONS,
        (
            "OTPD_HTTP_API__ALLOWED_ORIGINS",
            "https://app.example,http://localhost:3000",
        ),
    ];
    let replica = Replica::start_with(&database, &settings).await;
    for origin in ["https://app.example", "http://localhost:3000"] {
        let reply = send(&replica, &[("origin", origin)]).await;
        assert_eq!(reply.status, 200, "{origin}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "");
    }
    let same = format!("http://{}", replica.address());
    for origin in [
        &same,
        "https://app.example:8443",
        "http://app.example",
        "https://app.example.evil.example",
        "null",
        "",
        "https://evil.example",
    ] {
        for media_type in [
            "application/json",
            "application/proto",
            "application/grpc-web",
            "application/grpc-web-text",
        ] {
            let headers = [("origin", origin), ("content-type", media_type)];
            let reply = send(&replica, &headers).await;
            let refused = reply.status == 403 || reply.header("grpc-status") == "7";
            assert!(refused, "{origin} {media_type}: {reply:?}");
        }
    }
    // A browser asks before it sends JSON to another origin.
    let preflight = [
        ("host", "localhost"),
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
    ];
    let reply = exchange(
        replica.address(),
        &raw("OPTIONS", &path("SendOtp"), &preflight, ""),
    )
    .await;
    assert_eq!(
        (reply.status, reply.header("access-control-allow-methods")),
        (405, "")
    );
    // It sends forms without a question.
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let reply = send(&replica, &[("content-type", media_type)]).await;
        assert_eq!(reply.status, 415, "{media_type}");
    }
    let series = r#"otpd_requests_total{rpc="GetOtpStatus",caller="other",purpose="other",outcome="forbidden"}"#;
    assert_eq!(replica.scrape().await.value(series), 28);
    let log = replica.stop().await.1;
    assert_eq!(
        audited(&log, "Request refused", "allowed_origins"),
        28,
        "{log}"
    );
    assert!(!log.contains("evil.example"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_authentication_has_only_its_own_names() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [("OTPD_HTTP_API__ALLOWED_HOSTS", "otpd.internal")];
    let replica = Replica::start_with(&database, &settings).await;
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]:50051",
        "otpd:50051",
        "otpd.internal:50051",
    ] {
        let reply = send(&replica, &[("host", host)]).await;
        assert_eq!(reply.status, 200, "{host}: {reply:?}");
    }
    // A page of the second name could have pointed it at this address (DNS rebinding).
    for host in [
        "rebind.evil.example",
        "rebind.evil.example:50051",
        "127.0.0.1.evil.example",
    ] {
        let reply = send(&replica, &[("host", host)]).await;
        assert_eq!(reply.status, 403, "{host}: {reply:?}");
    }
    // The target stands above the header (RFC 9112, section 3.2.2).
    let headers = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("content-length", "2"),
    ];
    let target = format!("http://evil.example{}", path("GetOtpStatus"));
    let reply = exchange(replica.address(), &raw("POST", &target, &headers, "{}")).await;
    assert_eq!(reply.status, 403, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_with_authentication_has_any_name() {
    let database = Database::new(Kind::Sqlite).await;
    let configuration = format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]",
        token_digest("known")
    );
    let configuration = database.configure(&configuration);
    let replica = Replica::start_with(&database, &[("OTPD_CONFIG", &configuration)]).await;
    let host = ("host", "otpd.example.com");
    let reply = send(&replica, &[host, ("authorization", "Bearer known")]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = send(&replica, &[host]).await;
    assert_eq!((reply.status, &*reply.reason()), (401, "CALLER_UNKNOWN"));
    let origin = ("origin", "https://otpd.example.com");
    let reply = send(&replica, &[host, origin, ("authorization", "Bearer known")]).await;
    assert_eq!(reply.status, 403, "{reply:?}");
}
