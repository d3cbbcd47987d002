//! Routes of messages, final errors, and dropped messages.

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest, Delivery,
    DeliveryState::{self, Dropped, Failed, Sent},
    SendOtpRequest, SendOtpResponse,
};
use tonic::Code;

use super::{
    comparable, deliveries, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, TAKES},
    route, send, send_request, serve, verifies,
};
use crate::support::{Database, Kind, Refusal, Replica, token_digest};

const FINAL: [DeliveryState; 3] = [Sent, Failed, Dropped];

#[tokio::test(flavor = "multi_thread")]
async fn only_transient_errors_are_retried() {
    let gateway = Gateway::start().await;
    gateway.will("refuses", Behaviour::Answers(400, r#"{"ok": false}"#));
    gateway.will(
        "knows-nobody",
        Behaviour::Answers(200, r#"{"error": "nobody"}"#),
    );
    gateway.will("down", DOWN);
    let mut configuration = String::new();
    for name in ["refuses", "knows-nobody", "down", "takes"] {
        configuration += &gateway.provider(name, "breaker_failures = 1000");
    }
    configuration += &route("alone", &["refuses"]);
    configuration += &route("passed-on", &["refuses", "takes"]);
    configuration += &route("known-elsewhere", &["down", "knows-nobody", "takes"]);
    configuration += &route("unknown", &["knows-nobody", "refuses"]);
    configuration += &route("in-turn", &["refuses", "down"]);
    let (database, replica) = serve(Kind::Postgres, &configuration).await;

    // A provider that will never take it is not asked again, and others are.
    send(&replica, 1, "alone").await;
    let done = deliveries_in(&replica, (1, "alone"), &FINAL).await;
    assert_eq!(comparable(&done), [("refuses", Failed, 1, "permanent")]);
    replica
        .wait_for_line("[OTP] Message failed permanently")
        .await;
    send(&replica, 1, "passed-on").await;
    let done = deliveries_in(&replica, (1, "passed-on"), &[Sent]).await;
    let expected = [("refuses", Failed, 1, "permanent"), ("takes", Sent, 2, "")];
    assert_eq!(comparable(&done), expected);

    // One provider that knows no such destination does not speak for the others.
    send(&replica, 1, "known-elsewhere").await;
    let done = deliveries_in(&replica, (1, "known-elsewhere"), &FINAL).await;
    let expected = [
        ("down", Failed, 1, "transient"),
        ("knows-nobody", Failed, 2, "bad_destination"),
        ("takes", Sent, 3, ""),
    ];
    assert_eq!(comparable(&done), expected);
    send(&replica, 1, "unknown").await;
    replica
        .wait_for_lines("[OTP] Message failed permanently", 2)
        .await;
    let done = deliveries_in(&replica, (1, "unknown"), &FINAL).await;
    let expected = [
        ("knows-nobody", Failed, 1, "bad_destination"),
        ("refuses", Failed, 2, "permanent"),
    ];
    assert_eq!(comparable(&done), expected);

    // In the second round only the one that may take it is asked.
    let sent = send(&replica, 1, "in-turn").await;
    let seen = |state: &super::gateway::State| state.providers_of(&sent.challenge_id).len() == 3;
    gateway.wait_for(seen).await;
    gateway.will("down", TAKES);
    deliveries_in(&replica, (1, "in-turn"), &[Sent]).await;
    let providers = gateway.state().providers_of(&sent.challenge_id);
    assert_eq!(providers[..2], ["refuses", "down"]);
    assert!(
        providers[2..].iter().all(|provider| provider == "down"),
        "{providers:?}"
    );

    let pending = "SELECT count(*) FROM otp_message WHERE due_at IS NOT NULL OR sealed IS NOT NULL";
    database.wait_for_number(pending, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_takes_the_first_matching_route() {
    let gateway = Gateway::start().await;
    let [crm, shop] = ["crm", "shop"].map(token_digest);
    let mut configuration = format!(
        "[callers.crm]\ntoken_sha256 = [\"{crm}\"]\n[callers.shop]\ntoken_sha256 = [\"{shop}\"]\n"
    );
    for (provider, condition) in [
        ("voices", "channels = [\"voice\"]"),
        ("payments", "purposes = [\"payment\"]"),
        ("of-shop", "callers = [\"shop\"]"),
        ("tatar", "locales = [\"tt\"]"),
        ("kazakh", "destinations = [\"KZ\"]"),
        ("beeline", "destinations = [\"+7903\"]"),
        (
            "letters",
            "destinations = [\"email\"]\nchannels = [\"email\"]",
        ),
        ("never", "purposes = [\"login\"]\nchannels = [\"telegram\"]"),
        ("rest", "channels = [\"sms\"]"),
    ] {
        configuration += &gateway.provider(provider, "");
        let route = format!("\n[[routes]]\n{condition}\nproviders = [\"{provider}\"]\n");
        configuration += &route;
    }
    let (database, replica) = serve(Kind::Postgres, &configuration).await;
    let request = |recipient: &str, purpose: &str, channel: i32, locale: &str| SendOtpRequest {
        recipient: recipient.to_owned(),
        purpose: purpose.to_owned(),
        channel,
        locale: locale.to_owned(),
        ..Default::default()
    };
    for (provider, caller, request) in [
        ("rest", "crm", request("+79161230001", "", 0, "")),
        ("rest", "crm", request("+79161230002", "login", 1, "ru")),
        ("voices", "crm", request("+79161230003", "", 3, "")),
        (
            "voices",
            "shop",
            request("+79161230004", "payment", 3, "tt"),
        ),
        (
            "payments",
            "shop",
            request("+79161230005", "payment", 0, ""),
        ),
        ("of-shop", "shop", request("+79161230006", "", 0, "tt")),
        ("tatar", "crm", request("+79161230007", "", 0, "tt-RU")),
        ("tatar", "crm", request("+77011230007", "", 0, "TT")),
        ("kazakh", "crm", request("+77011230008", "", 0, "ttt")),
        ("beeline", "crm", request("+79031230009", "", 0, "")),
        ("letters", "crm", request("i@example.com", "", 0, "")),
    ] {
        let sent = replica.client_of(caller).send_otp(request.clone()).await;
        let sent = sent.expect("there is a route").into_inner();
        let asked = gateway.asked_for(&sent.challenge_id).await;
        assert_eq!(asked.provider, provider, "{request:?}");
        assert_eq!(asked.to, request.recipient);
    }

    // There is no route for these; nothing of them is stored, and no limit is charged.
    let rows = "SELECT (SELECT count(*) FROM otp_record) + (SELECT count(*) FROM otp_message)";
    let before = database.number(rows).await;
    for request in [
        request("+79161230010", "", 4, ""),
        request("+79161230010", "", 5, ""),
    ] {
        let refused = replica.client_of("crm").send_otp(request).await;
        let refusal = Refusal::of(&refused.expect_err("no provider is for it"));
        assert_eq!(refusal.code, Code::FailedPrecondition);
        assert_eq!(refusal.reason, "NO_ROUTE");
    }
    assert_eq!(database.number(rows).await, before);
    assert_eq!(gateway.state().count("never"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn route_selects_the_first_provider_of_a_resend() {
    let gateway = Gateway::start().await;
    let mut configuration = String::from("[policy]\nresend_after = \"0s\"\n");
    for provider in ["first", "second"] {
        configuration += &gateway.provider(provider, "");
    }
    configuration += &route("same", &["first", "second"]);
    configuration += &route("next", &["first", "second"]);
    configuration += "resend = \"next\"\n";
    let (database, replica) = serve(Kind::Postgres, &configuration).await;
    for (purpose, expected) in [
        ("same", ["first", "first", "first"]),
        ("next", ["first", "second", "first"]),
    ] {
        let mut challenge_id = String::new();
        for count in 1..=3 {
            let sent = send(&replica, 1, purpose).await;
            assert_eq!(sent.resent, count > 1);
            challenge_id.clone_from(&sent.challenge_id);
            let seen =
                |state: &super::gateway::State| state.providers_of(&challenge_id).len() == count;
            gateway.wait_for(seen).await;
        }
        assert_eq!(gateway.state().providers_of(&challenge_id), expected);
        // One code, in messages of their own.
        let state = gateway.state();
        let of_it = state
            .asked
            .iter()
            .filter(|asked| asked.challenge_id == challenge_id);
        let mut codes: Vec<&str> = of_it.clone().map(|asked| asked.code.as_str()).collect();
        codes.dedup();
        assert_eq!(codes.len(), 1);
        let ids: std::collections::BTreeSet<&str> =
            of_it.map(|asked| asked.message_id.as_str()).collect();
        assert_eq!(ids.len(), 3);
    }
    let unsettled = "SELECT count(*) FROM otp_message WHERE state <> 'sent'";
    database.wait_for_number(unsettled, 0).await;
    let all = deliveries(&replica, 1, "next").await;
    let providers: Vec<&str> = all
        .iter()
        .map(|delivery| delivery.provider.as_str())
        .collect();
    assert_eq!(providers, ["first", "second", "first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_has_only_declared_variables() {
    let gateway = Gateway::start().await;
    let configuration = format!(
        r#"
[texts.order.en]
plain = "Order {{{{ order }}}}: {{{{ code }}}}"
[texts.order.variables.order]
required = true
max_length = 4
{}{}"#,
        gateway.provider("sms", ""),
        route("order", &["sms"]) + &route("plain", &["sms"]),
    );
    let (database, replica) = serve(Kind::Postgres, &configuration).await;
    let request = |purpose: &str, variables: &[(&str, &str)]| SendOtpRequest {
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..send_request(1, purpose)
    };
    for (purpose, variables) in [
        ("order", &[][..]),
        ("order", &[("order", "12345")]),
        ("order", &[("order", "12"), ("more", "x")]),
        ("plain", &[("order", "12")]),
    ] {
        let refused = replica.client().send_otp(request(purpose, variables)).await;
        let refusal = Refusal::of(&refused.expect_err("they are not as declared"));
        assert_eq!(refusal.code, Code::InvalidArgument);
        assert_eq!(refusal.reason, "REQUEST_INVALID");
        assert_eq!(refusal.field, "variables", "{variables:?}");
        assert!(!refusal.remedy.contains("12"), "{}", refusal.remedy);
    }
    assert_eq!(database.number("SELECT count(*) FROM otp_record").await, 0);
    let right = request("order", &[("order", "12-B")]);
    let sent = replica
        .client()
        .send_otp(right)
        .await
        .expect("they are as declared");
    let asked = gateway.asked_for(&sent.into_inner().challenge_id).await;
    assert_eq!(asked.text, format!("Order 12-B: {}", asked.code));
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_max_concurrency_is_never_exceeded() {
    const MESSAGES: usize = 60;
    let gateway = Gateway::start().await;
    gateway.will("narrow", Behaviour::Holds);
    let narrow = gateway.provider("narrow", "max_concurrency = 3\ntimeout = \"60s\"");
    let wide = gateway.provider("wide", "");
    let routes = route("narrow", &["narrow"]) + &route("wide", &["wide"]);
    let (_database, replica) = serve(Kind::Postgres, &format!("{narrow}{wide}{routes}")).await;
    for number in 0..MESSAGES {
        send(&replica, number, "narrow").await;
    }
    gateway.wait_for(|state| state.open("narrow") == 3).await;
    // A message that waits for one provider does not delay another provider.
    let sent = send(&replica, 0, "wide").await;
    gateway.asked_for(&sent.challenge_id).await;
    assert_eq!(gateway.state().count("narrow"), 3);
    gateway.will("narrow", TAKES);
    gateway
        .wait_for(|state| state.taken.len() == MESSAGES + 1)
        .await;
    assert_eq!(gateway.state().most_open["narrow"], 3);
    assert_eq!(gateway.state().count("narrow"), MESSAGES);
}

/// Ends the code of a message, in one of the ways.
async fn end(
    (database, replica): (&Database, &Replica),
    (number, way): (usize, &str),
    sent: &SendOtpResponse,
    code: &str,
) {
    match way {
        "verified" => assert!(verifies(replica, number, "", code).await),
        "cancelled" => {
            let request = CancelOtpRequest {
                challenge_id: sent.challenge_id.clone(),
                ..Default::default()
            };
            let cancelled = replica.client().cancel_otp(request).await;
            assert!(cancelled.expect("there is a reply").into_inner().cancelled);
        }
        _ => database.advance_clock(Duration::from_mins(6)).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn message_with_dead_code_is_dropped() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        let only = gateway.provider("only", "timeout = \"60s\"\nbreaker_failures = 1000");
        let routed = format!("{only}{}", route("default", &["only"]));
        let (database, replica) = serve(kind, &routed).await;
        for (number, way) in ["verified", "cancelled", "expired"].into_iter().enumerate() {
            gateway.will("only", Behaviour::Holds);
            let sent = send(&replica, number, "").await;
            let code = gateway.asked_for(&sent.challenge_id).await.code;
            end((&database, &replica), (number, way), &sent, &code).await;
            // The attempt that runs fails, and the provider recovers.
            gateway.will("only", DOWN);
            gateway.wait_for(|state| state.open("only") == 0).await;
            gateway.will("only", TAKES);
            let done = deliveries_in(&replica, (number, ""), &FINAL).await;
            let expected = [("only", Failed, 1, "transient"), ("only", Dropped, 1, "")];
            match way {
                // Its lease ended with its code, so that the replica that finds it drops it.
                "expired" => assert_eq!(done.last().map(Delivery::state), Some(Dropped)),
                _ => assert_eq!(comparable(&done), expected, "{way}"),
            }
            assert_eq!(gateway.state().asked.len(), number + 1, "{way}");
            let kept = "SELECT count(*) FROM otp_message WHERE sealed IS NOT NULL";
            assert_eq!(database.number(kept).await, 0);
        }
        replica.wait_for_lines("[OTP] Message dropped", 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_rechecks_code_liveness_after_two_seconds() {
    let gateway = Gateway::start().await;
    gateway.will("hangs", Behaviour::Holds);
    let hangs = gateway.provider("hangs", "timeout = \"2100ms\"");
    let next = gateway.provider("next", "");
    let routes = route("default", &["hangs", "next"]);
    let (_database, replica) = serve(Kind::Postgres, &format!("{hangs}{next}{routes}")).await;
    let [dead, alive] = [send(&replica, 0, "").await, send(&replica, 1, "").await];
    let code = gateway.asked_for(&dead.challenge_id).await.code;
    assert!(verifies(&replica, 0, "", &code).await);
    let done = deliveries_in(&replica, (0, ""), &FINAL).await;
    let expected = [("hangs", Failed, 1, "timeout"), ("hangs", Dropped, 1, "")];
    assert_eq!(comparable(&done), expected);
    // A message with a live code is sent.
    deliveries_in(&replica, (1, ""), &[Sent]).await;
    let providers = gateway.state().providers_of(&alive.challenge_id);
    assert_eq!(providers, ["hangs", "next"]);
    assert_eq!(gateway.state().count("next"), 1);
}
