//! docs/providers.md: its configuration examples work.

use std::collections::BTreeMap;

use otpd_delivery::preset_names;
use otpd_rules::DeliveryErrorKind;

use super::{
    gateway::{Gateway, pairs},
    provider, table,
    test_message::TestMessage,
};
use crate::support::repository;

fn page() -> String {
    repository::read("docs/providers.md")
}

/// The TOML blocks of the page below `heading`.
fn blocks(heading: &str) -> Vec<String> {
    let page = page();
    let (_, section) = page.split_once(heading).expect("the heading is there");
    let end = section.find("\n## ").unwrap_or(section.len());
    let parts = section[..end].split("```toml\n").skip(1);
    parts
        .map(|part| part.split_once("```").expect("a block ends").0.to_owned())
        .collect()
}

/// The reply that the page shows under `label`.
fn reply(label: &str) -> String {
    let page = page();
    let (_, rest) = page.split_once(label).expect("the page shows it");
    let (_, rest) = rest.split_once("```json\n").expect("as JSON");
    rest.split_once("```")
        .expect("a block ends")
        .0
        .trim()
        .to_owned()
}

#[tokio::test]
async fn gateway_needs_only_configuration() {
    let mut gateway = Gateway::start().await;
    let whole = blocks("## Add a gateway by configuration alone").concat();
    // The only change: the host of the page does not exist.
    let here = whole.replace("https://api.pigeon.example", &gateway.url(""));
    assert_ne!(here, whole);
    let mut root = table(&here);
    let providers = root.remove("providers").expect("the page adds a provider");
    let mut providers = providers.into_table().expect("a table");
    let pigeon = providers.remove("pigeon").expect("the page calls it so");
    let mut pigeon: otpd_base::tables::ConfigTable =
        pigeon.into_table().expect("a table").into_iter().collect();
    pigeon.insert("allow_private_addresses".to_owned(), true.into());
    let provider = provider(pigeon);

    gateway.will_answer(202, &reply("It answers"));
    let message = TestMessage::to("+79991234567");
    let accepted = provider.deliver(&message.outgoing()).await.expect("taken");
    assert_eq!(accepted.provider_id.as_deref(), Some("p-81"));
    let request = gateway.request().await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/v3/messages");
    assert_eq!(request.headers["authorization"], "Token 0123456789");
    let form = pairs(&request.body);
    let expected = [
        ("phone", "79991234567"),
        ("body", "Код 481516 & \"more\""),
        ("from", "Shop"),
        ("reference", super::test_message::MESSAGE_ID),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(form, BTreeMap::from(expected));

    for (status, label, class) in [
        (
            200,
            "or, with status 200 all the same",
            DeliveryErrorKind::NoBalance,
        ),
        (
            422,
            "or, with status 422",
            DeliveryErrorKind::BadDestination,
        ),
    ] {
        gateway.will_answer(status, &reply(label));
        let error = provider
            .deliver(&message.outgoing())
            .await
            .expect_err(label);
        assert_eq!(error.class, class, "{error}");
        gateway.request().await;
    }

    gateway.will_answer(200, &reply("It tells the balance"));
    provider.check().await.expect("the account is known");
    assert_eq!(gateway.request().await.path, "/v3/balance");
}

#[test]
fn provider_page_lists_every_key_and_preset() {
    let page = page();
    for preset in preset_names() {
        assert!(page.contains(&format!("`{preset}`")), "{preset}");
    }
    for kind in ["smtp", "http", "log"] {
        let mut wrong = table(&format!("kind = \"{kind}\"\n"));
        wrong.insert("no_such_key".to_owned(), 1.into());
        let fault = otpd_delivery::settings::ProviderSettings::parse("x", wrong);
        let problem = fault.map(|_| ()).expect_err("no such key").problem;
        let keys: Vec<&str> = problem.split('`').skip(1).step_by(2).collect();
        assert!(keys.len() >= 6, "{problem}");
        for key in keys {
            assert!(page.contains(&format!("`{key}`")), "{key}");
        }
    }
}
