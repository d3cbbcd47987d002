//! Attempts of unknown outcome: the message may have arrived, so the number of copies is
//! limited.

use std::time::Duration;

use otpd::grpc::v1::DeliveryState::{Failed, Queued, Sent};

use super::{
    OFTEN, comparable, deliveries, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, State, TAKES},
    route, send, serve,
};
use crate::support::{Database, Kind, Replica};

/// A message whose attempts all have an unknown outcome fails when the bound is reached, long
/// before its code expires.
const GIVEN_UP: &str = "[OTP] Message given up";
/// The first five attempts follow each other within 16 s.
const LONGER_THAN_A_BACKOFF: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn message_with_unknown_outcome_is_attempted_at_most_four_times() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        let mut configuration = String::new();
        for (name, behaviour) in [
            ("hangs", Behaviour::Holds),
            ("babbles", Behaviour::Answers(200, "<html>")),
            ("closes", Behaviour::Closes),
            ("late", Behaviour::Answers(504, "")),
        ] {
            gateway.will(name, behaviour);
            let keys = "timeout = \"200ms\"\nbreaker_failures = 1000";
            configuration += &gateway.provider(name, keys);
        }
        configuration += &route("one", &["hangs"]);
        configuration += &route("two", &["babbles", "closes"]);
        configuration += &route("three", &["late", "babbles", "closes"]);
        let (database, replica) = serve(kind, &configuration).await;
        // The length of the first round, after which there is a backoff.
        for (number, (purpose, class, round, expected)) in [
            ("one", "timeout", 1, &["hangs", "hangs"][..]),
            (
                "two",
                "unknown_outcome",
                2,
                &["babbles", "closes", "babbles", "closes"],
            ),
            (
                "three",
                "unknown_outcome",
                3,
                &["late", "babbles", "closes", "late"],
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let sent = send(&replica, number, purpose).await;
            let id = &sent.challenge_id;
            gateway
                .wait_for(|state| state.providers_of(id).len() >= round)
                .await;
            deliveries_in(&replica, (number, purpose), &[Queued]).await;
            let elapsed = LONGER_THAN_A_BACKOFF * u32::try_from(number + 1).expect("few");
            database.advance_clock(elapsed).await;
            replica.wait_for_lines(GIVEN_UP, number + 1).await;
            let providers = gateway.state().providers_of(&sent.challenge_id);
            assert_eq!(providers, expected, "{kind:?}");
            let done = deliveries_in(&replica, (number, purpose), &[Failed]).await;
            let attempts: Vec<_> = (1..)
                .zip(expected)
                .map(|(attempt, provider)| (*provider, Failed, attempt, class))
                .collect();
            assert_eq!(comparable(&done), attempts);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_fails_over_to_another_provider_first() {
    let gateway = Gateway::start().await;
    gateway.will("hangs", Behaviour::Holds);
    gateway.will("down", DOWN);
    let configuration = gateway.provider("hangs", "timeout = \"200ms\"\nbreaker_failures = 1000")
        + &gateway.provider("down", "breaker_failures = 1000")
        + &route("default", &["hangs", "down"]);
    let (database, replica) = serve(Kind::Postgres, &configuration).await;
    let sent = send(&replica, 1, "").await;
    let asked = |count| {
        let id = &sent.challenge_id;
        move |state: &State| state.providers_of(id).len() >= count
    };
    gateway.wait_for(asked(2)).await;
    deliveries_in(&replica, (1, ""), &[Queued]).await;
    database.advance_clock(LONGER_THAN_A_BACKOFF).await;
    gateway.wait_for(asked(4)).await;
    let providers = gateway.state().providers_of(&sent.challenge_id);
    // In the second round the provider that is only down comes first.
    assert_eq!(providers[..4], ["hangs", "down", "down", "hangs"]);
    gateway.will("down", TAKES);
    deliveries_in(&replica, (1, ""), &[Queued]).await;
    database.advance_clock(2 * LONGER_THAN_A_BACKOFF).await;
    deliveries_in(&replica, (1, ""), &[Sent]).await;
    assert_eq!(gateway.state().count("hangs"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_with_idempotency_key_is_retried_until_it_responds() {
    let gateway = Gateway::start().await;
    gateway.will("keyed", Behaviour::Closes);
    let key = "headers = { Idempotency-Key = \"{idempotency_key}\" }\nbreaker_failures = 1000";
    let keyed = gateway.provider("keyed", key);
    let (database, replica) = serve(
        Kind::Postgres,
        &format!("{keyed}{}", route("default", &["keyed"])),
    )
    .await;
    send(&replica, 1, "").await;
    for attempts in 1..=5 {
        gateway
            .wait_for(|state| state.count("keyed") >= attempts)
            .await;
        deliveries_in(&replica, (1, ""), &[Queued]).await;
        if attempts == 5 {
            gateway.will("keyed", TAKES);
        }
        // The next attempt is due then.
        let elapsed = LONGER_THAN_A_BACKOFF * u32::try_from(attempts).expect("few");
        database.advance_clock(elapsed).await;
    }
    let done = deliveries_in(&replica, (1, ""), &[Sent]).await;
    assert!(done.len() > 4, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_limit_survives_replica_crashes() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        gateway.will("only", Behaviour::Holds);
        let database = Database::new(kind).await;
        let routed = gateway.provider("only", "timeout = \"60s\"") + &route("default", &["only"]);
        let file = database.configure(&routed);
        let environment = [("OTPD_CONFIG", file.as_str()), OFTEN];
        let mut replica = Replica::start_with(&database, &environment).await;
        send(&replica, 1, "").await;
        // Two replicas die while the gateway has not answered yet.
        for (attempt, past_the_lease) in [(1, 70), (2, 140)] {
            gateway
                .wait_for(|state| state.count("only") == attempt)
                .await;
            replica.signal("KILL");
            replica.end().await;
            let past_the_lease = Duration::from_secs(past_the_lease);
            database.advance_clock(past_the_lease).await;
            replica = Replica::start_with(&database, &environment).await;
        }
        replica.wait_for_line(GIVEN_UP).await;
        assert_eq!(gateway.state().count("only"), 2, "{kind:?}");
        let done = deliveries(&replica, 1, "").await;
        let expected = [
            ("only", Failed, 1, "unknown_outcome"),
            ("only", Failed, 2, "unknown_outcome"),
        ];
        assert_eq!(comparable(&done), expected);
        let interrupted = "[OTP] Delivery attempt interrupted";
        replica.wait_for_line(interrupted).await;
    }
}
