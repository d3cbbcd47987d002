//! Reload of texts, routes and providers: new ones are used at once, and an unchanged
//! provider keeps its circuit breaker.

use super::{Reloading, to};
use crate::outbox::gateway::{DOWN, Gateway, TAKES};

fn route(providers: &[&str]) -> String {
    format!("\n[[routes]]\nproviders = {providers:?}\n")
}

fn text(words: &str) -> String {
    format!("\n[texts.default.en]\nplain = \"{words} {{{{ code }}}}\"\n")
}

async fn send(otpd: &Reloading, number: usize) -> String {
    let sent = otpd
        .replica
        .client()
        .send_otp(to(&format!("+7999000{number:04}")))
        .await;
    sent.expect("it is sent").into_inner().challenge_id
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_changes_texts_routes_and_providers_and_keeps_breakers() {
    let gateway = Gateway::start().await;
    gateway.will("first", DOWN);
    let fragile = "breaker_failures = 1\nbreaker_open_for = \"10m\"";
    let first = gateway.provider("first", fragile);
    let second = gateway.provider("second", "");
    let both = format!("{first}{second}{}", route(&["first", "second"]));
    let mut otpd = Reloading::start(&both).await;
    let challenge = send(&otpd, 1).await;
    otpd.replica.wait_for_line("Circuit breaker opened").await;
    gateway
        .wait_for(|state| state.providers_of(&challenge) == ["first", "second"])
        .await;

    // Another text, and a provider more: the first one is still left alone.
    let third = gateway.provider("third", "");
    let more = format!("{both}{third}{}", text("Hello"));
    let line = otpd.reload(&more).await;
    assert!(line.contains("texts.default.en.plain"), "{line}");
    assert!(line.contains("providers.third.url"), "{line}");
    let challenge = send(&otpd, 2).await;
    let asked = gateway.asked_for(&challenge).await;
    assert_eq!(asked.provider, "second");
    assert_eq!(asked.text, format!("Hello {}", asked.code));

    // Another route.
    let other = format!("{first}{second}{third}{}", route(&["third"]));
    otpd.reload(&other).await;
    let challenge = send(&otpd, 3).await;
    let asked = gateway.asked_for(&challenge).await;
    assert_eq!(asked.provider, "third");
    assert!(!asked.text.starts_with("Hello"), "{}", asked.text);

    // The first one as another one: nothing is known of it.
    gateway.will("first", TAKES);
    let changed = gateway.provider("first", &format!("{fragile}\ntimeout = \"3s\""));
    otpd.reload(&format!("{changed}{second}{}", route(&["first", "second"])))
        .await;
    let challenge = send(&otpd, 4).await;
    gateway
        .wait_for(|state| state.providers_of(&challenge) == ["first"])
        .await;
}
