//! Metrics of requests, callers, providers and the store.

mod page;

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest,
    otp_service_client::OtpServiceClient,
};
use tonic::transport::Channel;

use crate::{
    outbox::gateway::{DOWN, Gateway},
    support::{Database, Kind, OPERATIONS, Replica, Typed, token_digest},
};

/// A recipient with its client.
struct Person<'a> {
    replica: &'a Replica,
    client: OtpServiceClient<Channel>,
    recipient: &'static str,
}

impl<'a> Person<'a> {
    fn new(replica: &'a Replica, recipient: &'static str) -> Self {
        Self {
            replica,
            client: replica.client(),
            recipient,
        }
    }

    async fn send(&mut self) -> Option<String> {
        let request = SendOtpRequest {
            recipient: self.recipient.to_owned(),
            ..Default::default()
        };
        let sent = self.client.send_otp(request).await.ok()?.into_inner();
        Some(self.replica.code(&sent.challenge_id).await)
    }

    async fn verify(&mut self, code: &str) {
        let request = VerifyOtpRequest {
            recipient: self.recipient.to_owned(),
            code: code.to_owned(),
            ..Default::default()
        };
        // A refusal is counted, too.
        let _ = self.client.verify_otp(request).await;
    }

    async fn cancel(&mut self) {
        let request = CancelOtpRequest {
            recipient: self.recipient.to_owned(),
            ..Default::default()
        };
        self.client
            .cancel_otp(request)
            .await
            .expect("there is a reply");
    }
}

/// Gets nearly every answer there is.
async fn get_every_answer(database: &Database, replica: &Replica) {
    let mut person = Person::new(replica, "+79991234567");
    person.verify("123456").await;
    let code = person.send().await.expect("it is sent");
    assert!(person.send().await.is_none(), "it is too soon");
    person.verify("12345x").await;
    person.verify(&Typed::Mistyped.text(&code)).await;
    person.verify(&code).await;

    let mut other = Person::new(replica, "+77011234567");
    let code = other.send().await.expect("it is sent");
    for _ in 0..5 {
        other.verify(&Typed::Mistyped.text(&code)).await;
    }
    other.verify(&code).await;
    database.advance_clock(Duration::from_mins(2)).await;
    other.verify(&code).await;
    database.advance_clock(Duration::from_mins(10)).await;
    other.verify(&code).await;
    other.cancel().await;
    let resent = other.send().await.expect("a new one");
    database.advance_clock(Duration::from_mins(12)).await;
    other.send().await.expect("the same one");
    other.cancel().await;
    drop(resent);
    let about = GetOtpStatusRequest {
        recipient: "+77011234567".to_owned(),
        ..Default::default()
    };
    let reply = other.client.get_otp_status(about).await;
    reply.expect("there is a status");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_response_is_counted_once() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    get_every_answer(&database, &replica).await;
    let verified = r#"otpd_codes_verified_total{channel="sms",country="RU",provider="log"}"#;
    let scrape = replica
        .scrape_until(|scrape| scrape.value(verified) > 0)
        .await;
    for (rpc, answer, count) in [
        ("SendOtp", "sent", 3),
        ("SendOtp", "resent", 1),
        ("SendOtp", "RESEND_TOO_SOON", 1),
        ("VerifyOtp", "verified", 1),
        ("VerifyOtp", "wrong_code", 6),
        ("VerifyOtp", "not_found", 1),
        ("VerifyOtp", "VERIFY_DELAYED", 1),
        ("VerifyOtp", "attempts_exhausted", 1),
        ("VerifyOtp", "expired", 1),
        ("CancelOtp", "no_active_code", 1),
        ("CancelOtp", "cancelled", 1),
        ("GetOtpStatus", "ok", 1),
    ] {
        let labels = r#"caller="development",purpose="default""#;
        let series = format!(r#"otpd_requests_total{{rpc="{rpc}",{labels},outcome="{answer}"}}"#);
        assert_eq!(scrape.value(&series), count, "{series}");
    }
    let unread = r#"otpd_requests_total{rpc="VerifyOtp",caller="development",purpose="other",outcome="CODE_MALFORMED"}"#;
    for (series, count) in [
        (unread, 1),
        (verified, 1),
        (
            r#"otpd_codes_sent_total{channel="sms",country="RU",provider="log"}"#,
            1,
        ),
        (
            r#"otpd_codes_sent_total{channel="sms",country="KZ",provider="log"}"#,
            3,
        ),
        (
            r#"otpd_delivery_attempts_total{provider="log",channel="sms",result="accepted"}"#,
            4,
        ),
        (r#"otpd_messages_completed_total{result="sent"}"#, 4),
        (
            r#"otpd_lockouts_total{kind="delayed",caller="development"}"#,
            1,
        ),
        ("otpd_store_up", 1),
        (r#"otpd_provider_breaker_state{provider="log"}"#, 0),
        (
            r#"rpc_server_call_duration_seconds_count{rpc_system_name="grpc",rpc_method="otp.v1.OtpService/SendOtp",rpc_response_status_code="OK"}"#,
            4,
        ),
        (
            r#"rpc_server_call_duration_seconds_count{rpc_system_name="grpc",rpc_method="otp.v1.OtpService/SendOtp",rpc_response_status_code="RESOURCE_EXHAUSTED"}"#,
            1,
        ),
    ] {
        assert_eq!(scrape.value(series), count, "{series}\n{}", scrape.text);
    }
    // Live are both records, as the census finds in its next round.
    replica
        .scrape_until(|scrape| scrape.value(r#"otpd_records{state="active"}"#) == 2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_is_attributed_to_provider() {
    let database = Database::new(Kind::Postgres).await;
    let replicas = Replica::start_many_with(&database, 2, &[OPERATIONS]).await;
    let mut sender = replicas[0].client();
    let sent = sender.send_otp(SendOtpRequest {
        recipient: "+4915112345678".to_owned(),
        ..Default::default()
    });
    let sent = sent.await.expect("it is sent").into_inner();
    let code = replicas[0].code(&sent.challenge_id).await;
    Person::new(&replicas[1], "+4915112345678")
        .verify(&code)
        .await;
    let labels = r#"{channel="sms",country="DE",provider="log"}"#;
    let verified = format!("otpd_codes_verified_total{labels}");
    replicas[1]
        .scrape_until(|scrape| scrape.value(&verified) == 1)
        .await;
    let there = replicas[0].scrape().await;
    assert_eq!(there.value(&format!("otpd_codes_sent_total{labels}")), 1);
    assert_eq!(there.value(&verified), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_failures_rate_limits_and_resets_are_counted_by_name() {
    let database = Database::new(Kind::Sqlite).await;
    let token = "a-token-of-the-crm-that-is-secret";
    let file = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\nmay_reset_failures = true\nself_delivery = true\n[callers.crm.policy]\nsends_per_hour = 1\n",
        token_digest(token)
    ));
    let replica = Replica::start_with(&database, &[OPERATIONS, ("OTPD_CONFIG", &file)]).await;
    let mut crm = replica.client_of(token);
    let send = || SendOtpRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    };
    let code = crm.send_otp(send()).await.expect("it is sent").into_inner();
    let verify = |code: &str| VerifyOtpRequest {
        recipient: "+79991234567".to_owned(),
        code: code.to_owned(),
        ..Default::default()
    };
    let verdict = crm
        .verify_otp(verify(&Typed::Mistyped.text(&code.code)))
        .await;
    assert!(!verdict.expect("there is an outcome").into_inner().verified);
    let reset = CancelOtpRequest {
        recipient: "+79991234567".to_owned(),
        reset_failures: true,
        ..Default::default()
    };
    crm.cancel_otp(reset).await.expect("there is a reply");
    database.advance_clock(Duration::from_mins(2)).await;
    crm.send_otp(send()).await.expect_err("there was one");
    for stranger in ["nobody's", "else"] {
        let mut stranger = replica.client_of(stranger);
        let refused = stranger.send_otp(send()).await;
        refused.expect_err("it is unknown");
    }
    let scrape = replica.scrape().await;
    for (series, count) in [
        (
            r#"otpd_requests_total{rpc="SendOtp",caller="crm",purpose="default",outcome="self_delivered"}"#,
            1,
        ),
        (
            r#"otpd_codes_sent_total{channel="sms",country="RU",provider="caller"}"#,
            1,
        ),
        (
            r#"otpd_rate_limited_total{limit="sends_per_hour",caller="crm"}"#,
            1,
        ),
        (r#"otpd_lockout_resets_total{caller="crm"}"#, 1),
        (r#"otpd_auth_failures_total{reason="token"}"#, 2),
    ] {
        assert_eq!(scrape.value(series), count, "{series}\n{}", scrape.text);
    }
    for secret in [token, "nobody's", "9991234567", &code.code] {
        assert!(!scrape.text.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_cardinality_is_bounded() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    let mut client = replica.client();
    for number in 0..50 {
        let request = VerifyOtpRequest {
            recipient: "+79991234567".to_owned(),
            purpose: format!("purpose-{number}"),
            code: "123456".to_owned(),
            ..Default::default()
        };
        client
            .verify_otp(request)
            .await
            .expect("there is an outcome");
    }
    let scrape = replica.scrape().await;
    let answers = scrape.series.keys();
    let answers: Vec<&String> = answers
        .filter(|series| series.starts_with("otpd_requests_total"))
        .collect();
    let other = r#"otpd_requests_total{rpc="VerifyOtp",caller="development",purpose="other",outcome="not_found"}"#;
    assert_eq!(answers, [other]);
    assert_eq!(scrape.value(other), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_breaker_is_visible_in_metrics() {
    let gateway = Gateway::start().await;
    gateway.will("one", DOWN);
    let database = Database::new(Kind::Sqlite).await;
    let file = database.configure(&format!(
        "{}\n[[routes]]\nproviders = [\"one\"]\n",
        gateway.provider("one", "breaker_failures = 1\nbreaker_open_for = \"10m\"")
    ));
    let replica = Replica::start_with(&database, &[OPERATIONS, ("OTPD_CONFIG", &file)]).await;
    let mut client = replica.client();
    let sent = client.send_otp(SendOtpRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    });
    sent.await.expect("it is queued");
    let open = r#"otpd_provider_breaker_state{provider="one"}"#;
    let scrape = replica
        .scrape_until(|scrape| scrape.value(open) == 2 && scrape.value("otpd_messages_queued") == 1)
        .await;
    let failed = r#"otpd_delivery_attempts_total{provider="one",channel="sms",result="transient"}"#;
    assert_eq!(scrape.value(failed), 1);
    let took = r#"otpd_delivery_attempt_duration_seconds_count{provider="one"}"#;
    assert_eq!(scrape.value(took), 1);
    assert!(!scrape.text.contains("otpd_codes_sent_total{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_store_is_visible_in_metrics() {
    let database = Database::new(Kind::Sqlite).await;
    let absent = "postgres://postgres@127.0.0.1:1/absent";
    let replica = Replica::launch(absent, &database, &[OPERATIONS]).await;
    let errors = r#"otpd_requests_total{rpc="GetOtpStatus",caller="development",purpose="default",outcome="STORE_UNAVAILABLE"}"#;
    let about = GetOtpStatusRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    };
    let refused = replica.client().get_otp_status(about).await;
    refused.expect_err("there is no store");
    let scrape = replica.scrape().await;
    assert_eq!(scrape.value("otpd_store_up"), 0);
    assert_eq!(scrape.value(errors), 1);
    assert!(!scrape.series.contains_key("otpd_messages_queued"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_listener_is_optional_and_serves_only_metrics() {
    let database = Database::new(Kind::Sqlite).await;
    let silent = Replica::start(&database).await;
    assert!(!silent.log().contains("operations"));
    let replica = Replica::start_with(&database, &[OPERATIONS]).await;
    for (method, path, status) in [
        ("GET", "/metrics", 200),
        ("GET", "/metrics?x=1", 200),
        ("POST", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("PUT", "/anything", 404),
    ] {
        let (answered, text) = replica.operate(method, path, "").await;
        assert_eq!(answered, status, "{method} {path}: {text}");
    }
}
