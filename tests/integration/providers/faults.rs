//! Gateways that fail in every way.

use otpd_delivery::{DeliveryError, Provider, ProviderReceipt};
use otpd_rules::DeliveryErrorKind;

use super::{
    gateway::{Gateway, Nobody, Reply},
    provider, table,
    test_message::{MESSAGE_ID, TestMessage},
};

/// A gateway's description, without its URL.
const SPOKEN: &str = r#"
kind = "http"
allow_private_addresses = true
id_pointer = "/id"
error_pointer = "/code"
query = { a = "{text}" }
headers = { X-Message = "{message_id}", X-Empty = "{parameters.nothing}" }
json = { to = "{to_e164}", list = ["{code}", "{parameters.nothing}"], fixed = 5, ttl = "{ttl_seconds}" }
conditions = [{ pointer = "/ok", equals = true }]
errors = [
    { status = "402", class = "no_balance" },
    { status = [400, "404..409"], pointer = "/code", one_of = ["7", "8"], class = "bad_destination" },
    { pointer = "/code", equals = "later", class = "transient" },
]
parameters = { nothing = "" }
"#;

fn spoken(url: &str) -> Provider {
    provider(table(&format!("url = \"{url}\"\n{SPOKEN}")))
}

async fn send(provider: &Provider) -> Result<ProviderReceipt, DeliveryError> {
    let message = TestMessage::to("+79991234567");
    provider.deliver(&message.outgoing()).await
}

#[tokio::test]
async fn values_arrive_unchanged_and_empty_ones_are_omitted() {
    let mut gateway = Gateway::start().await;
    let provider = spoken(&gateway.url("/send/{to_e164}?fixed=1"));
    gateway.will_answer(200, r#"{"ok": true, "id": 12}"#);
    let accepted = send(&provider).await.expect("taken");
    assert_eq!(accepted.provider_id.as_deref(), Some("12"));
    let request = gateway.request().await;
    assert_eq!(request.path, "/send/%2B79991234567");
    assert_eq!(request.query["fixed"], "1");
    assert_eq!(request.query["a"], "Код 481516 & \"more\"");
    assert_eq!(request.headers["x-message"], MESSAGE_ID);
    assert!(!request.headers.contains_key("x-empty"));
    let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
    let expected =
        serde_json::json!({ "to": "+79991234567", "list": ["481516"], "fixed": 5, "ttl": 180 });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn each_response_maps_to_its_error_kind() {
    let gateway = Gateway::start().await;
    let provider = spoken(&gateway.url("/"));
    let oversized = format!(r#"{{"ok": true, "filler": "{}"}}"#, "x".repeat(64 * 1024));
    let long_code = format!(r#"{{"code": "{}"}}"#, "x".repeat(65));
    for (status, body, class, response) in [
        (
            200,
            r#"{"ok": false}"#,
            DeliveryErrorKind::Permanent,
            "conditions[0]",
        ),
        (
            200,
            r#"{"ok": false, "code": "later"}"#,
            DeliveryErrorKind::Transient,
            "error is later (errors[2])",
        ),
        (200, "", DeliveryErrorKind::UnknownOutcome, "not JSON"),
        (200, "<html>", DeliveryErrorKind::UnknownOutcome, "not JSON"),
        (
            200,
            &oversized,
            DeliveryErrorKind::UnknownOutcome,
            "over 64 KiB",
        ),
        (
            400,
            r#"{"code": 7}"#,
            DeliveryErrorKind::BadDestination,
            "errors[1]",
        ),
        (
            405,
            r#"{"code": "8"}"#,
            DeliveryErrorKind::BadDestination,
            "errors[1]",
        ),
        (
            403,
            r#"{"code": 7}"#,
            DeliveryErrorKind::Permanent,
            "HTTP status 403",
        ),
        (400, "", DeliveryErrorKind::Permanent, "HTTP status 400"),
        (402, "", DeliveryErrorKind::NoBalance, "errors[0]"),
        (408, "", DeliveryErrorKind::Transient, "HTTP status 408"),
        (429, "", DeliveryErrorKind::Transient, "HTTP status 429"),
        (
            500,
            r#"{"ok": true}"#,
            DeliveryErrorKind::Transient,
            "HTTP status 500",
        ),
        (503, "", DeliveryErrorKind::Transient, "HTTP status 503"),
        (
            504,
            "",
            DeliveryErrorKind::UnknownOutcome,
            "HTTP status 504",
        ),
        (304, "", DeliveryErrorKind::Permanent, "HTTP status 304"),
        (
            404,
            &long_code,
            DeliveryErrorKind::Permanent,
            "HTTP status 404",
        ),
    ] {
        gateway.will_answer(status, body);
        let error = send(&provider).await.expect_err(response);
        assert_eq!(error.class, class, "{status} {body}: {error}");
        assert!(error.cause.contains(response), "{response}: {error}");
        assert!(error.cause.len() < 150, "{error}");
    }
}

#[tokio::test]
async fn broken_connection_leaves_unknown_outcome_and_the_next_message_is_sent() {
    let mut gateway = Gateway::start().await;
    let provider = spoken(&gateway.url("/"));
    for reply in [Reply::Close, Reply::CloseInBody] {
        gateway.will(reply.clone());
        let error = send(&provider).await.expect_err("broken");
        assert_eq!(
            error.class,
            DeliveryErrorKind::UnknownOutcome,
            "{reply:?}: {error}"
        );
        gateway.request().await;
        gateway.will_answer(200, r#"{"ok": true}"#);
        send(&provider).await.expect("the gateway is back");
        gateway.request().await;
    }
}

#[tokio::test]
async fn timed_out_attempt_does_not_affect_the_next() {
    let mut gateway = Gateway::start().await;
    let provider = spoken(&gateway.url("/"));
    for reply in [Reply::Hang, Reply::HangInBody] {
        gateway.will(reply.clone());
        {
            let hanging = std::pin::pin!(send(&provider));
            tokio::select! {
                _ = hanging => panic!("there was no reply to {reply:?}"),
                _ = gateway.request() => {}
            }
        }
        gateway.will_answer(200, r#"{"ok": true, "id": "next"}"#);
        let accepted = send(&provider).await.expect("taken");
        assert_eq!(accepted.provider_id.as_deref(), Some("next"));
        gateway.request().await;
    }
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let mut gateway = Gateway::start().await;
    let mut other = Gateway::start().await;
    let provider = spoken(&gateway.url("/"));
    gateway.will(Reply::Redirect(other.url("/")));
    let error = send(&provider).await.expect_err("no answer of the gateway");
    assert_eq!(error.class, DeliveryErrorKind::Permanent);
    gateway.request().await;
    assert!(gateway.is_idle() && other.is_idle());
}

#[tokio::test]
async fn fallback_url_is_used_only_if_the_first_host_is_unreachable() {
    let mut first = Gateway::start().await;
    let mut second = Gateway::start().await;
    let with_second = |url: &str| {
        let urls = format!(
            "url = \"{url}\"\nfallback_urls = \"{}\"\n",
            second.url("/second")
        );
        provider(table(&format!("{urls}{SPOKEN}")))
    };
    let nobody = Nobody::new();
    let dead = with_second(&nobody.url());
    let live = with_second(&first.url("/first"));
    second.will_answer(200, r#"{"ok": true, "id": "from the second"}"#);
    let accepted = send(&dead).await.expect("the second took it");
    assert_eq!(accepted.provider_id.as_deref(), Some("from the second"));
    assert_eq!(second.request().await.path, "/second");
    // The provider may have accepted the message, so that no other provider gets it in the same
    // attempt.
    first.will(Reply::Close);
    let error = send(&live).await.expect_err("broken");
    assert_eq!(error.class, DeliveryErrorKind::UnknownOutcome);
    first.request().await;
    assert!(second.is_idle());
}

#[tokio::test]
async fn connection_refused_is_reported() {
    let nobody = Nobody::new();
    let provider = spoken(&nobody.url());
    let error = send(&provider).await.expect_err("no server listens");
    assert_eq!(error.class, DeliveryErrorKind::Transient);
    assert_eq!(error.cause, "no connection: connection refused");
    let problem = provider.check().await.expect_err("no server listens");
    assert_eq!(problem, "no connection: connection refused");
}

#[tokio::test]
async fn certificate_must_be_trusted_and_match_the_host() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let file = directory.path().join("ca.pem");
    for (name, trusted, response) in [
        ("localhost", true, None),
        ("localhost", false, Some("the certificate was refused: ")),
        ("other.example", true, Some("the certificate was refused: ")),
    ] {
        let gateway = Gateway::with_tls(name, &file).await;
        let ca = if trusted {
            format!("ca = \"{}\"\n", file.display())
        } else {
            String::new()
        };
        let url = format!("url = \"https://localhost:{}/\"\n", gateway.port());
        let provider = provider(table(&format!("{url}{ca}{SPOKEN}")));
        gateway.will_answer(200, r#"{"ok": true}"#);
        let sent = send(&provider).await;
        match response {
            None => {
                sent.expect("all is well");
                provider.check().await.expect("any answer will do");
            }
            Some(response) => {
                let error = sent.expect_err("a stranger");
                assert_eq!(error.class, DeliveryErrorKind::Transient);
                assert!(error.cause.contains(response), "{error}");
                let problem = provider.check().await.expect_err("a stranger");
                assert!(problem.contains(response), "{problem}");
            }
        }
    }
}

#[tokio::test]
async fn name_resolving_to_a_private_network_is_rejected() {
    let mut gateway = Gateway::start().await;
    let url = format!("url = \"http://localhost:{}/\"\n", gateway.port());
    let closed = SPOKEN.replace("allow_private_addresses = true", "");
    let closed = provider(table(&format!("{url}{closed}")));
    let error = send(&closed).await.expect_err("a private address");
    assert_eq!(error.class, DeliveryErrorKind::Transient);
    assert!(error.cause.contains("the address is not public"), "{error}");
    assert!(gateway.is_idle());
    let open = provider(table(&format!("{url}{SPOKEN}")));
    gateway.will_answer(200, r#"{"ok": true}"#);
    send(&open).await.expect("it is allowed");
}

#[tokio::test]
async fn invalid_header_value_is_rejected_before_sending() {
    let mut gateway = Gateway::start().await;
    let url = format!("url = \"{}\"\n", gateway.url("/"));
    let header = "kind = \"http\"\nallow_private_addresses = true\nheaders.X-Text = \"{text}\"\n";
    let provider = provider(table(&format!("{url}{header}")));
    let mut message = TestMessage::to("+79991234567");
    message.text.plain = "Code: 1\r\nX-Other: 2".to_owned();
    let error = provider.deliver(&message.outgoing()).await;
    let error = error.expect_err("a line end");
    assert_eq!(error.class, DeliveryErrorKind::Permanent);
    assert!(error.cause.contains("x-text"), "{error}");
    assert!(gateway.is_idle());
}
