//! Four times the capacity of the store. The network to it is slow, so that the capacity
//! is about the same on any machine: a batch each 200 milliseconds.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use otpd::grpc::v1::SendOtpRequest;
use tokio::{task::JoinSet, time::Instant};
use tonic::Request;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    CallerClient, Database, Figures, Proxy, Refusal, Replica, asked, token_digest,
};

/// Duration of the flood in seconds; `OTPD_TEST_FLOOD` sets another one.
const SECONDS: u32 = 3;
/// A batch is loaded and written, each there and back.
const LATENCY: Duration = Duration::from_millis(50);
const BATCHES_PER_SECOND: u32 = 5;
/// Maximum size of a batch; `OTPD_TEST_FLOOD_BATCH` sets another one. It is so small that an
/// unoptimized server on a busy machine also refuses three times as many requests.
const MAX_BATCH: u32 = 20;
const CAPACITY_SECONDS: u32 = 2;
/// Before that, connections to the database are opened and statements prepared.
const WARM_UP: Duration = Duration::from_secs(1);
/// Ratio of offered requests to the capacity.
const TIMES: u32 = 4;
/// So many that no bound on the requests of one connection holds the flood up.
const CONNECTIONS: usize = 16;
/// Deadline of callers, so long that none is exceeded on any machine. A request that would wait
/// longer than `store.max_queue_wait` is refused long before.
const PATIENCE: Duration = Duration::from_mins(1);
/// Maximum additional memory for a flood of any length. It would be ten times as much if refused
/// requests stayed anywhere.
const MOST_MEMORY_KIB: u64 = 48 * 1_024;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Sends to a new recipient each time.
fn new_request() -> Request<SendOtpRequest> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut request = Request::new(SendOtpRequest {
        recipient: format!("+7999{number:07}"),
        ..Default::default()
    });
    request.set_timeout(PATIENCE);
    request
}

/// Counts of the results of many requests.
#[derive(Debug, Default)]
struct Tally {
    answered: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Tally {
    async fn of(mut calls: JoinSet<(Duration, Option<String>)>) -> Self {
        let mut tally = Self::default();
        while let Some(call) = calls.join_next().await {
            match call.expect("it ends") {
                (taken, None) => tally.answered.push(taken),
                (taken, Some(reason)) => {
                    assert_eq!(reason, "OVERLOADED");
                    tally.refused.push(taken);
                }
            }
        }
        tally.answered.sort_unstable();
        tally.refused.sort_unstable();
        tally
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> u128 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .map_or(0, Duration::as_millis)
}

/// Returns the duration of a call, and the reason of a refusal.
async fn call(mut client: CallerClient) -> (Duration, Option<String>) {
    let start = Instant::now();
    let answer = client.send_otp(new_request()).await;
    let refusal = answer.err().map(|status| Refusal::of(&status).reason);
    (start.elapsed(), refusal)
}

/// Returns the number of answered requests per second if as many requests wait as the next batch
/// takes: one batch is being written, and others are on their way to callers and back.
async fn capacity(clients: &[CallerClient], max_batch: u32) -> u32 {
    let start = Instant::now() + WARM_UP;
    let end = start + Duration::from_secs(u64::from(CAPACITY_SECONDS));
    let mut callers = JoinSet::new();
    for (_, client) in (0..max_batch * 5 / 2).zip(clients.iter().cycle()) {
        let client = client.clone();
        callers.spawn(async move {
            let mut answered = 0;
            while Instant::now() < end {
                let (_, refusal) = call(client.clone()).await;
                // A machine that does much else may take less, and say so.
                let now = Instant::now();
                answered += u32::from(refusal.is_none() && start < now && now < end);
            }
            answered
        });
    }
    callers.join_all().await.iter().sum::<u32>() / CAPACITY_SECONDS
}

/// Sends this number of requests per second, whatever their results are.
async fn flood(clients: &[CallerClient], per_second: u32, seconds: u32) -> Tally {
    let mut arrivals = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut calls = JoinSet::new();
    let clients = clients.iter().cycle();
    for (_, client) in (0..per_second * seconds).zip(clients) {
        arrivals.tick().await;
        calls.spawn(call(client.clone()));
    }
    Tally::of(calls).await
}

/// One request after the other, until `flood` is over.
async fn beside<T>(client: CallerClient, flood: impl Future<Output = T>) -> (T, Vec<Duration>) {
    let mut flood = std::pin::pin!(flood);
    let mut taken = Vec::new();
    loop {
        tokio::select! {
            done = &mut flood => {
                taken.sort_unstable();
                return (done, taken);
            }
            (time, refusal) = call(client.clone()) => {
                assert_eq!(refusal, None, "a quiet caller is served");
                taken.push(time);
            }
        }
    }
}

async fn serve(database: &Database, proxy: &Proxy, max_batch: u32) -> Replica {
    // They deliver by themselves, so that a request is one and not two with its message.
    let callers: String = ["loud", "quiet"]
        .map(|name| {
            let digest = token_digest(name);
            format!("[callers.{name}]\ntoken_sha256 = [\"{digest}\"]\nself_delivery = true\n")
        })
        .concat();
    let configuration = database.configure(&callers);
    let max_batch = max_batch.to_string();
    let settings = [
        ("OTPD_CONFIG", &*configuration),
        ("OTPD_STORE__MAX_BATCH", &*max_batch),
        // A busy machine is no failure of the store or of a caller.
        ("OTPD_STORE__TIMEOUT", "1m"),
        ("OTPD_CONNECTIONS__REQUEST_BODY_TIMEOUT", "1m"),
    ];
    Replica::launch(proxy.url(), database, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_4x_sheds_excess_and_keeps_capacity() {
    let seconds = asked("OTPD_TEST_FLOOD").unwrap_or(SECONDS);
    let max_batch = asked("OTPD_TEST_FLOOD_BATCH").unwrap_or(MAX_BATCH);
    let mut figures = Figures::new("flood", None);
    let database = Database::postgres().await;
    let proxy = Proxy::forwarding(&database);
    let replica = serve(&database, &proxy, max_batch).await;
    replica.wait_for_health("", ServingStatus::Serving).await;
    proxy.delay(LATENCY);

    let quiet = replica.client_of("quiet");
    let loud: Vec<_> = (0..CONNECTIONS)
        .map(|_| replica.client_of("loud"))
        .collect();
    let offered = TIMES * max_batch * BATCHES_PER_SECOND;
    let before = capacity(&loud, max_batch).await;
    let memory = replica.memory();
    let ((flooded, health), beside) = beside(quiet, async {
        let (flooded, health) =
            tokio::join!(flood(&loud, offered, seconds), healthy(&replica, seconds));
        (flooded, health)
    })
    .await;
    let memory_after = replica.memory();
    let after = capacity(&loud, max_batch).await;

    let answered = u32::try_from(flooded.answered.len()).unwrap();
    assert!(!flooded.refused.is_empty(), "it was no flood");
    assert!(!beside.is_empty() && !health.is_empty());
    assert!(
        memory_after.saturating_sub(memory) < MOST_MEMORY_KIB,
        "{memory} KiB became {memory_after} KiB"
    );
    // The records of all answered requests, and of no other.
    let records = database.number("SELECT COUNT(*) FROM otp_record").await;
    assert!(records >= i64::from(answered));

    for (what, number) in [
        ("requests a second that the store takes, before", before),
        ("requests a second that were offered", offered),
        ("requests a second that were answered", answered / seconds),
        ("requests a second that the store takes, after", after),
    ] {
        figures.count(what, number);
    }
    for (who, times) in [
        ("requests answered", &flooded.answered),
        ("requests refused", &flooded.refused),
        ("requests of a quiet caller", &beside),
        ("health checks", &health),
    ] {
        figures.count(who, times.len());
        for percent in [50, 99] {
            let what = format!("{who}: milliseconds of {percent} in 100, at most");
            figures.count(&what, percentile(times, percent));
        }
    }
    figures.count("KiB of memory before", memory);
    figures.count("KiB of memory after", memory_after);
    figures.write();
}

/// Returns the durations of health checks, ten per second.
async fn healthy(replica: &Replica, seconds: u32) -> Vec<Duration> {
    let mut client = HealthClient::new(replica.channel());
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    let mut taken = Vec::new();
    for _ in 0..seconds * 10 {
        turns.tick().await;
        let start = Instant::now();
        let request = HealthCheckRequest::default();
        let answer = client.check(request).await.expect("health answers");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    taken
}
