//! Spans of requests, as received by a collector.

mod collector;

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest};
use tonic::Request;

use crate::{
    providers::gateway::{Gateway, Nobody},
    support::{Database, Kind, OPERATIONS, Replica, Scrape, Secrets, hex_of},
};
use collector::Collector;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER_TRACE: &str = "1bf7651916cd43dd8448eb211c80319d";
const CALLER: &str = "b7ad6b7169203331";
const PHONE: &str = "+79991234567";
const SEND_OTP: &str = "otp.v1.OtpService/SendOtp";

/// A request that comes with its caller's place in a trace.
fn traced<T>(request: T, trace: &str, flags: &str) -> Request<T> {
    let mut request = Request::new(request);
    let place = format!("00-{trace}-{CALLER}-{flags}");
    let place = place.parse().expect("it fits a header");
    request.metadata_mut().insert("traceparent", place);
    request
}

fn send(recipient: &str) -> SendOtpRequest {
    SendOtpRequest {
        recipient: recipient.to_owned(),
        ..Default::default()
    }
}

/// A provider that is asked at that URL.
fn configuration(url: &str) -> String {
    format!(
        "[providers.one]\nkind = \"http\"\nurl = \"{url}\"\njson = {{ to = \"{{to_e164}}\", code = \"{{code}}\" }}\nallow_private_addresses = true\n[[routes]]\nproviders = [\"one\"]\n"
    )
}

async fn serve(database: &Database, endpoint: &str, sample: &str, url: &str) -> Replica {
    let file = database.configure(&configuration(url));
    let environment = [
        ("OTPD_CONFIG", file.as_str()),
        ("OTPD_TRACES__ENDPOINT", endpoint),
        ("OTPD_TRACES__SAMPLE_RATIO", sample),
        OPERATIONS,
    ];
    Replica::start_with(database, &environment).await
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// The text of an attribute.
fn attribute(span: &Span, key: &str) -> String {
    collector::texts(&span.attributes)
        .remove(key)
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn sampled_request_is_traced_to_its_provider() {
    let mut collector = Collector::start().await;
    let mut gateway = Gateway::start().await;
    gateway.will_answer(200, "{}");
    let database = Database::new(Kind::Sqlite).await;
    let url = gateway.url("/send");
    let replica = serve(&database, &collector.endpoint(), "0", &url).await;
    let mut client = replica.client();
    let sent = client.send_otp(traced(send(PHONE), TRACE, "01")).await;
    sent.expect("it is sent");
    let asked = gateway.request().await;
    // The last span of the trace may be the write of the message's result, or the request itself.
    let spans = collector
        .spans_until(|spans| {
            let ended = |name| !named(spans, name).is_empty();
            let delivered = ended("update_messages") && ended("deliver") && ended(SEND_OTP);
            delivered && named(spans, "batch").len() == 2
        })
        .await;
    assert!(spans.iter().all(|span| hex_of(&span.trace_id) == TRACE));

    let [request] = named(&spans, SEND_OTP)[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(hex_of(&request.parent_span_id), CALLER);
    assert_eq!(request.kind(), SpanKind::Server);
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", SEND_OTP),
        ("rpc.response.status_code", "OK"),
        ("otpd.caller", "development"),
        ("otpd.purpose", "default"),
        ("otpd.outcome", "sent"),
    ] {
        assert_eq!(attribute(request, key), value, "{key}");
    }

    // One batch wrote the code, the other the result of its message.
    let batches = named(&spans, "batch");
    for batch in &batches {
        assert_eq!(batch.parent_span_id, request.span_id);
        let links: Vec<&[u8]> = batch.links.iter().map(|link| &*link.span_id).collect();
        assert_eq!(links, [&*request.span_id]);
        assert_eq!(hex_of(&batch.links[0].trace_id), TRACE);
    }
    let of_batches: BTreeSet<&[u8]> = batches.iter().map(|batch| &*batch.span_id).collect();
    for statement in ["load", "write", "update_messages"] {
        let [span] = named(&spans, statement)[..] else {
            panic!("{statement}: {spans:?}");
        };
        assert!(of_batches.contains(&*span.parent_span_id), "{statement}");
        assert_eq!(span.kind(), SpanKind::Client);
        assert_eq!(attribute(span, "db.system.name"), "sqlite");
    }

    let [attempt] = named(&spans, "deliver")[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(attempt.parent_span_id, request.span_id);
    assert_eq!(attempt.kind(), SpanKind::Client);
    assert_eq!(attribute(attempt, "otpd.provider"), "one");
    let place = format!("00-{TRACE}-{}-01", hex_of(&attempt.span_id));
    assert_eq!(asked.headers["traceparent"], place);

    for (key, value) in [
        ("service.name", "otpd"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(collector.resource()[key], value, "{key}");
    }
    let mut secrets = Secrets::default();
    let body: serde_json::Value = serde_json::from_str(&asked.body).expect("it is JSON");
    secrets.add(body["code"].as_str().expect("it has a code"));
    secrets.add(&PHONE[2..]);
    let found = secrets.in_text(&format!("{spans:?}"));
    assert!(found.is_empty(), "{found:?}");
    let line = replica.wait_for_line("Message accepted by provider").await;
    assert!(line.contains(&format!("trace_id={TRACE}")), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_span_links_to_all_requests() {
    let mut collector = Collector::start().await;
    let mut gateway = Gateway::start().await;
    for _ in 0..3 {
        gateway.will_answer(200, "{}");
    }
    let database = Database::new(Kind::Postgres).await;
    let url = gateway.url("/send");
    let replica = serve(&database, &collector.endpoint(), "0", &url).await;
    let lock = database.lock_writes().await;
    let client = replica.client();
    let request = |recipient: &str, trace: &str, flags: &str| {
        let (mut client, request) = (client.clone(), traced(send(recipient), trace, flags));
        tokio::spawn(async move { client.send_otp(request).await })
    };
    let first = request("+79990000001", TRACE, "00");
    database.held_up_writer().await;
    let others = [
        request("+79990000002", TRACE, "01"),
        request("+79990000003", OTHER_TRACE, "01"),
    ];
    // Both wait for the same batch.
    let waiting = |scrape: &Scrape| scrape.value("otpd_queue_depth") == 2;
    replica.scrape_until(waiting).await;
    drop(lock);
    for sent in [first].into_iter().chain(others) {
        sent.await.expect("it ends").expect("it is sent");
    }
    for _ in 0..3 {
        gateway.request().await;
    }
    let spans = collector
        .spans_until(|spans| spans.iter().any(|span| span.links.len() == 2))
        .await;
    let spans = collector
        .spans_from(spans, |spans| named(spans, SEND_OTP).len() == 2)
        .await;
    let batch = spans.iter().find(|span| span.links.len() == 2);
    let batch = batch.expect("it was waited for");
    assert_eq!(attribute(batch, "otpd.batch.size"), "2");
    let linked: BTreeSet<&[u8]> = batch.links.iter().map(|link| &*link.span_id).collect();
    let requests = named(&spans, SEND_OTP);
    let requests: BTreeSet<&[u8]> = requests.iter().map(|span| &*span.span_id).collect();
    assert_eq!(linked, requests);
    assert!(requests.contains(&*batch.parent_span_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsampled_request_propagates_trace_id() {
    let mut collector = Collector::start().await;
    let mut gateway = Gateway::start().await;
    let database = Database::new(Kind::Sqlite).await;
    let url = gateway.url("/send");
    let replica = serve(&database, &collector.endpoint(), "0", &url).await;
    let mut client = replica.client();
    for number in 0..2 {
        gateway.will_answer(200, "{}");
        let request = send(&format!("+7999000000{number}"));
        let request = match number {
            0 => traced(request, TRACE, "00"),
            _ => Request::new(request),
        };
        client.send_otp(request).await.expect("it is sent");
        let asked = gateway.request().await;
        let place = asked.headers.get("traceparent").map(String::as_str);
        let expected = format!("00-{TRACE}-{CALLER}-00");
        assert_eq!(place, (number == 0).then_some(&*expected));
    }
    // A request that its caller samples comes after both.
    let verify = VerifyOtpRequest {
        recipient: PHONE.to_owned(),
        code: "123456".to_owned(),
        ..Default::default()
    };
    let verdict = client.verify_otp(traced(verify, OTHER_TRACE, "01")).await;
    verdict.expect("there is an outcome");
    let (status, log) = replica.stop().await;
    assert!(status.success());
    let spans = collector
        .spans_until(|spans| !named(spans, "otp.v1.OtpService/VerifyOtp").is_empty())
        .await;
    assert!(
        spans
            .iter()
            .all(|span| hex_of(&span.trace_id) == OTHER_TRACE),
        "{spans:?}"
    );
    let with = |trace: &str| log.lines().filter(|line| line.contains(trace)).count();
    // Received, queued, sent; received, verified.
    assert_eq!(with(&format!("trace_id={TRACE}")), 3, "{log}");
    assert_eq!(with(&format!("trace_id={OTHER_TRACE}")), 2, "{log}");
    assert_eq!(with("trace_id="), 5, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_requests_are_sampled_by_ratio() {
    let mut collector = Collector::start().await;
    let gateway = Gateway::start().await;
    gateway.will_answer(503, "{}");
    let database = Database::new(Kind::Sqlite).await;
    let url = gateway.url("/send");
    let replica = serve(&database, &collector.endpoint(), "1", &url).await;
    let sent = replica.client().send_otp(send(PHONE)).await;
    sent.expect("it is sent");
    // The message may be tried before its request's own span has ended.
    let spans = collector
        .spans_until(|spans| {
            !named(spans, "deliver").is_empty() && !named(spans, SEND_OTP).is_empty()
        })
        .await;
    let attempt = named(&spans, "deliver")[0];
    assert_eq!(attribute(attempt, "error.type"), "transient");
    let status = attempt.status.as_ref().expect("it has one");
    assert_eq!(status.code(), StatusCode::Error);
    let [request] = named(&spans, SEND_OTP)[..] else {
        panic!("{spans:?}");
    };
    assert!(request.parent_span_id.is_empty());
    assert_eq!(attempt.trace_id, request.trace_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_collector_is_logged_once_without_affecting_requests() {
    let nobody = Nobody::new();
    let gateway = Gateway::start().await;
    let database = Database::new(Kind::Sqlite).await;
    let url = gateway.url("/send");
    let endpoint = format!("http://127.0.0.1:{}", nobody.port());
    let replica = serve(&database, &endpoint, "1", &url).await;
    let mut client = replica.client();
    for round in 0..3 {
        for number in 0..20 {
            gateway.will_answer(200, "{}");
            let recipient = format!("+79990{round:03}{number:03}");
            let sent = client.send_otp(send(&recipient)).await;
            sent.expect("it is sent");
        }
        replica.wait_for_line("Trace export failing").await;
    }
    let (status, log) = replica.stop().await;
    assert!(status.success());
    assert_eq!(log.matches("Trace export failing").count(), 1, "{log}");
}
