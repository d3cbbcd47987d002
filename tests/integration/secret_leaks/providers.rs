//! Leak test of providers: no error shows data of the message or the account.

use std::fmt::Write as _;

use crate::providers::{
    gateway::{Gateway, Reply},
    provider, table,
    test_message::TestMessage,
};
use crate::{
    secret_leaks::{assert_no_leak, text},
    support::Secrets,
};

const CODE: &str = "481516";
const TO: &str = "+79991234567";
const KEY: &str = "kEy-f00d-4711";
const PASSWORD: &str = "pAss-f00d-4711";

/// Secrets everywhere that a secret can be.
const TABLE: &str = r#"
kind = "http"
allow_private_addresses = true
basic = { user = "{secrets.key}", password = "{secrets.password}" }
query = { key = "{secrets.key}", to = "{to_e164}", text = "{text}", ip = "{client_ip}" }
headers = { X-Key = "{secrets.key}", X-Code = "{code}" }
form = { key = "{secrets.key}", to = "{to_digits}", code = "{code}" }
conditions = [{ pointer = "/ok/{to_digits}/{code}", equals = true }]
error_pointer = "/error"
errors = [{ pointer = "/error", equals = "{secrets.key}", class = "transient" }]
check.url = "http://127.0.0.1:1/{secrets.key}"
check.query = { key = "{secrets.key}" }
"#;

/// Secrets that a gateway may echo in an error, none of which may be shown.
fn echoes() -> Vec<String> {
    let echo = |text: &str| format!(r#"{{"error": "{text}", "message": "{text}"}}"#);
    let texts = [
        CODE,
        TO,
        KEY,
        PASSWORD,
        "79991234567",
        "8 (999) 123-45-67",
        "9991234567",
        "Your code is 4815 16",
        "kEY-F00D-4711 is unknown",
        "192.0.2.77",
    ];
    texts.into_iter().map(echo).collect()
}

#[tokio::test]
async fn provider_errors_contain_no_secrets() {
    let mut secrets = Secrets::default();
    let hidden = [
        CODE,
        TO,
        KEY,
        PASSWORD,
        "79991234567",
        "9991234567",
        "192.0.2.77",
    ];
    for secret in hidden {
        secrets.add(secret);
    }
    let mut gateway = Gateway::start().await;
    let own = format!("{TABLE}secrets = {{ key = \"{KEY}\", password = \"{PASSWORD}\" }}\n");
    let at = |url: &str| provider(table(&format!("url = \"{url}\"\n{own}")));
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let stranger = Gateway::with_tls("localhost", &directory.path().join("ca.pem")).await;
    let path = "/{secrets.key}/{to_e164}/{code}";
    let provider = at(&gateway.url(path));
    let message = TestMessage::to(TO);
    let mut errors = format!("{provider:?}\n");
    let mut replies = vec![
        Reply::Close,
        Reply::CloseInBody,
        Reply::Redirect(gateway.url("/")),
    ];
    for body in echoes() {
        for status in [200, 400, 401, 500] {
            replies.push(Reply::Answer(status, body.clone()));
        }
        replies.push(Reply::Answer(200, format!("not JSON {body}")));
    }
    let attempts = replies.len();
    for reply in replies {
        gateway.will(reply);
        let error = provider.deliver(&message.outgoing()).await;
        let error = error.expect_err("no reply is good");
        writeln!(errors, "{error} {error:?}").expect("writing to a string cannot fail");
        gateway.request().await;
    }
    for url in [
        format!("https://localhost:{}{path}", stranger.port()),
        format!("https://localhost:{}{path}", gateway.port()),
        format!("http://127.0.0.1:1{path}"),
    ] {
        let error = at(&url).deliver(&message.outgoing()).await;
        let error = error.expect_err("no connection");
        writeln!(errors, "{error} {error:?}").expect("writing to a string cannot fail");
    }
    errors.push_str(&provider.check().await.expect_err("no server listens"));
    assert_no_leak(&secrets, &[text("an error", &errors)]);
    let lower = errors.to_lowercase();
    assert!(!lower.contains("f00d"), "{errors}");
    // Each attempt did say something, and an error code that is one would be shown.
    assert!(
        errors.matches("HTTP status").count() > attempts / 2,
        "{errors}"
    );
    gateway.will_answer(400, r#"{"error": "E17"}"#);
    let error = provider
        .deliver(&message.outgoing())
        .await
        .expect_err("400");
    assert!(error.cause.contains("error is E17"), "{error}");
}
