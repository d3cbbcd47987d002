//! Rules of the Connect protocol and of gRPC-Web, each tried.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use otpd::grpc::v1::{SendOtpRequest, SendOtpResponse};
use prost::Message as _;
use tonic::Code;

use super::tried;
use crate::support::{
    Database, Kind, OPERATIONS, Replica, audited, framed,
    http1::{HttpReply, exchange, path, post, raw},
};

/// Request that is valid except for the change of a case.
const REQUEST: &str = r#"{"recipient":"+79991234567"}"#;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn rules_of_connect_are_followed() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    let json = ("content-type", "application/json");
    let host = ("host", "localhost");
    let status = path("GetOtpStatus");
    let valid = |headers: &[(&str, &str)]| post(&status, headers, REQUEST);
    let bare = |method: &str, target: &str| raw(method, target, &[host, json], "");
    for (rule, request, expected) in [
        (
            "the version may be 1",
            valid(&[("connect-protocol-version", "1")]),
            (200, ""),
        ),
        (
            "no other version",
            valid(&[("connect-protocol-version", "2")]),
            (400, "invalid_argument"),
        ),
        (
            "a timeout",
            valid(&[("connect-timeout-ms", "5000")]),
            (200, ""),
        ),
        (
            "of at most ten digits",
            valid(&[("connect-timeout-ms", "9999999999")]),
            (200, ""),
        ),
        (
            "not of eleven",
            valid(&[("connect-timeout-ms", "99999999999")]),
            (400, "invalid_argument"),
        ),
        (
            "nor of letters",
            valid(&[("connect-timeout-ms", "5s")]),
            (400, "invalid_argument"),
        ),
        (
            "a timeout that has passed",
            valid(&[("connect-timeout-ms", "0")]),
            (504, "deadline_exceeded"),
        ),
        (
            "no compression may be named",
            valid(&[("content-encoding", "identity")]),
            (200, ""),
        ),
        (
            "compression is not used",
            valid(&[("content-encoding", "gzip")]),
            (501, "unimplemented"),
        ),
        (
            "a charset may be named",
            valid(&[("content-type", "application/json; charset=utf-8")]),
            (200, ""),
        ),
        (
            "no media type of streams",
            valid(&[("content-type", "application/connect+json")]),
            (415, ""),
        ),
        (
            "no media type of forms",
            valid(&[("content-type", "application/x-www-form-urlencoded")]),
            (415, ""),
        ),
        (
            "gRPC needs HTTP/2",
            valid(&[("content-type", "application/grpc")]),
            (505, ""),
        ),
        (
            "an unknown method",
            post("/otp.v1.OtpService/Send", &[], REQUEST),
            (404, "unimplemented"),
        ),
        (
            "another service",
            post("/grpc.health.v1.Health/Check", &[], "{}"),
            (404, "unimplemented"),
        ),
        (
            "reflection is not served",
            post(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                &[],
                "{}",
            ),
            (404, "unimplemented"),
        ),
        (
            "no GET of Connect",
            bare(
                "GET",
                &format!("{status}?connect=v1&encoding=json&message=%7B%7D"),
            ),
            (405, ""),
        ),
        ("nor of a browser", raw("GET", "/", &[host], ""), (405, "")),
        ("no OPTIONS", bare("OPTIONS", &status), (405, "")),
        (
            "a query is ignored",
            post(&format!("{status}?a=b"), &[], REQUEST),
            (200, ""),
        ),
        (
            "an empty body is no JSON",
            post(&status, &[], ""),
            (400, "invalid_argument"),
        ),
        (
            "an empty object is a message",
            post(&path("SendOtp"), &[], "{}"),
            (400, "invalid_argument"),
        ),
        (
            "an unknown field",
            post(&status, &[], r#"{"recipient":"+79991234567","phone":"1"}"#),
            (400, "invalid_argument"),
        ),
        (
            "a field twice",
            post(
                &status,
                &[],
                r#"{"recipient":"+79991234567","recipient":"+79991234567"}"#,
            ),
            (400, "invalid_argument"),
        ),
        (
            "the whole target",
            raw(
                "POST",
                &format!("http://localhost{status}"),
                &[host, json, ("content-length", "2")],
                "{}",
            ),
            (400, "invalid_argument"),
        ),
    ] {
        let reply = exchange(replica.address(), &request).await;
        let code = if reply.header("content-type") == "application/json" {
            reply.json()["code"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        };
        assert_eq!((reply.status, &*code), expected, "{rule}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{rule}");
        match reply.status {
            405 => assert_eq!(reply.header("allow"), "POST", "{rule}"),
            415 => assert!(
                reply.header("accept").starts_with("application/json"),
                "{rule}"
            ),
            501 => assert_eq!(reply.header("accept-encoding"), "identity", "{rule}"),
            200 => assert_eq!(reply.header("cache-control"), "no-store", "{rule}"),
            _ => {}
        }
    }
    let log = replica.stop().await.1;
    for (cause, count) in [
        ("the HTTP method is not POST", 3),
        ("unknown method", 3),
        ("the content type is not accepted", 2),
        ("gRPC needs HTTP/2", 1),
    ] {
        assert_eq!(
            audited(&log, "Request refused", cause),
            count,
            "{cause}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn length_and_depth_of_a_message_are_bounded() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let padded = |length: usize| format!("{REQUEST}{}", " ".repeat(length - REQUEST.len()));
    let reply = tried(&replica, "GetOtpStatus", &padded(64 * 1024)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    for length in [64 * 1024 + 6, 1024 * 1024] {
        let reply = tried(&replica, "GetOtpStatus", &padded(length)).await;
        assert_eq!(
            (reply.status, &*reply.reason()),
            (400, "REQUEST_INVALID"),
            "{reply:?}"
        );
    }
    for text in ["[", r#"{"a":"#, r#"{"recipient":["#] {
        let deep = text.repeat(60_000 / text.len());
        let reply = tried(&replica, "GetOtpStatus", &deep).await;
        assert_eq!(
            (reply.status, &*reply.reason()),
            (400, "REQUEST_INVALID"),
            "{text}"
        );
    }
}

/// Messages and trailers of a response of gRPC-Web.
fn parts(reply: &HttpReply) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    let text = reply.header("content-type").contains("-text");
    let mut body = if text {
        // Each part is encoded by itself, so padding may be in the middle.
        let groups = reply.body.chunks(4).map(|group| STANDARD.decode(group));
        groups.flat_map(|group| group.expect("base64")).collect()
    } else {
        reply.body.clone()
    };
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes"));
        let end = 5 + usize::try_from(length).expect("it is short");
        let part = body[5..end].to_vec();
        if body[0] & 0x80 == 0 {
            messages.push(part);
        } else {
            trailers = String::from_utf8(part).expect("headers");
        }
        body.drain(..end);
    }
    (messages, trailers)
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_has_messages_and_trailers_in_the_body() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    for (number, media_type) in [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc-web-text+proto",
    ]
    .into_iter()
    .enumerate()
    {
        let recipient = format!("+7999123456{number}");
        let message = SendOtpRequest {
            recipient: recipient.clone(),
            ..Default::default()
        };
        let mut body = framed(&message.encode_to_vec());
        if media_type.contains("-text") {
            body = STANDARD.encode(body).into_bytes();
        }
        let length = body.len().to_string();
        let headers = [
            ("content-type", media_type),
            ("content-length", &length),
            ("x-grpc-web", "1"),
        ];
        let request = [post(&path("SendOtp"), &headers, ""), body].concat();
        let reply = exchange(replica.address(), &request).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let (messages, trailers) = parts(&reply);
        let sent = SendOtpResponse::decode(&*messages[0]).expect("a message");
        assert_eq!(sent.recipient, recipient);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        // An error has its status in the headers.
        let reply = exchange(replica.address(), &request).await;
        let code = reply.header("grpc-status").parse().map(Code::from_i32);
        assert_eq!(
            (reply.status, code),
            (200, Ok(Code::ResourceExhausted)),
            "{reply:?}"
        );
        assert!(
            !reply.header("grpc-retry-pushback-ms").is_empty(),
            "{reply:?}"
        );
        assert!(
            reply
                .header("content-type")
                .starts_with("application/grpc-web"),
            "{reply:?}"
        );
        let headers = [("content-type", media_type), ("grpc-encoding", "gzip")];
        let reply = exchange(replica.address(), &post(&path("SendOtp"), &headers, "")).await;
        assert_eq!(reply.header("grpc-status"), "12", "{reply:?}");
        assert!(
            reply
                .header("content-type")
                .starts_with("application/grpc-web"),
            "{reply:?}"
        );
    }
    let records = database.number("SELECT COUNT(*) FROM otp_record").await;
    assert_eq!(records, 4);
    let counted = r#"otpd_requests_total{rpc="SendOtp",caller="development",purpose="default",outcome="sent"}"#;
    assert_eq!(replica.scrape().await.value(counted), 4);
}
