//! Rejections before the handlers: each has one log line and one count, and no side
//! effect.

use std::future::poll_fn;

use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use otpd::grpc::v1::{GetOtpStatusRequest, SendOtpRequest, otp_service_client::OtpServiceClient};
use prost::Message as _;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Bytes, Service as _,
        http::{self, StatusCode},
    },
};

use crate::support::{Database, Kind, OPERATIONS, Replica, audited, framed, token_digest};

const REFUSED: &str = "[OTP] Request refused";
const SEND: &str = "/otp.v1.OtpService/SendOtp";

/// A SendOtp of a known caller, to be changed by each case.
#[derive(Clone, Debug)]
struct Call {
    http_method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Call {
    fn new() -> Self {
        let request = SendOtpRequest {
            recipient: "+79991234567".to_owned(),
            ..Default::default()
        };
        Self {
            http_method: "POST",
            path: SEND,
            headers: vec![
                ("content-type", "application/grpc"),
                ("authorization", "Bearer known"),
            ],
            body: framed(&request.encode_to_vec()),
        }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// Makes the call; returns the HTTP status and that of gRPC, if there is one.
    async fn make(self, replica: &Replica) -> (StatusCode, Option<Code>) {
        let mut request = http::Request::builder()
            .method(self.http_method)
            .uri(self.path)
            .version(http::Version::HTTP_2)
            .header("te", "trailers");
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let body = Body::new(Full::new(Bytes::from(self.body)));
        let request = request.body(body).expect("its parts are well formed");
        let mut channel = replica.channel();
        poll_fn(|context| channel.poll_ready(context))
            .await
            .expect("it listens");
        let answer = channel.call(request).await.expect("there is an answer");
        let http_status = answer.status();
        let mut status = Status::from_header_map(answer.headers());
        if status.is_none() {
            let body = answer.into_body().collect().await.expect("a whole reply");
            status = body.trailers().and_then(Status::from_header_map);
        }
        (http_status, status.map(|status| status.code()))
    }
}

async fn serve(database: &Database, settings: &[(&str, &str)]) -> Replica {
    let configuration = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]",
        token_digest("known")
    ));
    let settings = [&[OPERATIONS, ("OTPD_CONFIG", &configuration)], settings].concat();
    Replica::start_with(database, &settings).await
}

/// Checks that a call has this answer, one new line that holds `line` if the caller is
/// known, and one new count.
async fn has_line_and_count(
    replica: &Replica,
    call: Call,
    expected: (StatusCode, Option<Code>),
    line: &str,
    (rpc, caller, answer): (&str, &str, &str),
) {
    let series = format!(
        r#"otpd_requests_total{{rpc="{rpc}",caller="{caller}",purpose="other",outcome="{answer}"}}"#
    );
    let count = async || {
        let scrape = replica.scrape().await;
        let value = scrape.series.get(&series);
        value.map_or(0, |value| value.parse::<u64>().expect("a count"))
    };
    let lines = || replica.log().matches(line).count();
    let (lines_before, count_before) = (lines(), count().await);
    let shown = format!("{call:?}");
    assert_eq!(call.make(replica).await, expected, "{shown}");
    assert_eq!(count().await, count_before + 1, "{shown}: {series}");
    if caller == "other" {
        // Lines of strangers are aggregated; the caller of this checks their number.
        return;
    }
    replica.wait_for_lines(line, lines_before + 1).await;
    let log = replica.log();
    let newest = log.lines().rfind(|text| text.contains(line));
    let newest = newest.expect("it was just there");
    for part in [
        &format!("rpc={rpc}"),
        &format!("caller={caller}"),
        &format!("reason=\"{answer}\""),
    ] {
        assert!(newest.contains(part), "{shown}: {part:?} in {newest}");
    }
    assert_eq!(lines(), lines_before + 1, "{shown}: {log}");
}

/// Checks that no code was made.
async fn nothing_was_sent(database: &Database) {
    let records = database.number("SELECT COUNT(*) FROM otp_record").await;
    assert_eq!(records, 0, "nothing was carried out");
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_content_types_get_415_without_side_effects() {
    let database = Database::new(Kind::Sqlite).await;
    let grpc_alone = [("OTPD_HTTP_API__ENABLED", "false")];
    let replica = serve(&database, &grpc_alone).await;
    for content_type in [
        "text/plain",
        "application/json",
        "application/proto",
        "application/connect+proto",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc+json",
        "application/x-www-form-urlencoded",
        "",
    ] {
        has_line_and_count(
            &replica,
            Call::new().with("content-type", content_type),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, None),
            REFUSED,
            ("SendOtp", "other", "unsupported_media_type"),
        )
        .await;
    }
    for call in [
        Call::new().without("content-type"),
        Call {
            path: "/grpc.health.v1.Health/Check",
            ..Call::new().without("content-type")
        },
    ] {
        let (status, _) = call.make(&replica).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    nothing_was_sent(&database).await;
    for content_type in ["application/grpc", "application/grpc+proto"] {
        let request = SendOtpRequest {
            recipient: "+79990000001".to_owned(),
            request_id: "the-same-one".to_owned(),
            ..Default::default()
        };
        let call = Call {
            body: framed(&request.encode_to_vec()),
            ..Call::new().with("content-type", content_type)
        };
        let answer = call.make(&replica).await;
        assert_eq!(answer, (StatusCode::OK, Some(Code::Ok)), "{content_type}");
    }
    let log = replica.stop().await.1;
    let refused = audited(&log, "Request refused", "the content type is not accepted");
    assert_eq!(refused, 12, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_before_the_handlers_have_one_line_and_one_count() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [("OTPD_CONNECTIONS__REQUEST_BODY_TIMEOUT", "500ms")];
    let replica = serve(&database, &settings).await;
    let good = Call::new().body;
    let ok = StatusCode::OK;
    let body = |body: Vec<u8>| Call {
        body,
        ..Call::new()
    };
    let compressed = [&[1], &good[1..]].concat();
    let two = [good.as_slice(), &vec![0; 70_000]].concat();
    for (call, code, answer) in [
        (
            Call::new().with("grpc-encoding", "gzip"),
            Code::Unimplemented,
            "unimplemented",
        ),
        (body(compressed), Code::Internal, "malformed"),
        (body(Vec::new()), Code::Internal, "malformed"),
        (body(good[..3].to_vec()), Code::Internal, "malformed"),
        (
            body(good[..good.len() - 1].to_vec()),
            Code::Internal,
            "malformed",
        ),
        (
            body(framed(&[0xff; 20])),
            Code::InvalidArgument,
            "REQUEST_INVALID",
        ),
        (
            body(framed(&vec![0; 65_537])),
            Code::InvalidArgument,
            "REQUEST_INVALID",
        ),
        (body(two), Code::InvalidArgument, "REQUEST_INVALID"),
    ] {
        let kinds = ("SendOtp", "crm", answer);
        has_line_and_count(&replica, call, (ok, Some(code)), REFUSED, kinds).await;
    }
    for path in [
        "/otp.v1.OtpService/NoSuchMethod",
        "/otp.v2.OtpService/SendOtp",
        "/",
    ] {
        let call = Call {
            path,
            ..Call::new()
        };
        let answer = (ok, Some(Code::Unimplemented));
        let kinds = ("other", "other", "unimplemented");
        has_line_and_count(&replica, call, answer, REFUSED, kinds).await;
    }
    for http_method in ["GET", "PUT", "OPTIONS"] {
        let call = Call {
            http_method,
            ..Call::new()
        };
        let answer = (StatusCode::METHOD_NOT_ALLOWED, None);
        let kinds = ("SendOtp", "other", "malformed");
        has_line_and_count(&replica, call, answer, REFUSED, kinds).await;
    }
    nothing_was_sent(&database).await;
    let log = replica.stop().await.1;
    for cause in ["unknown method", "the HTTP method is not POST"] {
        assert_eq!(audited(&log, "Request refused", cause), 3, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_keep_the_connection_for_other_calls() {
    // More than the faults for which HTTP/2 ends a connection.
    const REJECTED: usize = 20_000;
    const CONCURRENCY: usize = 50;
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, &[]).await;
    let channel = replica.channel();
    let calls = (0..CONCURRENCY).map(|_| {
        let mut client = OtpServiceClient::new(channel.clone());
        async move {
            for _ in 0..REJECTED / CONCURRENCY {
                let answer = client.get_otp_status(GetOtpStatusRequest::default()).await;
                let status = answer.expect_err("it proves nothing");
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
            }
        }
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_calls_are_rejected_before_their_body() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, &[]).await;
    // Each of these would be refused for its message, if it were read.
    for body in [Vec::new(), framed(&[0xff; 20]), framed(&vec![0; 65_537])] {
        let call = Call {
            body,
            ..Call::new().without("authorization")
        };
        let answer = call.make(&replica).await;
        assert_eq!(answer, (StatusCode::OK, Some(Code::Unauthenticated)));
    }
    let unknown = r#"otpd_auth_failures_total{reason="no_proof"}"#;
    assert_eq!(replica.scrape().await.value(unknown), 3);
    let log = replica.stop().await.1;
    assert_eq!(
        audited(&log, "Authentication failed", "no bearer token"),
        3,
        "{log}"
    );
}
