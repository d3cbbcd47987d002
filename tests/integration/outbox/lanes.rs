//! Callers that share a gateway take turns, and queued messages keep their order.

use std::{collections::HashSet, time::Duration};

use otpd::grpc::v1::DeliveryState::Queued;

use super::{
    EVERY_LINE, OFTEN, backlog, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, TAKES},
    route, send, send_request, serve,
};
use crate::support::{Database, Kind, Replica, token_digest};

/// Returns a configuration of two callers whose messages go to one provider.
fn two_callers(provider: &str) -> String {
    let [many, few] = ["many", "few"].map(token_digest);
    format!(
        "[callers.many]\ntoken_sha256 = [\"{many}\"]\n[callers.few]\ntoken_sha256 = [\"{few}\"]\n{provider}\n[[routes]]\nproviders = [\"narrow\"]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_of_one_caller_does_not_delay_another() {
    // More than a replica has in hand.
    const MANY: usize = 1_200;
    // Number of messages of one caller that a replica leases at any time: 16 new ones, and 4
    // reclaimed ones.
    const FEW: usize = 20;
    const CONCURRENCY: usize = 2;
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        gateway.will("narrow", Behaviour::Holds);
        let narrow = gateway.provider("narrow", "max_concurrency = 2\ntimeout = \"60s\"");
        let (database, replica) = serve(kind, &two_callers(&narrow)).await;
        backlog::fill(&replica, "many", MANY).await;
        for number in 0..FEW {
            let request = send_request(MANY + number, "");
            let sent = replica.client_of("few").send_otp(request).await;
            sent.expect("it is sent");
        }
        // All of the few are in hand, and as much of the backlog as there is room for.
        let in_hand = "SELECT count(*) FROM otp_message WHERE state = 'sending'";
        database
            .wait_for_number(in_hand, 1_024 + 16 + 16 + 64 + 4 + 4)
            .await;
        gateway.will("narrow", TAKES);
        gateway
            .wait_for(|state| state.taken.len() == MANY + FEW)
            .await;
        let state = gateway.state();
        let is_of_few = |to: &str| {
            let number = to
                .strip_prefix("+7999")
                .and_then(|number| number.parse().ok());
            number.is_some_and(|number: usize| number >= MANY)
        };
        let asked = state.asked.iter().enumerate();
        let of_few = asked.filter(|(_, asked)| is_of_few(&asked.to));
        let places: Vec<usize> = of_few.map(|(place, _)| place).collect();
        assert_eq!(places.len(), FEW);
        for (number, place) in places.iter().enumerate() {
            // Messages at the provider, the next one, and one for each earlier message of the
            // caller. Requests that are sent at the same time arrive in any order.
            let most = CONCURRENCY + 1 + 2 * (number + 1) + 4 * CONCURRENCY;
            assert!(*place <= most, "{kind:?}: {places:?}");
        }
        assert_eq!(state.asked.len(), MANY + FEW, "none was sent twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_queued_longer_than_a_lease_keep_their_order() {
    const MESSAGES: usize = 960;
    let gateway = Gateway::start().await;
    gateway.will("narrow", Behaviour::Holds);
    gateway.will("down", DOWN);
    let configuration = String::from("[policy]\ncode_ttl = \"10m\"\n")
        + &gateway.provider("narrow", "max_concurrency = 16\ntimeout = \"60s\"")
        + &gateway.provider("down", "breaker_failures = 1000")
        + &route("mark", &["down"])
        + &route("default", &["narrow"]);
    let (database, replica) = serve(Kind::Postgres, &configuration).await;
    // Older than all others, so that it is found first whenever messages are looked for.
    send(&replica, MESSAGES, "mark").await;
    deliveries_in(&replica, (MESSAGES, "mark"), &[Queued]).await;
    backlog::fill(&replica, "anyone", MESSAGES).await;
    gateway.wait_for(|state| state.open("narrow") == 16).await;
    let order = database
        .texts("SELECT encode(message_id, 'hex') FROM otp_message ORDER BY created_at")
        .await;
    // The leases of all are over, and messages are looked for.
    database.advance_clock(Duration::from_mins(2)).await;
    gateway.will("down", TAKES);
    gateway.wait_for(|state| state.taken.len() == 1).await;
    gateway.will("narrow", TAKES);
    let unsent = "SELECT count(*) FROM otp_message WHERE state <> 'sent'";
    database.wait_for_number(unsent, 0).await;
    let state = gateway.state();
    assert_eq!(state.taken.len(), MESSAGES + 1, "none was sent twice");
    let overtaken = backlog::most_overtaken(&state, &order);
    // A message that lost its place would be overtaken by almost all others. The order of those
    // that began to wait together depends on the scheduler.
    assert!(
        overtaken <= MESSAGES / 2,
        "{overtaken} overtook an older message"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_message_stays_leased_by_its_replica() {
    // With eight a second the last one waits for ten seconds; the lease of a message lasts
    // for seven.
    const WAITING: usize = 80;
    let gateway = Gateway::start().await;
    let slow = "rate_per_second = 8\ntimeout = \"2s\"\nmax_concurrency = 1";
    let configuration = gateway.provider("slow", slow) + &route("default", &["slow"]);
    let database = Database::postgres().await;
    let file = database.configure(&configuration);
    let configured = [("OTPD_CONFIG", file.as_str()), OFTEN, EVERY_LINE];
    let [with, without] = ["first", "second"].map(|name| {
        let named = ("OTPD_PROVIDERS__SLOW__PARAMETERS__REPLICA", name);
        [&configured[..], &[named]].concat()
    });
    let first = Replica::start_with(&database, &with).await;
    let _second = Replica::start_with(&database, &without).await;
    let mut messages = 0;
    while messages < gateway.state().asked.len() + WAITING {
        send(&first, messages, "").await;
        messages += 1;
    }
    let unsent = "SELECT count(*) FROM otp_message WHERE state <> 'sent'";
    database.wait_for_number(unsent, 0).await;
    let state = gateway.state();
    // A machine that stands still may make the provider late, so that one is repeated.
    let mut seen = HashSet::new();
    let first_tries = state.asked.iter().filter(|asked| seen.insert(&asked.to));
    let asked: Vec<(&str, usize)> = first_tries
        .map(|asked| {
            let number = asked.to.strip_prefix("+7999").expect("all begin so");
            (asked.replica.as_str(), number.parse().expect("a number"))
        })
        .collect();
    let expected: Vec<(&str, usize)> = (0..messages).map(|number| ("first", number)).collect();
    assert_eq!(asked, expected);
}
