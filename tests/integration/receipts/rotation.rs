//! Rotation of the receipt key under load: every receipt is verifiable at every moment, also by a
//! verifier that keeps the public keys for ten minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use otpd::{grpc::v1::VerifyOutcome, keys::generate_receipt_entry};
use rustls::pki_types::UnixTime;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{configure, public_keys, send, submission, to, verified_claims, verify};
use crate::support::{Database, Replica};

const REPLICAS: usize = 3;
const CALLERS: usize = 6;
/// Time in seconds for which the verifier keeps the public keys, as they allow.
const KEPT: i64 = 600;
const BY_SIGNAL: (&str, &str) = ("OTPD_RELOAD_INTERVAL", "0s");

/// Replicas under load, and what a verifier has seen of them.
struct Load {
    replicas: RwLock<Vec<Arc<Replica>>>,
    /// Number of verified receipts.
    verified: AtomicUsize,
    /// Keys that signed a receipt.
    signed: RwLock<BTreeSet<String>>,
    over: AtomicBool,
}

/// Verifier that reads the public keys at most once in ten minutes, and not for an unknown key. Its
/// time is the store's, in seconds.
#[derive(Default)]
struct Verifier {
    keys: BTreeMap<String, Value>,
    read_at: i64,
}

impl Verifier {
    async fn verify(&mut self, receipt: &str, replica: &Replica, now: i64) -> Option<Value> {
        if self.keys.is_empty() || now >= self.read_at + KEPT {
            self.keys = public_keys(replica).await;
            self.read_at = now;
        }
        verified_claims(receipt, &self.keys)
    }
}

impl Load {
    fn replica(&self, number: usize) -> Arc<Replica> {
        let replicas = self.replicas.read().expect("lock is not poisoned");
        Arc::clone(&replicas[number % replicas.len()])
    }

    /// Sends and verifies until the load is over; each receipt must be verifiable.
    async fn call(&self, caller: usize) {
        let mut verifier = Verifier::default();
        for round in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let recipient = format!("+79{caller:02}{round:07}");
            let [one, two, three] = [0, 1, 2].map(|add| self.replica(caller + round + add));
            let code = send(&one, "crm", to(&recipient)).await;
            let reply = verify(&mut two.client_of("crm"), submission(&recipient, &code)).await;
            if reply.outcome() != VerifyOutcome::Verified {
                // The clock was moved past the life of the code.
                continue;
            }
            let now = reply.verified_at.expect("it is verified").seconds;
            let claims = verifier.verify(&reply.receipt, &three, now).await;
            assert_eq!(claims.expect("it is verifiable")["iat"], now);
            let header = reply.receipt.split('.').next().expect("a header");
            let header = URL_SAFE_NO_PAD.decode(header).expect("base64url");
            let header: Value = serde_json::from_slice(&header).expect("JSON");
            let kid = header["kid"].as_str().expect("a key").to_owned();
            let mut signed = self.signed.write().expect("lock is not poisoned");
            signed.insert(kid);
            self.verified.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until every caller has verified some more receipts.
    async fn goes_on(&self) {
        let enough = self.verified.load(Ordering::SeqCst) + 3 * CALLERS;
        while self.verified.load(Ordering::SeqCst) < enough {
            tokio::task::yield_now().await;
        }
    }

    fn keys_that_signed(&self) -> usize {
        self.signed.read().expect("lock is not poisoned").len()
    }
}

async fn start(database: &Database, environment: &[(&str, String)]) -> Vec<Arc<Replica>> {
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([BY_SIGNAL])
        .collect();
    let replicas = Replica::start_many_with(database, REPLICAS, &environment).await;
    replicas.into_iter().map(Arc::new).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_stay_verifiable_while_their_key_is_rotated() {
    let database = Database::postgres().await;
    let mut environment = configure(&database);
    environment.push(("OTPD_POLICY__PREFIX_SENDS_PER_DAY", "0".to_owned()));
    let load = Arc::new(Load {
        replicas: RwLock::new(start(&database, &environment).await),
        verified: AtomicUsize::default(),
        signed: RwLock::default(),
        over: AtomicBool::default(),
    });
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let load = Arc::clone(&load);
        callers.spawn(async move { load.call(caller).await });
    }
    load.goes_on().await;

    // A key that would sign too soon is refused.
    let file = database.keys_file();
    let first = fs::read_to_string(&file).expect("the keys were made");
    let next = |lead: Duration| {
        let now = Duration::from_secs(UnixTime::now().as_secs());
        let from = SystemTime::UNIX_EPOCH + now + lead;
        let entry = generate_receipt_entry(2, Some(from));
        entry.expect("the system has randomness").to_string()
    };
    let early = next(Duration::from_mins(19));
    fs::write(&file, format!("{first}{early}")).expect("the file is writable");
    load.replica(0).signal("HUP");
    let refusal = "keys: receipt.2 is new and would sign in less than 20 min";
    load.replica(0).wait_for_line(refusal).await;

    // The next key is published on one replica after another.
    let second = next(Duration::from_mins(25));
    fs::write(&file, format!("{first}{second}")).expect("the file is writable");
    for number in 0..REPLICAS {
        let replica = load.replica(number);
        replica.signal("HUP");
        replica
            .wait_for_line("[OTP AUDIT] Configuration reloaded")
            .await;
        assert_eq!(public_keys(&replica).await.len(), 2);
        load.goes_on().await;
    }
    assert_eq!(load.keys_that_signed(), 1);

    // Time passes, until the next key signs on all replicas.
    for minutes in [5, 10, 15, 20] {
        database.advance_clock(Duration::from_mins(minutes)).await;
        load.goes_on().await;
        assert_eq!(load.keys_that_signed(), 1, "after {minutes} min");
    }
    database.advance_clock(Duration::from_mins(26)).await;
    load.goes_on().await;
    assert_eq!(load.keys_that_signed(), 2);

    // The former key is removed once its last receipt has expired.
    database.advance_clock(Duration::from_mins(33)).await;
    load.goes_on().await;
    let (kept, _) = first.split_once("receipt.1").expect("it has a first key");
    fs::write(&file, format!("{kept}{second}")).expect("the file is writable");
    let newer = start(&database, &environment).await;
    let older = std::mem::replace(
        &mut *load.replicas.write().expect("lock is not poisoned"),
        newer,
    );
    load.goes_on().await;
    load.over.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.expect("every receipt is verifiable");
    }
    drop(older);
    assert_eq!(public_keys(&load.replica(0)).await.len(), 1);
}
