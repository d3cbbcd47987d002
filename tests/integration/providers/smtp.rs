//! E-mail to a real SMTP server, read by Python's parser.

use std::time::Duration;

use otpd_delivery::{DeliveryError, GatewayOptions, Provider, ProviderHandle};
use otpd_rules::DeliveryErrorKind;
use serde_json::Value;

use super::{
    gateway::Nobody,
    provider,
    sink::Sink,
    table,
    test_message::{MESSAGE_ID, TestMessage},
};

const ACCOUNT: &str = "user = \"otpd\"\npassword = \"pässword\"\n";

fn to(sink: &Sink, rest: &str) -> Provider {
    provider(table(&format!(
        "kind = \"smtp\"\nhost = \"localhost\"\nport = {}\nca = \"{}\"\nfrom = \"Вход <no-reply@почта.рф>\"\n{rest}",
        sink.port(),
        sink.ca().display(),
    )))
}

async fn send(provider: &Provider, recipient: &str) -> Result<(), DeliveryError> {
    let message = TestMessage::to(recipient);
    provider.deliver(&message.outgoing()).await.map(|_| ())
}

fn multipart(recipient: &str) -> TestMessage {
    let mut message = TestMessage::to(recipient);
    message.text.plain = String::from("Ваш код: 481516\n\n@example.com #481516");
    message.text.subject = Some(
        "Код подтверждения для «Магазина», действует 5 минут — никому его не сообщайте".to_owned(),
    );
    message.text.html = Some("<p>Ваш код: <b>481516</b></p>".to_owned());
    message
}

/// Returns a text with its line ends removed.
fn lines(text: &Value) -> String {
    text.as_str()
        .expect("a text")
        .replace("\r\n", "\n")
        .trim_end()
        .to_owned()
}

#[tokio::test]
async fn mail_arrives_complete_over_starttls() {
    let mut sink = Sink::start("starttls", "localhost").await;
    let provider = to(
        &sink,
        &format!("{ACCOUNT}reply_to = \"help@shop.example\"\n"),
    );
    let message = multipart("ann@xn--80a1acny.xn--p1ai");
    provider.deliver(&message.outgoing()).await.expect("taken");
    let mail = sink.event().await;
    assert_eq!(mail["tls"], true);
    assert_eq!(mail["ascii"], true, "no server has to know 8BITMIME");
    assert_eq!(mail["hello"], "xn--80a1acny.xn--p1ai");
    assert_eq!(mail["mail_from"], "no-reply@xn--80a1acny.xn--p1ai");
    assert_eq!(mail["rcpt_to"][0], "ann@xn--80a1acny.xn--p1ai");
    assert_eq!(mail["type"], "multipart/alternative");
    assert_eq!(mail["faults"], Value::Array(Vec::new()));
    let headers = &mail["headers"];
    assert_eq!(
        headers["subject"],
        message.text.subject.clone().expect("set")
    );
    assert_eq!(headers["from"], "Вход <no-reply@xn--80a1acny.xn--p1ai>");
    assert_eq!(headers["to"], "ann@xn--80a1acny.xn--p1ai");
    assert_eq!(headers["reply-to"], "help@shop.example");
    assert_eq!(
        headers["message-id"],
        format!("<{MESSAGE_ID}@xn--80a1acny.xn--p1ai>")
    );
    assert_eq!(headers["auto-submitted"], "auto-generated");
    assert!(headers["date"].is_string());
    assert_eq!(lines(&mail["text"]), message.text.plain);
    assert_eq!(Some(lines(&mail["html"])), message.text.html);
}

#[tokio::test]
async fn mail_without_html_is_plain_text() {
    let mut sink = Sink::start("implicit", "localhost").await;
    let provider = to(
        &sink,
        &format!("{ACCOUNT}tls = \"implicit\"\nehlo_name = \"otpd.example\"\n"),
    );
    send(&provider, "ann@example.com").await.expect("taken");
    let mail = sink.event().await;
    assert_eq!(mail["type"], "text/plain");
    assert_eq!(mail["hello"], "otpd.example");
    assert_eq!(mail["html"], Value::Null);
    assert_eq!(lines(&mail["text"]), "Код 481516 & \"more\"");
    assert_eq!(mail["faults"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn strict_parser_accepts_every_combination_of_parts() {
    let mut sink = Sink::start("starttls", "localhost").await;
    let reply_to = format!("{ACCOUNT}reply_to = \"Помощь <help@shop.example>\"\n");
    let providers = [to(&sink, ACCOUNT), to(&sink, &reply_to)];
    let long = "ж".repeat(2_000);
    let unbroken = "a".repeat(2_000);
    let texts = [
        "Code 481516",
        "Код 481516\n\n@example.com #481516",
        ".\n..\nFrom: nobody\n\n\n",
        &long,
        &unbroken,
        "",
    ];
    let subjects = [None, Some("Code"), Some("Ваш код, «Магазин»"), Some(&*long)];
    let pages = [
        None,
        Some("<p>Code</p>"),
        Some("<p>Код</p>"),
        Some(&*unbroken),
    ];
    for provider in &providers {
        for plain in texts {
            for subject in subjects {
                for html in pages {
                    let mut message = TestMessage::to("ann@example.com");
                    plain.clone_into(&mut message.text.plain);
                    message.text.subject = subject.map(str::to_owned);
                    message.text.html = html.map(str::to_owned);
                    provider.deliver(&message.outgoing()).await.expect("taken");
                    let mail = sink.event().await;
                    let case = format!("{plain:?} {subject:?} {html:?}");
                    assert_eq!(mail["faults"], Value::Array(Vec::new()), "{case}");
                    assert_eq!(mail["ascii"], true, "{case}");
                    assert_eq!(lines(&mail["text"]), plain.trim_end(), "{case}");
                    let read = mail["html"].as_str().map(str::trim_end);
                    assert_eq!(read, html, "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn connection_is_reused_for_several_mails() {
    let mut sink = Sink::start("starttls", "localhost").await;
    // Patience enough for a busy machine: a connection that is slow is not kept.
    let provider = to(&sink, &format!("{ACCOUNT}timeout = \"60s\"\n"));
    provider.check().await.expect("the account is known");
    let mut peers = Vec::new();
    for _ in 0..3 {
        send(&provider, "ann@example.com").await.expect("taken");
        peers.push(sink.event().await["peer"].clone());
    }
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
}

#[tokio::test]
async fn timed_out_attempt_does_not_leak_reply() {
    let mut sink = Sink::start("starttls", "localhost").await;
    let provider = to(&sink, ACCOUNT);
    send(&provider, "ann@example.com").await.expect("taken");
    let first = sink.event().await;
    {
        let hanging = std::pin::pin!(send(&provider, "late@example.com"));
        tokio::select! {
            _ = hanging => panic!("the server has not answered"),
            _ = sink.event() => {}
        }
    }
    sink.go_on();
    // On the connection before, this error would be about the next step: each command would have
    // got the reply to the previous one.
    let error = send(&provider, "unknown@example.com").await;
    assert_eq!(
        error.expect_err("unknown").cause,
        "SMTP reply 550 5.1.1 to RCPT TO"
    );
    send(&provider, "ann@example.com").await.expect("taken");
    let next = sink.event().await;
    assert_eq!(next["event"], "mail");
    assert_ne!(next["peer"], first["peer"]);
}

#[tokio::test]
async fn lost_reply_after_the_mail_body_leaves_unknown_outcome() {
    let sink = Sink::start("starttls", "localhost").await;
    // On a busy machine a login has a second.
    let options = GatewayOptions {
        timeout: Duration::from_secs(3),
        ..GatewayOptions::default()
    };
    let gateway = ProviderHandle::new("mail", to(&sink, ACCOUNT), options);
    for (local_part, class, status) in [
        // Before DATA the server has nothing that it could deliver.
        (
            "late",
            DeliveryErrorKind::Transient,
            "not ready for the message",
        ),
        (
            "silent",
            DeliveryErrorKind::Timeout,
            "no response within 3s",
        ),
        (
            "lost",
            DeliveryErrorKind::UnknownOutcome,
            "no response (DATA): ",
        ),
    ] {
        let message = TestMessage::to(&format!("{local_part}@example.com"));
        let error = gateway.deliver(&message.outgoing()).await;
        let error = error.expect_err(local_part);
        assert_eq!(error.class, class, "{local_part}: {error}");
        assert!(error.cause.starts_with(status), "{local_part}: {error}");
    }
}

#[tokio::test]
async fn each_smtp_reply_maps_to_its_error_kind_without_its_text() {
    let mut sink = Sink::start("starttls", "localhost").await;
    let provider = to(&sink, ACCOUNT);
    for (local_part, class, status) in [
        (
            "unknown",
            DeliveryErrorKind::BadDestination,
            "SMTP reply 550 5.1.1 to RCPT TO",
        ),
        (
            "moved",
            DeliveryErrorKind::BadDestination,
            "SMTP reply 551 5.1.6 to RCPT TO",
        ),
        (
            "odd",
            DeliveryErrorKind::BadDestination,
            "SMTP reply 553 5.1.3 to RCPT TO",
        ),
        (
            "stranger",
            DeliveryErrorKind::Permanent,
            "SMTP reply 550 5.7.1 to RCPT TO",
        ),
        (
            "plain",
            DeliveryErrorKind::Permanent,
            "SMTP reply 550 to RCPT TO",
        ),
        (
            "sender",
            DeliveryErrorKind::Permanent,
            "SMTP reply 550 5.1.8 to RCPT TO",
        ),
        (
            "later",
            DeliveryErrorKind::Transient,
            "SMTP reply 451 4.3.0 to RCPT TO",
        ),
        (
            "bye",
            DeliveryErrorKind::Transient,
            "SMTP reply 421 4.3.2 to RCPT TO",
        ),
        (
            "spam",
            DeliveryErrorKind::Permanent,
            "SMTP reply 554 5.7.1 to DATA",
        ),
        (
            "full",
            DeliveryErrorKind::Transient,
            "SMTP reply 452 4.2.2 to DATA",
        ),
    ] {
        let error = send(&provider, &format!("{local_part}@example.com")).await;
        let error = error.expect_err(local_part);
        assert_eq!((error.class, error.cause.as_str()), (class, status));
        send(&provider, "ann@example.com")
            .await
            .expect("the next one is taken");
        assert_eq!(sink.event().await["event"], "mail");
    }
    let error = send(&provider, "+79991234567").await.expect_err("a number");
    assert_eq!(error.class, DeliveryErrorKind::Permanent);
}

#[tokio::test]
async fn smtp_auth_failure_opens_breaker() {
    let sink = Sink::start("starttls", "localhost").await;
    let wrong = "user = \"otpd\"\npassword = \"hush-hush-4711\"\n";
    let wrong = to(&sink, wrong);
    let error = send(&wrong, "ann@example.com").await.expect_err("wrong");
    assert_eq!(error.class, DeliveryErrorKind::NoBalance);
    assert_eq!(error.cause, "SMTP reply 535 5.7.8 to AUTH");
    assert_eq!(wrong.check().await, Err(error.cause));
    assert!(!format!("{wrong:?}").contains("hush"));
    let error = send(&to(&sink, ""), "ann@example.com")
        .await
        .expect_err("none");
    assert_eq!(error.class, DeliveryErrorKind::NoBalance);
    assert_eq!(error.cause, "SMTP reply 530 5.7.0 to MAIL FROM");
}

#[tokio::test]
async fn invalid_smtp_certificate_ends_the_session_before_auth() {
    let sink = Sink::start("starttls", "other.example").await;
    for tls in ["starttls", "implicit"] {
        let sink = match tls {
            "implicit" => &Sink::start("implicit", "other.example").await,
            _ => &sink,
        };
        let provider = to(sink, &format!("{ACCOUNT}tls = \"{tls}\"\n"));
        let error = send(&provider, "ann@example.com")
            .await
            .expect_err("a stranger");
        assert_eq!(error.class, DeliveryErrorKind::Transient);
        assert!(
            error.cause.contains("the certificate was refused"),
            "{error}"
        );
    }
    let sink = Sink::start("plain", "localhost").await;
    let error = send(&to(&sink, ACCOUNT), "ann@example.com").await;
    let error = error.expect_err("no STARTTLS");
    assert_eq!(error.cause, "no connection: the server offers no STARTTLS");
    assert_eq!(error.class, DeliveryErrorKind::Transient);
}

#[tokio::test]
async fn plaintext_smtp_is_loopback_only() {
    let mut sink = Sink::start("plain", "localhost").await;
    let provider = to(&sink, &format!("{ACCOUNT}tls = \"none\"\n"));
    send(&provider, "ann@example.com").await.expect("taken");
    assert_eq!(sink.event().await["tls"], false);
}

#[tokio::test]
async fn connection_refused_is_reported() {
    let nobody = Nobody::new();
    let provider = provider(table(&format!(
        "kind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\nfrom = \"a@shop.example\"\n",
        nobody.port(),
    )));
    let error = send(&provider, "ann@example.com")
        .await
        .expect_err("nobody");
    assert_eq!(error.class, DeliveryErrorKind::Transient);
    assert_eq!(
        error.cause,
        "no connection (connecting): connection refused"
    );
}
