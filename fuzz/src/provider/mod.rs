//! Gateways over HTTP: their descriptions, requests and responses.

use std::sync::{Arc, LazyLock};

use config::{Config, ConfigError, File, FileFormat, Map, Value, ValueKind};
use otpd_base::tables::{self, ConfigKeyError, ConfigTable};
use otpd_delivery::{
    DeliveryError, GatewayResponse, HttpSettings, OutgoingMessage,
    settings::{ProviderKind, ProviderSettings},
};
use otpd_rules::DeliveryErrorKind;
use reqwest::Client;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde_json::json;

use crate::{
    bytes::Bytes,
    message::{CODE, DIGITS, MESSAGE},
};

macro_rules! gateway {
    ($preset:literal) => {
        (
            $preset,
            include_str!(concat!(
                "../../../tests/integration/fixtures/gateways/",
                $preset,
                ".toml"
            )),
        )
    };
}

/// Presets with the fixtures of their gateways.
const GATEWAYS: [(&str, &str); 7] = [
    gateway!("messagebird"),
    gateway!("sms_aero"),
    gateway!("sms_ru"),
    gateway!("smsc_ru"),
    gateway!("telegram_gateway"),
    gateway!("twilio"),
    gateway!("vonage"),
];

/// Secret of every provider here; no error and no log line may show it.
const SECRET: &str = "Zq7secretZq7";

/// Providers of all presets, as they are tested with their gateways, and one with all
/// other keys.
static PROVIDERS: LazyLock<Vec<HttpSettings>> = LazyLock::new(|| {
    let presets = GATEWAYS.map(|(preset, fixture)| {
        let mut fixture = table(fixture).expect("a fixture is valid TOML");
        let own = fixture.remove("own").expect("a fixture has own keys");
        let mut own = tables::table("own", own).expect("its own keys are a table");
        own.insert("preset".to_owned(), preset.into());
        own
    });
    let own = table(include_str!("everything.toml")).expect("the file is valid TOML");
    let all = presets.into_iter().chain([own]);
    all.map(|table| settings(table).expect("the description is valid"))
        .collect()
});

/// Client that builds requests; none is sent.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy();
    client
        .build()
        .expect("the client has no setting that can fail")
});

fn table(toml: &str) -> Result<ConfigTable, ConfigError> {
    let file = File::from_str(toml, FileFormat::Toml);
    let built = Config::builder().add_source(file).build()?;
    Ok(built.cache.into_table()?.into_iter().collect())
}

/// Parses the settings of a provider over HTTP, with the secret; the error is `None` for
/// a provider of another kind.
fn settings(mut provider: ConfigTable) -> Result<HttpSettings, Option<ConfigKeyError>> {
    let secret = || Value::from(SECRET);
    let secrets = provider
        .entry("secrets".to_owned())
        .or_insert_with(|| ValueKind::Table(Map::new()).into());
    if let ValueKind::Table(secrets) = &mut secrets.kind {
        secrets.insert("key".to_owned(), secret());
    }
    match ProviderSettings::parse("a", provider).map_err(Some)?.kind {
        ProviderKind::Http(settings) => Ok(*settings),
        ProviderKind::Log | ProviderKind::Smtp(_) => Err(None),
    }
}

/// Checks that the outcome of a response is described briefly, and shows nothing of the
/// message or the account.
///
/// The input is the provider, the status (two bytes), and the body.
pub fn reply(data: &[u8]) {
    let mut input = Bytes(data);
    let settings = &PROVIDERS[usize::from(input.byte()) % PROVIDERS.len()];
    let status = u16::from_le_bytes(input.array());
    check_outcome(settings, &GatewayResponse::new(status % 1000, input.0));
}

/// Checks that a description is rejected with its wrong key, or makes requests to its own
/// destination.
///
/// The input is the description in TOML, and a reply after a zero.
pub fn provider(data: &[u8]) {
    let mut input = Bytes(data);
    let Ok(table) = table(&input.text()) else {
        return;
    };
    let settings = match settings(table) {
        Ok(settings) => settings,
        Err(error) => {
            let Some(error) = error else { return };
            let shown = error.to_string();
            assert!(shown.starts_with("providers.a"), "{shown} names no key");
            assert!(!shown.contains(SECRET), "{shown} shows a secret");
            return;
        }
    };
    assert!(!format!("{settings:?}").contains(SECRET));
    let message = MESSAGE.outgoing();
    let values = settings.values(&message);
    for host in 0..settings.send.hosts() {
        match settings.send.build(&CLIENT, host, &values) {
            Ok(request) => {
                // A value that headers cannot contain is reported when the request is
                // sent.
                let Ok(request) = request.build() else {
                    continue;
                };
                assert!(["http", "https"].contains(&request.url().scheme()));
                if host == 0 {
                    assert_eq!(request.url().origin(), settings.send.origin().origin());
                }
            }
            Err(shown) => {
                assert!(!shown.contains(SECRET) && !shown.contains(CODE), "{shown}");
            }
        }
    }
    check_outcome(&settings, &GatewayResponse::new(200, input.0));
}

/// Key that serde_json reserves for itself: it reads an object with this key as raw text.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Checks that a JSON pointer with a value in it finds the member of that name, for any
/// value.
pub fn pointer(data: &[u8]) {
    let mut input = Bytes(data);
    let before = input.text();
    let key = input.text();
    if [&*before, &*key].contains(&RAW_VALUE) {
        return;
    }
    let texts = [
        ("kind", "http"),
        ("url", "https://gateway.example/"),
        ("id_pointer", "/x/{locale}/y"),
    ];
    let table = texts.map(|(name, text)| (name.to_owned(), text.into()));
    let settings = settings(table.into()).expect("the description is valid");
    let message = OutgoingMessage {
        locale: &key,
        ..MESSAGE.outgoing()
    };
    let values = settings.values(&message);
    let id = |body: serde_json::Value| {
        let response = GatewayResponse::new(200, body.to_string().as_bytes());
        let accepted = settings.outcome(&response, &values);
        accepted.expect("there are no conditions").provider_id
    };
    let found = id(json!({ "x": { key.clone(): { "y": "found" } } }));
    assert_eq!(found.as_deref(), Some("found"), "{key:?}");
    if before != key {
        assert_eq!(
            id(json!({ "x": { before: { "y": "found" } } })),
            None,
            "{key:?}"
        );
    }
}

fn check_outcome(settings: &HttpSettings, response: &GatewayResponse) {
    let message = MESSAGE.outgoing();
    let values = settings.values(&message);
    let outcome = settings.outcome(response, &values);
    assert_eq!(
        outcome,
        settings.outcome(response, &values),
        "the outcome is stable"
    );
    match outcome {
        Ok(accepted) => {
            if let Some(id) = accepted.provider_id {
                assert!((1..=128).contains(&id.len()));
                assert!(
                    id.bytes()
                        .all(|byte| byte.is_ascii_graphic() || byte == b' ')
                );
                shows_nothing_private(&id);
            }
        }
        Err(error) => is_discreet(&error),
    }
}

fn is_discreet(error: &DeliveryError) {
    let DeliveryError { class, cause } = error;
    // A gateway that responds has responded in time.
    assert_ne!(*class, DeliveryErrorKind::Timeout);
    assert!(cause.starts_with("HTTP status "), "{cause}");
    assert!(
        cause.len() <= 256 && !cause.contains(['\r', '\n']),
        "{cause}"
    );
    shows_nothing_private(cause);
}

/// Checks that a text for the log shows nothing of the message or the account.
fn shows_nothing_private(shown: &str) {
    let tail = &DIGITS[DIGITS.len() - 6..];
    for private in [CODE, tail, SECRET, MESSAGE.text(), "192.0.2.77"] {
        assert!(!shown.contains(private), "{shown} shows something private");
    }
}
