//! Rotation of the sealing key under load: no code is lost, and no call fails
//! permanently.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest, otp_service_client::OtpServiceClient};
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Channel};

use crate::support::{Database, Kind, Refusal, Replica, otpd, run};

type Client = OtpServiceClient<Channel>;

const CALLERS: usize = 8;

/// Two replicas, each of which is restarted now and then under another address.
struct Pair {
    replicas: [Mutex<(Arc<Replica>, Client)>; 2],
    /// Logs of stopped replicas.
    logs: Mutex<Vec<String>>,
    over: AtomicBool,
    rounds: AtomicUsize,
    retries: AtomicUsize,
}

fn with_client(replica: Replica) -> (Arc<Replica>, Client) {
    let client = replica.client();
    (Arc::new(replica), client)
}

/// Returns true if a call is to be repeated: by the status of the server, or because the connection
/// broke, which clients report as UNAVAILABLE or by other codes.
fn is_unavailable(status: &Status) -> bool {
    let broke = std::error::Error::source(status)
        .is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>);
    broke || status.code() == Code::Unavailable
}

impl Pair {
    fn of(&self, number: usize) -> (Arc<Replica>, Client) {
        let replica = self.replicas[number % 2].lock();
        replica.expect("lock is not poisoned").clone()
    }

    /// Calls until the answer is other than UNAVAILABLE, from one replica to the other.
    async fn call<T, F>(&self, caller: usize, call: impl Fn(Client) -> F) -> T
    where
        F: Future<Output = Result<T, Status>>,
    {
        for replica in caller.. {
            match call(self.of(replica).1).await {
                Ok(reply) => return reply,
                Err(status) if is_unavailable(&status) => {
                    self.retries.fetch_add(1, Ordering::SeqCst);
                }
                Err(status) => panic!("a call failed: {status:?}"),
            }
        }
        unreachable!("numbers do not end")
    }

    /// The code of a challenge, whichever replica sent its message.
    async fn code(&self, challenge_id: &str) -> String {
        let mark = format!("challenge_id={challenge_id} ");
        loop {
            let logs = self.logs.lock().expect("lock is not poisoned").join("\n");
            let running = [0, 1].map(|number| self.of(number).0.log());
            let message = logs
                .lines()
                .chain(running.iter().flat_map(|log| log.lines()))
                .find(|line| line.contains(&mark) && line.contains("Generated OTP: "));
            if let Some(line) = message {
                let (_, code) = line.split_once("Generated OTP: ").expect("it exists");
                return code[..6].to_owned();
            }
            tokio::task::yield_now().await;
        }
    }

    async fn send(&self, caller: usize, recipient: &str) -> String {
        let request = SendOtpRequest {
            recipient: recipient.to_owned(),
            request_id: format!("send-{recipient}"),
            ..Default::default()
        };
        let sent = self.call(caller, |mut client| {
            let request = request.clone();
            async move { Ok(client.send_otp(request).await?.into_inner()) }
        });
        self.code(&sent.await.challenge_id).await
    }

    async fn verify(&self, caller: usize, recipient: &str, code: &str) {
        let request = VerifyOtpRequest {
            recipient: recipient.to_owned(),
            code: code.to_owned(),
            request_id: format!("verify-{recipient}"),
            ..Default::default()
        };
        let verdict = self.call(caller, |mut client| {
            let request = request.clone();
            async move { Ok(client.verify_otp(request).await?.into_inner()) }
        });
        let verdict = verdict.await;
        assert!(verdict.verified, "{recipient} lost its code: {verdict:?}");
    }

    /// Sends and verifies until it is over.
    async fn keep_calling(&self, caller: usize) {
        for round in 0.. {
            let recipient = format!("+7999{caller:03}{round:04}");
            let code = self.send(caller + round, &recipient).await;
            self.verify(caller + round + 1, &recipient, &code).await;
            self.rounds.fetch_add(1, Ordering::SeqCst);
            if self.over.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Waits until so many more codes were sent and verified.
    async fn rounds(&self, more: usize) {
        let wanted = self.rounds.load(Ordering::SeqCst) + more;
        while self.rounds.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
    }

    /// Stops one replica after the other and starts it again, under load.
    async fn restart(&self, database: &Database) {
        for replica in &self.replicas {
            let stopping = Arc::clone(&replica.lock().expect("lock is not poisoned").0);
            stopping.signal("TERM");
            stopping.wait_for_line("[OTP] Stopped").await;
            let started = with_client(Replica::start(database).await);
            self.logs
                .lock()
                .expect("lock is not poisoned")
                .push(stopping.log());
            *replica.lock().expect("lock is not poisoned") = started;
            self.rounds(20).await;
        }
    }
}

/// Does `work` while callers go on, the first of them with that number.
async fn under_load(pair: &Arc<Pair>, first: usize, work: impl Future<Output = ()>) {
    pair.over.store(false, Ordering::SeqCst);
    let mut callers = JoinSet::new();
    for caller in first..first + CALLERS {
        let pair = Arc::clone(pair);
        callers.spawn(async move { pair.keep_calling(caller).await });
    }
    tokio::select! {
        () = work => {}
        ended = callers.join_next() => panic!("a caller ended early: {ended:?}"),
    }
    pair.over.store(true, Ordering::SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call failed, and no code was lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_key_rotation_loses_no_code_or_call() {
    let database = Database::postgres().await;
    let keys = database.keys_file();
    let first = fs::read_to_string(&keys).expect("the ring was made");
    let (head, old) = first.split_once("seal.1").expect("it has a sealing key");
    let old = format!("seal.1{old}");
    let new = run(otpd().args(["keygen", "--seal", "2"])).done();
    let [one, two] = <[Replica; 2]>::try_from(Replica::start_many(&database, 2).await)
        .unwrap_or_else(|_| unreachable!("two were started"));
    let pair = Arc::new(Pair {
        replicas: [one, two].map(|replica| Mutex::new(with_client(replica))),
        logs: Mutex::default(),
        over: AtomicBool::new(false),
        rounds: AtomicUsize::new(0),
        retries: AtomicUsize::new(0),
    });
    // For reading on every replica, then made primary. Some codes live over each step.
    let exchange = async {
        let mut live = Vec::new();
        for (step, ring) in [format!("{head}{old}{new}"), format!("{head}{new}{old}")]
            .into_iter()
            .enumerate()
        {
            for number in 0..10 {
                let recipient = format!("step-{step}-{number}@example.com");
                let code = pair.send(number, &recipient).await;
                live.push((recipient, code));
            }
            fs::write(&keys, ring).expect("the file is ours");
            pair.restart(&database).await;
        }
        for (number, (recipient, code)) in live.iter().enumerate() {
            pair.verify(number, recipient, code).await;
        }
    };
    under_load(&pair, 0, exchange).await;
    // Values under the old key have expired; those under the new one have not.
    database.advance_clock(Duration::from_mins(11)).await;
    let code = pair.send(0, "last@example.com").await;
    let remove = async {
        fs::write(&keys, format!("{head}{new}")).expect("the file is ours");
        pair.restart(&database).await;
        pair.verify(1, "last@example.com", &code).await;
    };
    under_load(&pair, CALLERS, remove).await;
    let retries = pair.retries.load(Ordering::SeqCst);
    assert!(retries > 0, "the restarts were not felt");
    let logs = pair.logs.lock().expect("lock is not poisoned").join("\n");
    assert!(!logs.contains("cannot be opened"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_without_the_sealing_key_keeps_the_code() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let database = Database::new(kind).await;
        let ring = fs::read_to_string(database.keys_file()).expect("the ring was made");
        let (head, old) = ring.split_once("seal.1").expect("it has a sealing key");
        let new = run(otpd().args(["keygen", "--seal", "2"])).done();
        let both = database.directory().join("both.keys");
        fs::write(&both, format!("{head}{new}seal.1{old}")).expect("the directory takes files");
        let both = both.to_str().expect("a test's path");
        let knowing = Replica::start_with(&database, &[("OTPD_KEYS_FILE", both)]).await;
        let ignorant = Replica::start(&database).await;
        let recipient = "+79990000001".to_owned();
        let wish = SendOtpRequest {
            recipient: recipient.clone(),
            ..Default::default()
        };
        let sent = knowing.client().send_otp(wish.clone()).await;
        let code = knowing
            .code(&sent.expect("it is sent").into_inner().challenge_id)
            .await;
        let verify = |code: &str| VerifyOtpRequest {
            recipient: recipient.clone(),
            code: code.to_owned(),
            ..Default::default()
        };
        // Past the cool-down it would make another code.
        database.advance_clock(Duration::from_mins(2)).await;
        for code in [code.as_str(), "000000"] {
            let refused = ignorant.client().verify_otp(verify(code)).await;
            let refusal = Refusal::of(&refused.expect_err("the replica cannot judge"));
            assert_eq!(refusal.reason, "INTERNAL");
        }
        let refused = ignorant.client().send_otp(wish.clone()).await;
        refused.expect_err("it cannot repeat the code");
        let verdict = knowing.client().verify_otp(verify(&code)).await;
        let verdict = verdict.expect("there is an outcome").into_inner();
        assert!(verdict.verified, "{verdict:?}");

        // After a code has expired, its key is not needed any more.
        let sent = knowing.client().send_otp(wish.clone()).await;
        sent.expect("it is sent");
        database.advance_clock(Duration::from_mins(8)).await;
        let sent = ignorant.client().send_otp(wish).await;
        sent.expect("the last code has expired");
    }
}
