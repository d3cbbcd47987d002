//! A long queue of messages while all providers are down, and after they recover.

use std::{collections::HashSet, time::Duration};

use otpd::grpc::v1::DeliveryState::{Dropped, Failed, Queued, Sent};
use tokio::task::JoinSet;

use super::{
    OFTEN, comparable, deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, State, TAKES},
    route, send, send_request, try_deliveries,
};
use crate::support::{Database, Figures, Kind, Refusal, Replica, asked};

/// Number of queued messages in the gate; `OTPD_TEST_BACKLOG` sets another number.
const MESSAGES: usize = 1_000;
/// Number of concurrent callers.
pub const CALLERS: usize = 8;
/// Number of messages of a backlog that a replica leases at the same time: 64 reclaimed ones, and 4
/// for each caller.
const IN_HAND: usize = 64 + 4;
/// Maximum additional memory of a replica for a backlog of any length.
const MOST_MEMORY_KIB: u64 = 32 * 1_024;

/// Sends to so many recipients, in their order as far as callers at once can.
pub async fn fill(replica: &Replica, token: &str, messages: usize) {
    let mut calls = JoinSet::new();
    let client = replica.client_of(token);
    for number in 0..messages {
        if calls.len() >= CALLERS {
            calls
                .join_next()
                .await
                .expect("there are some")
                .expect("it is sent");
        }
        let mut client = client.clone();
        calls.spawn(async move {
            let sent = client.send_otp(send_request(number, "")).await;
            sent.expect("a provider that is down is nothing to the caller");
        });
    }
    calls.join_all().await;
}

/// Returns the largest number of messages that overtook one of the backlog. Messages that a
/// provider refused before have their own due time, and do not count.
pub fn most_overtaken(state: &State, order: &[String]) -> usize {
    let mut taken = Vec::new();
    let mut most = 0;
    let is_taken: HashSet<usize> = state.taken.iter().copied().collect();
    let refused = state.asked.iter().enumerate();
    let refused: HashSet<&str> = refused
        .filter(|(index, _)| !is_taken.contains(index))
        .map(|(_, asked)| asked.message_id.as_str())
        .collect();
    let ranks: std::collections::HashMap<&str, usize> = order
        .iter()
        .enumerate()
        .map(|(rank, id)| (id.as_str(), rank))
        .collect();
    for (index, asked) in state.asked.iter().enumerate() {
        let id = asked.message_id.as_str();
        let Some(&rank) = ranks
            .get(id)
            .filter(|_| is_taken.contains(&index) && !refused.contains(id))
        else {
            continue;
        };
        let place = taken.partition_point(|earlier| *earlier < rank);
        most = most.max(taken.len() - place);
        taken.insert(place, rank);
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_is_sent_oldest_first_alongside_new_messages() {
    let messages = asked("OTPD_TEST_BACKLOG").unwrap_or(MESSAGES);
    let mut figures = Figures::new("backlog", None);
    let gateway = Gateway::start().await;
    let mut configuration = String::from("[policy]\ncode_ttl = \"10m\"\n");
    for provider in ["first", "second"] {
        gateway.will(provider, DOWN);
        configuration +=
            &gateway.provider(provider, "timeout = \"60s\"\nbreaker_open_for = \"5s\"");
    }
    configuration += &route("default", &["first", "second"]);
    let database = Database::postgres().await;
    let file = database.configure(&configuration);
    let environment = [("OTPD_CONFIG", file.as_str()), OFTEN];
    let replica = Replica::start_with(&database, &environment).await;
    send(&replica, messages, "").await;
    // The memory for the first message does not belong to a backlog.
    let before = replica.memory();
    fill(&replica, "anyone", messages).await;
    let pending = "SELECT count(*) FROM otp_message WHERE state = 'queued'";
    let all = i64::try_from(messages).expect("a sensible number") + 1;
    database.wait_for_number(pending, all).await;
    let queued = replica.memory();
    let order = database
        .texts("SELECT encode(message_id, 'hex') FROM otp_message ORDER BY created_at")
        .await;

    // Some are taken, and a provider waits in the middle of the backlog.
    for provider in ["first", "second"] {
        gateway.will(provider, Behaviour::Takes(messages / 10));
    }
    gateway
        .wait_for(|state| state.taken.len() >= messages / 10)
        .await;
    gateway
        .wait_for(|state| state.open("first") + state.open("second") >= 16)
        .await;
    // A new message is leased at once, and waits only for those before it on this replica.
    let mark = gateway.state().asked.len();
    let new = send(&replica, messages + 1, "").await;
    for provider in ["first", "second"] {
        gateway.will(provider, TAKES);
    }
    gateway.asked_for(&new.challenge_id).await;
    let place = gateway
        .state()
        .asked
        .iter()
        .position(|asked| asked.challenge_id == new.challenge_id);
    let waited_for = place.expect("it was just asked for") - mark;
    assert!(
        waited_for <= IN_HAND + 32,
        "{waited_for} came before a new message"
    );

    let unsent = "SELECT count(*) FROM otp_message WHERE state <> 'sent'";
    database.wait_for_number(unsent, 0).await;
    let after = replica.memory();
    let state = gateway.state();
    let taken: HashSet<&str> = state
        .taken
        .iter()
        .map(|index| state.asked[*index].message_id.as_str())
        .collect();
    assert_eq!(taken.len(), messages + 2, "all of them were sent");
    assert_eq!(state.taken.len(), messages + 2, "and none of them twice");
    let overtaken = most_overtaken(&state, &order);
    // In any order, almost all would overtake one of the oldest. A task that the scheduler holds up
    // is overtaken by more than are leased at the same time.
    assert!(
        overtaken <= messages / 4,
        "{overtaken} overtook an older message"
    );
    for later in [queued, after] {
        assert!(
            later.saturating_sub(before) < MOST_MEMORY_KIB,
            "{before} KiB became {later} KiB"
        );
    }
    for (what, number) in [
        ("messages queued while no provider took any", messages),
        ("requests to the providers", state.asked.len()),
        ("messages that overtook an older one, at most", overtaken),
        ("messages before one that came last", waited_for),
    ] {
        figures.count(what, number);
    }
    for (what, kib) in [
        ("KiB of memory before", before),
        ("KiB of memory with the backlog", queued),
        ("KiB of memory after it", after),
    ] {
        figures.count(what, kib);
    }
    figures.write();
}

/// All messages but the newest one.
const ALL_BUT_ONE: &str = "created_at < (SELECT max(created_at) FROM otp_message)";

#[tokio::test(flavor = "multi_thread")]
async fn poison_message_does_not_block_reclaim() {
    // More than are taken over at once.
    const MESSAGES: usize = 20;
    // Their leases cannot be written; their records cannot be read; they cannot be read.
    let jams = [
        (
            Kind::Sqlite,
            format!(
                "CREATE TRIGGER jam BEFORE UPDATE ON otp_message WHEN OLD.{ALL_BUT_ONE}
                 BEGIN INSERT INTO otp_index_key (only_row, fingerprint) VALUES (2, x''); END"
            ),
            "CHECK constraint failed",
        ),
        (
            Kind::Sqlite,
            format!("UPDATE otp_record SET memory = x'ff' WHERE {ALL_BUT_ONE}"),
            "otp_record.memory",
        ),
        (
            Kind::Postgres,
            format!(r"UPDATE otp_record SET memory = '\xff' WHERE {ALL_BUT_ONE}"),
            "otp_record.memory",
        ),
        (
            Kind::Sqlite,
            format!("UPDATE otp_message SET provider = CAST(x'ff' AS TEXT) WHERE {ALL_BUT_ONE}"),
            "provider",
        ),
        (
            Kind::Postgres,
            format!(r"UPDATE otp_message SET history = '\xff' WHERE {ALL_BUT_ONE}"),
            "otp_message.history",
        ),
    ];
    for (kind, jam, told_of) in jams {
        let gateway = Gateway::start().await;
        gateway.will("only", DOWN);
        let database = Database::new(kind).await;
        let routed =
            gateway.provider("only", "breaker_failures = 1000") + &route("default", &["only"]);
        let file = database.configure(&routed);
        let configuration = ("OTPD_CONFIG", file.as_str());
        let leaves_them = ("OTPD_DELIVERY__POLL_INTERVAL", "1h");
        let first = Replica::start_with(&database, &[configuration, leaves_them]).await;
        for number in 0..MESSAGES {
            send(&first, number, "").await;
            deliveries_in(&first, (number, ""), &[Queued]).await;
        }
        first.stop().await;
        database.execute(&jam).await;

        // All are due by now.
        database.advance_clock(Duration::from_mins(1)).await;
        gateway.will("only", TAKES);
        let second = Replica::start_with(&database, &[configuration, OFTEN]).await;
        let done = deliveries_in(&second, (MESSAGES - 1, ""), &[Sent, Dropped]).await;
        let expected = [("only", Failed, 1, "transient"), ("only", Sent, 2, "")];
        assert_eq!(comparable(&done), expected);
        let line = second
            .wait_for_line("[OTP] Message could not be reclaimed")
            .await;
        assert!(line.contains(told_of), "{line}");
        // Only a request about the unreadable row fails.
        let request = try_deliveries(&second, "anyone", (0, "")).await;
        if jam.contains("UPDATE otp_") {
            let refusal = Refusal::of(&request.expect_err("it cannot be read"));
            assert_eq!(refusal.reason, "INTERNAL");
        } else {
            request.expect("it can be read");
        }
    }
}
