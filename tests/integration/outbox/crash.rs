//! SIGKILL at random moments under load: acknowledged messages are sent, and none after
//! its code is dead.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use otpd::grpc::v1::{CancelOtpRequest, otp_service_client::OtpServiceClient};
use rand::RngExt as _;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tonic::transport::Channel;

use super::{
    gateway::{Asked, Gateway},
    route, send_request,
};
use crate::support::{Database, Figures, Replica, asked};

/// Number of kills in the gate; `OTPD_TEST_KILLS` sets another number. Half of them come between
/// a request to the gateway and its response, so that one run in a thousand has none of these.
const KILLS: usize = 10;
/// Number of acknowledgements, or of requests to the gateway, from one kill to the next.
const BETWEEN_KILLS: Range<usize> = 10..120;
/// Number of callers, each of which sends one code after the other.
const CALLERS: usize = 6;
/// One send in this number is cancelled as soon as it is acknowledged.
const CANCELLED_EACH: usize = 5;
/// Maximum duration of an attempt.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time between a load that showed a live code and the start of an attempt.
const FRESHNESS: Duration = Duration::from_secs(2);

/// A send that was acknowledged.
struct Acknowledged {
    challenge_id: String,
    at: Instant,
    /// Time at which the caller got the reply to its cancellation.
    cancelled_at: Option<Instant>,
    /// True if the caller requested a cancellation, which may have happened without a reply.
    cancelling: bool,
}

/// State that the callers share.
struct Load {
    steady: OtpServiceClient<Channel>,
    /// Current process of the replica that is killed.
    victim: watch::Receiver<OtpServiceClient<Channel>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// Number of acknowledged sends.
    count: watch::Sender<usize>,
    unacknowledged: AtomicUsize,
    next: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// Sends codes, by one replica and the other, until it is over.
    async fn call(self: Arc<Self>) {
        while !self.over.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let mut client = if number.is_multiple_of(3) {
                self.steady.clone()
            } else {
                self.victim.borrow().clone()
            };
            let Ok(sent) = client.send_otp(send_request(number, "")).await else {
                self.unacknowledged.fetch_add(1, Ordering::SeqCst);
                // It was just killed; the next one is there soon.
                let mut victim = self.victim.clone();
                victim.mark_unchanged();
                let _ = tokio::time::timeout(Duration::from_millis(50), victim.changed()).await;
                continue;
            };
            let at = Instant::now();
            self.count.send_modify(|count| *count += 1);
            let challenge_id = sent.into_inner().challenge_id;
            let cancelling = number.is_multiple_of(CANCELLED_EACH);
            let mut cancelled_at = None;
            if cancelling {
                let request = CancelOtpRequest {
                    challenge_id: challenge_id.clone(),
                    ..Default::default()
                };
                let cancelled = self.steady.clone().cancel_otp(request).await;
                if cancelled.is_ok_and(|reply| reply.into_inner().cancelled) {
                    cancelled_at = Some(Instant::now());
                }
            }
            self.acknowledged
                .lock()
                .expect("lock is not poisoned")
                .push(Acknowledged {
                    challenge_id,
                    at,
                    cancelled_at,
                    cancelling,
                });
        }
    }
}

/// Replicas with their database and gateway, and the processes of the one that is killed.
struct Run {
    database: Database,
    configuration: String,
    gateway: Gateway,
    /// End and log of each killed process, by its name.
    killed: BTreeMap<String, (Instant, String)>,
}

impl Run {
    async fn start() -> Self {
        let gateway = Gateway::start().await;
        let keys = "timeout = \"500ms\"";
        let provider = gateway.provider("sms", keys);
        let database = Database::postgres().await;
        let configuration =
            database.configure(&format!("{provider}{}", route("default", &["sms"])));
        Self {
            database,
            configuration,
            gateway,
            killed: BTreeMap::new(),
        }
    }

    async fn replica(&self, name: &str) -> Replica {
        let environment = [
            ("OTPD_CONFIG", self.configuration.as_str()),
            ("OTPD_PROVIDERS__SMS__PARAMETERS__REPLICA", name),
            // Each answer that comes too late explains another message.
            ("OTPD_LOG_DEDUP_WINDOW", "0s"),
        ];
        Replica::start_with(&self.database, &environment).await
    }

    /// Lets a replica live for a random while under load, and kills it: after so many
    /// acknowledgements, or between a request to the gateway and its answer.
    async fn kill(&mut self, victim: Replica, name: &str, count: &watch::Sender<usize>) {
        let (more, by_gateway) = {
            let mut random = otpd::keys::os_rng();
            (random.random_range(BETWEEN_KILLS), random.random_bool(0.5))
        };
        if by_gateway {
            let seen = self.gateway.state().asked.len();
            self.gateway
                .wait_for(|state| {
                    let mut new = state.asked.iter().skip(seen);
                    state.asked.len() >= seen + more
                        && new.next_back().is_some_and(|asked| asked.replica == name)
                })
                .await;
        } else {
            let seen = *count.borrow();
            let mut count = count.subscribe();
            let enough = count.wait_for(|count| *count >= seen + more).await;
            enough.expect("the callers go on");
        }
        victim.signal("KILL");
        let (_, log) = victim.end().await;
        self.killed.insert(name.to_owned(), (Instant::now(), log));
    }
}

/// Counts of the messages of a run.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    cancelled: usize,
    cancelled_and_never_sent: usize,
    sent_once: usize,
    sent_twice: usize,
    sent_more_often: usize,
    /// Requests after one whose replica died before it could write the result.
    after_a_death: usize,
    /// Requests after one that was not answered in time, on a machine that is too busy.
    after_a_timeout: usize,
    lost: usize,
    /// From the acknowledgement to the gateway.
    longest_way: Duration,
    /// From the cancellation's reply to the latest request after it.
    latest_after_cancellation: Duration,
}

impl Run {
    fn tally(&self, load: &Load, steady: &str) -> Tally {
        let state = self.gateway.state();
        let mut requests: HashMap<&str, Vec<&Asked>> = HashMap::new();
        for asked in &state.asked {
            requests.entry(&asked.challenge_id).or_default().push(asked);
        }
        let mut tally = Tally::default();
        for sent in load
            .acknowledged
            .lock()
            .expect("lock is not poisoned")
            .iter()
        {
            tally.acknowledged += 1;
            let requests = requests
                .get(sent.challenge_id.as_str())
                .map_or(&[][..], Vec::as_slice);
            tally.cancelled += usize::from(sent.cancelled_at.is_some());
            match requests {
                [] if sent.cancelling => tally.cancelled_and_never_sent += 1,
                [] => tally.lost += 1,
                [_] => tally.sent_once += 1,
                [_, _] => tally.sent_twice += 1,
                _ => tally.sent_more_often += 1,
            }
            if let [first, ..] = requests {
                let way = first.at.saturating_duration_since(sent.at);
                tally.longest_way = tally.longest_way.max(way);
            }
            for request in requests {
                let late = sent
                    .cancelled_at
                    .map(|at| request.at.saturating_duration_since(at));
                tally.latest_after_cancellation = tally
                    .latest_after_cancellation
                    .max(late.unwrap_or_default());
            }
            for pair in requests.windows(2) {
                self.explain(pair[0], pair[1], steady, &mut tally);
            }
        }
        tally
    }

    /// A message that was sent twice was first sent by a replica that died before it could write
    /// the result, or that got no reply in time.
    fn explain(&self, first: &Asked, second: &Asked, steady: &str, tally: &mut Tally) {
        assert_eq!(first.message_id, second.message_id);
        assert_eq!(first.code, second.code);
        let killed = self.killed.get(&first.replica);
        let log = killed.map_or(steady, |(_, log)| log);
        let timed_out = |line: &str| {
            line.contains("Delivery attempt failed")
                && line.contains(&first.message_id)
                && line.contains("class=timeout")
        };
        if log.lines().any(timed_out) {
            tally.after_a_timeout += 1;
            return;
        }
        let Some((died_at, _)) = killed else {
            panic!("{first:?} was not the work of one that died, and then came {second:?}");
        };
        assert!(
            second.at > *died_at,
            "both were alive: {first:?} {second:?}"
        );
        tally.after_a_death += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_crashes() {
    let kills = asked("OTPD_TEST_KILLS").unwrap_or(KILLS);
    let mut figures = Figures::new("kills", None);
    let mut run = Run::start().await;
    let steady = run.replica("steady").await;
    let mut victim = run.replica("victim-0").await;
    let (victim_client, victim_is) = watch::channel(victim.client());
    let load = Arc::new(Load {
        steady: steady.client(),
        victim: victim_is,
        acknowledged: Mutex::default(),
        count: watch::Sender::new(0),
        unacknowledged: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(Arc::clone(&load).call());
    }
    for number in 0..kills {
        run.kill(victim, &format!("victim-{number}"), &load.count)
            .await;
        victim = run.replica(&format!("victim-{}", number + 1)).await;
        victim_client.send_replace(victim.client());
    }
    load.over.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.expect("callers bear with failures");
    }
    // Unfinished messages are reclaimed when their leases end.
    let pending = "SELECT count(*) FROM otp_message WHERE due_at IS NOT NULL";
    run.database.wait_for_number(pending, 0).await;

    let tally = run.tally(&load, &steady.log());
    assert_eq!(tally.lost, 0);
    assert!(tally.cancelled > 0 && tally.acknowledged > kills * 10);
    // The request of an attempt is at the gateway before the attempt ends.
    assert!(
        tally.latest_after_cancellation <= FRESHNESS + TIMEOUT,
        "{tally:?}"
    );
    for replica in [&steady, &victim] {
        assert!(!replica.log().contains("Panic"), "{}", replica.log());
    }
    for (what, number) in [
        ("replicas killed", run.killed.len()),
        ("sends acknowledged", tally.acknowledged),
        (
            "sends without an answer",
            load.unacknowledged.load(Ordering::SeqCst),
        ),
        ("codes cancelled", tally.cancelled),
        (
            "messages never sent, because their code was cancelled first",
            tally.cancelled_and_never_sent,
        ),
        ("messages sent once", tally.sent_once),
        ("messages sent twice", tally.sent_twice),
        ("messages sent more often", tally.sent_more_often),
        (
            "repetitions after a death between attempt and note",
            tally.after_a_death,
        ),
        (
            "repetitions after an answer that came too late",
            tally.after_a_timeout,
        ),
        ("messages lost", tally.lost),
    ] {
        figures.count(what, number);
    }
    for (what, time) in [
        (
            "milliseconds from acknowledgement to provider, at most",
            tally.longest_way,
        ),
        (
            "milliseconds from a cancellation to a later attempt, at most",
            tally.latest_after_cancellation,
        ),
    ] {
        figures.count(what, time.as_millis());
    }
    figures.write();
}
