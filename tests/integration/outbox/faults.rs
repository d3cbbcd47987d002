//! Gateways that fail in every way: no reply waits for them, another provider takes over,
//! and the status reports it.

use otpd::grpc::v1::DeliveryState::{Failed, Queued, Sending, Sent};

use super::{
    comparable, deliveries, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, TAKES},
    recipient, route, send, serve, verifies,
};
use crate::{
    providers::gateway::{Gateway as TlsGateway, Nobody},
    support::{Kind, milliseconds},
};

#[tokio::test(flavor = "multi_thread")]
async fn response_does_not_wait_for_the_provider() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        gateway.will("slow", Behaviour::Holds);
        let slow = gateway.provider("slow", "timeout = \"60s\"");
        let routed = format!("{slow}{}", route("default", &["slow"]));
        let (_database, replica) = serve(kind, &routed).await;
        // The reply is here, and the gateway still holds the request open.
        let sent = send(&replica, 1, "").await;
        let asked = gateway.asked_for(&sent.challenge_id).await;
        assert_eq!(gateway.state().open("slow"), 1);
        assert_eq!(asked.to, recipient(1));
        assert!(asked.text.contains(&asked.code), "{asked:?}");
        let waiting = deliveries(&replica, 1, "").await;
        assert_eq!(comparable(&waiting), [("slow", Sending, 0, "")]);
        // The code verifies, whatever the gateway replied.
        assert!(verifies(&replica, 1, "", &asked.code).await);
        assert_eq!(gateway.state().open("slow"), 1);

        gateway.will("slow", TAKES);
        let done = deliveries_in(&replica, (1, ""), &[Sent]).await;
        assert_eq!(comparable(&done), [("slow", Sent, 1, "")]);
        assert_eq!(gateway.state().asked.len(), 1);
    }
}

/// Returns a provider whose configured server cannot be reached.
fn unreachable(name: &str, url: &str) -> String {
    format!(
        "\n[providers.{name}]\nkind = \"http\"\nurl = \"{url}\"\nform = {{ text = \"{{text}}\" }}\nallow_private_addresses = true\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_on_every_kind_of_provider_error() {
    let gateway = Gateway::start().await;
    let short = "timeout = \"500ms\"";
    let ways = [
        ("hangs", Behaviour::Holds, "timeout"),
        ("breaks", Behaviour::Answers(500, "oops"), "transient"),
        (
            "errs",
            Behaviour::Answers(200, r#"{"ok": false}"#),
            "permanent",
        ),
        (
            "babbles",
            Behaviour::Answers(200, "<html>"),
            "unknown_outcome",
        ),
        ("closes", Behaviour::Closes, "unknown_outcome"),
    ];
    let mut configuration = gateway.provider("second", "");
    for (name, behaviour, _) in ways {
        gateway.will(name, behaviour);
        configuration += &gateway.provider(name, short);
    }
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let stranger = TlsGateway::with_tls("localhost", &directory.path().join("stranger.pem")).await;
    let url = format!("https://127.0.0.1:{}/", stranger.port());
    configuration += &unreachable("stranger", &url);
    let nobody = Nobody::new();
    configuration += &unreachable("nobody", &nobody.url());
    let classes = ways.map(|(name, _, class)| (name, class));
    let refused = [("stranger", "transient"), ("nobody", "transient")];
    let all: Vec<(&str, &str)> = classes.into_iter().chain(refused).collect();
    for (name, _) in &all {
        configuration += &route(name, &[name, "second"]);
    }
    let (database, replica) = serve(Kind::Postgres, &configuration).await;

    let before = database.now().await;
    for (name, class) in all {
        let sent = send(&replica, 1, name).await;
        let done = deliveries_in(&replica, (1, name), &[Sent]).await;
        let expected = [(name, Failed, 1, class), ("second", Sent, 2, "")];
        assert_eq!(comparable(&done), expected);
        // Each attempt has its times, one after the other.
        let times = done.iter().flat_map(|delivery| {
            let (began, ended) = (delivery.created_at, delivery.updated_at);
            [milliseconds(began), milliseconds(ended)]
        });
        let times: Vec<i64> = times.collect();
        assert!(times.is_sorted() && before <= times[0], "{times:?}");
        if name == "hangs" {
            assert!(times[1] - times[0] >= 500, "{times:?}");
        }
        let asked = gateway.asked_for(&sent.challenge_id).await;
        assert_eq!(asked.provider, "second");
        assert!(verifies(&replica, 1, name, &asked.code).await);
    }
    let log = replica.log();
    assert!(log.contains("[OTP] Delivery attempt failed"), "{log}");
    assert!(!log.contains("Message failed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn breaker_opens_and_closes() {
    let gateway = Gateway::start().await;
    let mut configuration = gateway.provider("second", "");
    for (name, pause) in [("shut", "10m"), ("back", "100ms")] {
        gateway.will(name, DOWN);
        let breaker = format!("breaker_failures = 3\nbreaker_open_for = \"{pause}\"");
        configuration += &gateway.provider(name, &breaker);
        configuration += &route(name, &[name, "second"]);
    }
    let (_database, replica) = serve(Kind::Postgres, &configuration).await;

    let one_by_one = async |purpose, numbers: std::ops::Range<usize>| {
        for number in numbers {
            send(&replica, number, purpose).await;
            deliveries_in(&replica, (number, purpose), &[Sent]).await;
        }
    };
    one_by_one("shut", 0..3).await;
    assert_eq!(gateway.state().count("shut"), 3);
    replica
        .wait_for_line("[OTP] Circuit breaker opened provider=\"shut\"")
        .await;
    // The provider gets no further requests: they go to the second one only.
    one_by_one("shut", 3..10).await;
    assert_eq!(gateway.state().count("shut"), 3);
    assert_eq!(gateway.state().count("second"), 10);
    let last = deliveries(&replica, 9, "shut").await;
    assert_eq!(comparable(&last), [("second", Sent, 1, "")]);

    one_by_one("back", 0..3).await;
    replica
        .wait_for_line("[OTP] Circuit breaker opened provider=\"back\"")
        .await;
    gateway.will("back", TAKES);
    let mut number = 3;
    while !replica
        .log()
        .contains("[OTP] Circuit breaker closed provider=\"back\"")
    {
        one_by_one("back", number..number + 1).await;
        number += 1;
    }
    let asked = gateway.state().count("back");
    one_by_one("back", number..number + 5).await;
    assert_eq!(gateway.state().count("back"), asked + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn message_waits_while_its_only_provider_is_down() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        gateway.will("only", DOWN);
        let only = gateway.provider("only", "");
        let (_database, replica) =
            serve(kind, &format!("{only}{}", route("default", &["only"]))).await;
        let sent = send(&replica, 1, "").await;
        let waiting = deliveries_in(&replica, (1, ""), &[Queued]).await;
        assert_eq!(
            comparable(&waiting),
            [("only", Failed, 1, "transient"), ("only", Queued, 1, "")]
        );
        gateway.wait_for(|state| state.count("only") == 2).await;
        gateway.will("only", TAKES);
        let done = deliveries_in(&replica, (1, ""), &[Sent]).await;
        assert!(done.len() >= 2, "{done:?}");
        let failed = &done[..done.len() - 1];
        assert!(
            failed.iter().all(|attempt| attempt.error == "transient"),
            "{done:?}"
        );
        // The id is the same each time, so that a gateway can detect a repetition.
        let state = gateway.state();
        let same = |asked: &super::gateway::Asked| {
            asked.challenge_id == sent.challenge_id && asked.message_id == state.asked[0].message_id
        };
        assert!(state.asked.iter().all(same), "{:?}", state.asked);
    }
}
