//! Concurrent sends across replicas: limits are exact, refused sends consume no limit,
//! and their `retry_after` is exact.

use std::time::Duration;

use otpd::grpc::v1::{SendOtpRequest, SendOtpResponse};
use tonic::{Response, Status};
use tonic_types::StatusExt as _;

use crate::support::{Database, Fleet, Kind, Refusal, asked, milliseconds, on_each_store, reason};

const BURST: usize = 5;
const SENDS: usize = 200;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// The longest that a replica waits for the store, `store.timeout`: a decision is that
/// much later than the clock that it was made by, at most.
const LATEST: i64 = 20_000;

/// Replicas that send again at once, and the limits of one race.
async fn start(kind: Kind, limits: &[(&str, &str)]) -> (Database, Fleet) {
    let at_once = [
        ("OTPD_POLICY__RESEND_AFTER", "0s"),
        // 200 at once, on a machine that may be busy with other tests.
        ("OTPD_STORE__TIMEOUT", "20s"), // as `LATEST` says
        // Days pass between races, and records are counted: none is to be purged.
        ("OTPD_STORE__PURGE_INTERVAL", "1h"),
    ];
    Fleet::start(kind, &[&at_once, limits].concat()).await
}

/// Number of races in the gate; `OTPD_TEST_RACES` sets another number. One race of 200 sends
/// found a limit that is charged once for a batch in each of ten runs.
fn races(kind: Kind) -> usize {
    asked("OTPD_TEST_RACES").unwrap_or(match kind {
        Kind::Postgres => 10,
        // It writes to the disk for each send.
        Kind::Sqlite => 3,
    })
}

fn recipient(number: usize) -> String {
    format!("+7999{number:07}")
}

/// A recipient that takes part in only one race.
fn recipient_of(race: usize, index: usize) -> String {
    recipient(race * 1_000 + index)
}

fn client_ip(race: usize) -> String {
    format!("198.51.100.{race}")
}

fn request(recipient: String, client_ip: String) -> SendOtpRequest {
    SendOtpRequest {
        recipient,
        client_ip,
        ..Default::default()
    }
}

type Sent = Result<Response<SendOtpResponse>, Status>;

async fn send_at_once(
    fleet: &Fleet,
    count: usize,
    request: impl Fn(usize) -> SendOtpRequest,
) -> Vec<Sent> {
    let sends = fleet.at_once(count, |index, mut client| {
        let request = request(index);
        async move { client.send_otp(request).await }
    });
    sends.await
}

/// Returns the time of the decision about a send: without a cool-down, the next one is allowed
/// then.
fn sent_at(sent: &Response<SendOtpResponse>) -> i64 {
    milliseconds(sent.get_ref().resend_at)
}

/// Returns the wait in a refusal by the limit of that name, in milliseconds.
#[track_caller]
fn wait(refused: &Status, limit: &str) -> i64 {
    assert_eq!(reason(refused), "SEND_LIMIT", "{refused}");
    let details = refused.get_error_details();
    let info = details.error_info().expect("it has a reason");
    assert_eq!(info.metadata["limit"], limit);
    let wait = Refusal::of(refused).wait;
    let wait = wait.expect("it contains a retry delay").as_millis();
    i64::try_from(wait).expect("a sensible wait")
}

/// Returns the number of accepted sends of `count` from one address, each to another recipient. Few
/// run at the same time, so that none is abandoned.
async fn drain(fleet: &Fleet, count: usize, client_ip: String) -> usize {
    let mut sent = 0;
    for first in (0..count).step_by(10) {
        let others = |index| request(recipient(9_000_000 + first + index), client_ip.clone());
        let sends = send_at_once(fleet, 10.min(count - first), others).await;
        sent += accepted(&sends);
        for refused in sends.iter().filter_map(|sent| sent.as_ref().err()) {
            wait(refused, "ip_sends_per_hour");
        }
    }
    sent
}

fn accepted(sends: &[Sent]) -> usize {
    sends.iter().filter(|sent| sent.is_ok()).count()
}

/// Races `SENDS` requests for a full burst of `limit`, one of which comes back every
/// `interval` milliseconds; and returns those that got nothing.
async fn race(
    (database, fleet): (&Database, &Fleet),
    limit: &str,
    interval: i64,
    request: impl Fn(usize) -> SendOtpRequest,
) -> Lost {
    let sends = send_at_once(fleet, SENDS, request).await;
    let over = database.now().await;
    assert_eq!(accepted(&sends), BURST, "{sends:?}");
    let first = sends.iter().flatten().map(sent_at).min();
    let next = first.expect("some were sent") + interval;
    for refused in sends.iter().filter_map(|sent| sent.as_ref().err()) {
        // The refusal was decided between the first send and now.
        let reply = wait(refused, limit);
        let possible = next - over..=interval;
        assert!(possible.contains(&reply), "{reply} {possible:?}");
    }
    let latest = sends.iter().flatten().map(sent_at).max();
    let lost = sends.iter().enumerate().filter(|(_, sent)| sent.is_err());
    Lost {
        indices: lost.map(|(index, _)| index).collect(),
        next,
        skew: latest.expect("some were sent") + interval - next,
    }
}

/// State after a race.
struct Lost {
    /// Recipients of refused sends.
    indices: Vec<usize>,
    /// Time at which the limit allows the next one, if all were decided together with the first
    /// one.
    next: i64,
    /// Time from the first decision to the last. A shared limit counts from any of them,
    /// because replicas write in another order than they decide.
    skew: i64,
}

/// One send is allowed at `next`, or later by `skew` at most, and not a moment earlier,
/// whichever replica is asked.
async fn next_allowed_at(
    (database, fleet): (&Database, &Fleet),
    limit: &str,
    (next, skew): (i64, i64),
    request: impl Fn(usize) -> SendOtpRequest,
) {
    let replicas = fleet.replicas.len();
    database.stop_clock_at(next - LATEST).await;
    for early in send_at_once(fleet, replicas, &request).await {
        let reply = wait(&early.expect_err("it is too early"), limit);
        assert!((1..=LATEST + skew).contains(&reply), "{reply}");
    }
    database.stop_clock_at(next + skew).await;
    let sends = send_at_once(fleet, replicas, &request).await;
    assert_eq!(accepted(&sends), 1, "{sends:?}");
}

async fn send_limit_per_record_is_exact(kind: Kind) {
    // Limit of the client's address: enough for one cell of each racing request, and more.
    const IP_SENDS: usize = 2 * SENDS;
    let limits = [
        ("OTPD_POLICY__SENDS_PER_HOUR", "5"),
        ("OTPD_POLICY__SENDS_PER_DAY", "7"),
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", &IP_SENDS.to_string()),
    ];
    let (database, fleet) = start(kind, &limits).await;
    let (all, interval) = ((&database, &fleet), HOUR / 5);
    for number in 0..races(kind) {
        let wish = |_| request(recipient(number), client_ip(number));
        let Lost { next, .. } = race(all, "sends_per_hour", interval, wish).await;
        if number == 0 {
            // The address was charged for the accepted sends, and for nothing else.
            let left = IP_SENDS - BURST;
            let sent = drain(&fleet, left + 1, client_ip(number)).await;
            let late = database.now().await - (next - interval);
            let refilled = usize::try_from(late / (HOUR / 400)).expect("time goes on");
            assert!((left..=left + refilled).contains(&sent), "{sent}");
        }
        // Two of the day are left.
        let unmetered = |_| request(recipient(number), String::new());
        next_allowed_at(all, "sends_per_hour", (next, 0), unmetered).await;
        next_allowed_at(all, "sends_per_hour", (next + interval, 0), unmetered).await;
        database.stop_clock_at(next + 2 * interval).await;
        let sends = send_at_once(&fleet, 1, unmetered).await;
        wait(
            sends[0].as_ref().expect_err("it is refused"),
            "sends_per_day",
        );
        database.set_clock_offset(0).await;
    }
}

async fn send_limit_per_client_ip_is_exact(kind: Kind) {
    let limits = [
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", "5"),
        ("OTPD_POLICY__SENDS_PER_HOUR", "2"),
    ];
    let (database, fleet) = start(kind, &limits).await;
    let (all, interval) = ((&database, &fleet), HOUR / 5);
    for number in 0..races(kind) {
        let wish = |index| request(recipient_of(number, index), client_ip(number));
        let lost = race(all, "ip_sends_per_hour", interval, wish).await;
        // A refused recipient keeps all limits of a record, and has no record.
        let records = database.number("SELECT count(*) FROM otp_record").await;
        let sent = BURST + number * (BURST + 2);
        assert_eq!(usize::try_from(records), Ok(sent));
        let unlucky = recipient_of(number, lost.indices[0]);
        let unmetered = |_| request(unlucky.clone(), String::new());
        let sends = send_at_once(&fleet, 3, unmetered).await;
        assert_eq!(accepted(&sends), 2, "{sends:?}");
        let refused = sends.iter().find_map(|sent| sent.as_ref().err());
        wait(refused.expect("two of three were sent"), "sends_per_hour");

        let newcomer = |_| request(recipient_of(number, SENDS), client_ip(number));
        next_allowed_at(all, "ip_sends_per_hour", (lost.next, lost.skew), newcomer).await;
        database.set_clock_offset(0).await;
    }
}

async fn send_limit_per_caller_is_exact(kind: Kind) {
    let limits = [
        ("OTPD_POLICY__CALLER_SENDS_PER_DAY", "5"),
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", "8"),
    ];
    let (database, fleet) = start(kind, &limits).await;
    let (all, interval) = ((&database, &fleet), DAY / 5);
    for number in 0..races(kind) {
        // Each from an address of its own, as those of end users are.
        let client_ip = |index| format!("10.{number}.0.{index}");
        let wish = |index| request(recipient_of(number, index), client_ip(index));
        let lost = race(all, "caller_sends_per_day", interval, wish).await;
        // A refused recipient has no record, and its address has its whole limit: of all limits,
        // only those of five addresses and of the caller have cells to refill.
        let records = database.number("SELECT count(*) FROM otp_record").await;
        assert_eq!(usize::try_from(records), Ok(BURST + number * (BURST + 1)));
        let used = "SELECT count(*) FROM otp_limit, otp_clock WHERE full_at > now + 60000";
        let used = database.number(used).await;
        assert_eq!(usize::try_from(used), Ok(BURST + 1));

        let newcomer = |_| request(recipient_of(number, SENDS), String::new());
        next_allowed_at(
            all,
            "caller_sends_per_day",
            (lost.next, lost.skew),
            newcomer,
        )
        .await;
        // All limits are full again.
        let days = u64::try_from(2 * (number + 1)).expect("a few");
        database
            .advance_clock(Duration::from_hours(24 * days))
            .await;
    }
}

/// A record without limits on sends: of very many sends some lose their race repeatedly and are
/// abandoned, after their addresses were charged.
async fn abandoned_request_refunds_rate_limits(kind: Kind) {
    const SENDS: usize = 120;
    let limits = [
        ("OTPD_POLICY__SENDS_PER_HOUR", "0"),
        ("OTPD_POLICY__SENDS_PER_DAY", "0"),
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", &SENDS.to_string()),
    ];
    let (database, fleet) = start(kind, &limits).await;
    let before = database.now().await;
    let metered = |index: usize| index.is_multiple_of(4);
    let sends = send_at_once(&fleet, SENDS, |index| {
        let client_ip = metered(index).then(|| client_ip(0));
        request(recipient(0), client_ip.unwrap_or_default())
    });
    let mut left = SENDS;
    for (index, sent) in sends.await.into_iter().enumerate() {
        match sent {
            Ok(_) => left -= usize::from(metered(index)),
            Err(status) => assert_eq!(reason(&status), "OVERLOADED", "{status}"),
        }
    }
    let sent = drain(&fleet, left + 1, client_ip(0)).await;
    let interval = HOUR / i64::try_from(SENDS).expect("a few");
    let refilled = (database.now().await - before) / interval;
    let refilled = usize::try_from(refilled).expect("time goes on");
    assert!(
        (left..=left + refilled).contains(&sent),
        "{sent}, not {left}"
    );
}

on_each_store! {
    send_limit_per_record_is_exact
    send_limit_per_client_ip_is_exact
    send_limit_per_caller_is_exact
    abandoned_request_refunds_rate_limits
}
