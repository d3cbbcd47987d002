//! Each preset against a gateway that responds as its documentation says.

use std::{collections::BTreeMap, fs};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use config::Value;
use otpd_base::tables::ConfigTable;
use otpd_rules::DeliveryErrorKind;
use serde::Deserialize;

use super::{
    gateway::{Gateway, Recorded, pairs},
    provider, table,
    test_message::TestMessage,
};
use crate::support::repository;

/// Requests and responses of a gateway: a file of `fixtures/gateways`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// The page of the gateway's documentation that it follows.
    page: String,
    /// Keys configured in addition to `preset`.
    own: BTreeMap<String, Value>,
    to: String,
    request: Request,
    answers: Vec<Answer>,
    check: Option<Check>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    /// `NAME:PASSWORD`.
    basic: Option<String>,
    form: Option<BTreeMap<String, String>>,
    json: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    body: String,
    /// Message id of the gateway, if it accepted the message.
    id: Option<String>,
    /// Error kind, if it did not.
    class: Option<DeliveryErrorKind>,
    /// Text of the cause.
    shows: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    request: Request,
    good: Answer,
    bad: Answer,
}

impl Request {
    #[track_caller]
    fn compare(&self, sent: &Recorded) {
        assert_eq!(sent.method, self.method);
        assert_eq!(sent.path, self.path);
        assert_eq!(sent.query, self.query);
        for (name, value) in &self.headers {
            assert_eq!(sent.headers.get(name), Some(value), "{name}");
        }
        let basic = self.basic.as_ref();
        let basic = basic.map(|basic| format!("Basic {}", STANDARD.encode(basic)));
        if let Some(basic) = basic {
            assert_eq!(sent.headers.get("authorization"), Some(&basic));
        }
        match (&self.form, &self.json) {
            (Some(form), _) => assert_eq!(&pairs(&sent.body), form),
            (None, Some(json)) => {
                let body: serde_json::Value = serde_json::from_str(&sent.body).expect("JSON");
                assert_eq!(&body, json);
            }
            (None, None) => assert_eq!(sent.body, ""),
        }
    }
}

/// The part of a URL after its host.
fn after_host(url: &str) -> &str {
    let host = url.find("://").expect("a URL") + 3;
    url[host..].find('/').map_or("", |path| &url[host + path..])
}

/// Returns the table of a provider with that `preset`, with all its hosts replaced by `gateway`.
fn own_table(preset: &str, own: &BTreeMap<String, Value>, gateway: &Gateway) -> ConfigTable {
    let file = repository::path("presets").join(format!("{preset}.toml"));
    let known = table(&fs::read_to_string(file).expect("the preset has a file"));
    let moved = |url: &Value| {
        let url = url.clone().into_string().expect("a text");
        Value::from(gateway.url(after_host(&url)))
    };
    let mut table: ConfigTable = own.clone().into_iter().collect();
    table.insert("preset".to_owned(), preset.into());
    table.insert("allow_private_addresses".to_owned(), true.into());
    table.insert("url".to_owned(), moved(&known["url"]));
    table.insert("fallback_urls".to_owned(), Vec::<String>::new().into());
    if let Some(check) = known.get("check") {
        let check = check.clone().into_table().expect("a table");
        let url = [("url".to_owned(), moved(&check["url"]))];
        let url: config::Map<String, Value> = url.into_iter().collect();
        table.insert("check".to_owned(), url.into());
    }
    table
}

async fn run(preset: &str) {
    let file =
        repository::path("tests/integration/fixtures/gateways").join(format!("{preset}.toml"));
    let text = fs::read_to_string(file).expect("each preset has its fixture");
    let source = config::File::from_str(&text, config::FileFormat::Toml);
    let fixture: Fixture = config::Config::builder()
        .add_source(source)
        .build()
        .and_then(config::Config::try_deserialize)
        .expect(preset);
    assert!(fixture.page.starts_with("https://"), "{preset}");
    let mut gateway = Gateway::start().await;
    let provider = provider(own_table(preset, &fixture.own, &gateway));
    let message = TestMessage::to(&fixture.to);
    let (mut taken, mut refused) = (0, 0);
    for answer in &fixture.answers {
        gateway.will_answer(answer.status, &answer.body);
        let delivered = provider.deliver(&message.outgoing()).await;
        fixture.request.compare(&gateway.request().await);
        match (delivered, answer.class) {
            (Ok(accepted), None) => {
                assert_eq!(accepted.provider_id, answer.id, "{preset}: {}", answer.body);
                taken += 1;
            }
            (Err(error), Some(class)) => {
                assert_eq!(error.class, class, "{preset}: {error} {}", answer.body);
                let shows = answer.shows.as_deref().unwrap_or_default();
                assert!(error.cause.contains(shows), "{preset}: {error}");
                refused += 1;
            }
            (other, expected) => {
                panic!("{preset}: {other:?} and not {expected:?}: {}", answer.body)
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{preset}: both kinds of answers");
    let Some(check) = fixture.check else {
        return;
    };
    gateway.will_answer(check.good.status, &check.good.body);
    assert!(provider.check().await.is_ok(), "{preset}");
    check.request.compare(&gateway.request().await);
    gateway.will_answer(check.bad.status, &check.bad.body);
    assert!(provider.check().await.is_err(), "{preset}");
}

#[tokio::test]
async fn sms_ru() {
    run("sms_ru").await;
}

#[tokio::test]
async fn smsc_ru() {
    run("smsc_ru").await;
}

#[tokio::test]
async fn telegram_gateway() {
    run("telegram_gateway").await;
}

#[tokio::test]
async fn twilio() {
    run("twilio").await;
}

#[tokio::test]
async fn vonage() {
    run("vonage").await;
}

#[tokio::test]
async fn sms_aero() {
    run("sms_aero").await;
}

#[tokio::test]
async fn messagebird() {
    run("messagebird").await;
}

#[test]
fn presets_and_fixtures_match() {
    let names = |path: &str| {
        let entries = fs::read_dir(repository::path(path)).expect("the directory is there");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(
        names("presets"),
        names("tests/integration/fixtures/gateways")
    );
}
