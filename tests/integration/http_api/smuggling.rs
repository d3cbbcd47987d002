//! Requests whose end two servers could find at different places. None of them hides a second
//! request.

use crate::support::{
    Database, Kind, Replica,
    http1::{Http1, path, post, raw},
};

/// A request that must not be carried out, because it is inside of another.
pub fn hidden() -> String {
    let request = post(&path("SendOtp"), &[], r#"{"recipient":"+79990000009"}"#);
    String::from_utf8(request).expect("it is text")
}

/// Requests with an unclear end, each with its name.
pub fn ambiguous() -> Vec<(&'static str, Vec<u8>)> {
    let json = ("content-type", "application/json");
    let host = ("host", "localhost");
    let hidden = hidden();
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let ended = format!("0\r\n\r\n{hidden}");
    let all = ended.len().to_string();
    let method = path("GetOtpStatus");
    let request = |headers: &[(&str, &str)], body: &str| {
        raw("POST", &method, &[&[host, json], headers].concat(), body)
    };
    let length = |value: &'static str| ("content-length", value);
    let encoding = |value: &'static str| ("transfer-encoding", value);
    let all = ("content-length", &*all);
    vec![
        ("CL.TE", request(&[all, encoding("chunked")], &ended)),
        (
            "TE.CL",
            request(&[encoding("chunked"), length("4")], &chunk),
        ),
        (
            "two lengths",
            request(&[length("2"), length("3")], &format!("{{}}{hidden}")),
        ),
        (
            "list of lengths",
            request(&[("content-length", "2, 3")], &format!("{{}}{hidden}")),
        ),
        (
            "length with a sign",
            request(&[length("+2")], &format!("{{}}{hidden}")),
        ),
        (
            "length in hex",
            request(&[length("0x2")], &format!("{{}}{hidden}")),
        ),
        (
            "unknown encoding",
            request(&[all, encoding("xchunked")], &ended),
        ),
        (
            "encoding twice",
            request(&[all, encoding("chunked"), encoding("identity")], &ended),
        ),
        (
            "blank before the colon",
            request(&[all, ("transfer-encoding ", "chunked")], &ended),
        ),
        (
            "tab in the value",
            request(&[all, encoding("\tchunked")], &ended),
        ),
        (
            "folded header",
            request(&[all, ("x", "a\r\n transfer-encoding: chunked")], &ended),
        ),
        (
            "bare line feed",
            request(&[all, ("x", "a\ntransfer-encoding: chunked")], &ended),
        ),
        (
            "HTTP/1.0 with chunks",
            String::from_utf8(request(&[all, encoding("chunked")], &ended))
                .expect("it is text")
                .replace("HTTP/1.1", "HTTP/1.0")
                .into_bytes(),
        ),
        (
            "chunk with an extension",
            request(
                &[encoding("chunked")],
                &format!("0;{}\r\n\r\n{hidden}", "a".repeat(20_000)),
            ),
        ),
        (
            "negative chunk",
            request(&[encoding("chunked")], &format!("-1\r\n{hidden}")),
        ),
        (
            "huge chunk",
            request(
                &[encoding("chunked")],
                &format!("fffffffffffffffff\r\n{hidden}"),
            ),
        ),
        ("two hosts", request(&[host, length("2")], "{}")),
        (
            "GET with a body",
            raw("GET", &method, &[host, json, all], &ended),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_hide_no_other_request() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    for (name, request) in ambiguous() {
        let mut client = Http1::connect(replica.address()).await;
        client.write(&request).await;
        let first = client.reply().await.map(|reply| reply.status);
        assert_ne!(first, Some(200), "{name}");
        // Another response before that of this request would be one to the hidden request.
        client.write(&post("/marker", &[], "{}")).await;
        if let Some(reply) = client.reply().await {
            assert_eq!(reply.status, 404, "{name}: {reply:?}");
        }
    }
    let sent = database.number("SELECT COUNT(*) FROM otp_record").await;
    assert_eq!(sent, 0, "a hidden request was carried out");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_header_is_required_once() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let json = ("content-type", "application/json");
    let length = ("content-length", "2");
    let none = raw("POST", &path("SendOtp"), &[json, length], "{}");
    let two = [("host", "localhost"), ("host", "otpd"), json, length];
    let two = raw("POST", &path("SendOtp"), &two, "{}");
    for request in [none, two] {
        let mut client = Http1::connect(replica.address()).await;
        client.write(&request).await;
        let reply = client.reply().await.expect("there is a reply");
        assert_eq!((reply.status, reply.header("connection")), (400, "close"));
        assert!(client.ends().await);
    }
}
