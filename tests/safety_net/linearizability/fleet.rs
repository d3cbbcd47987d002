//! Replicas on a separate PostgreSQL server, with faulty networks on both sides of them.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    sync::{RwLock, watch},
    time::Instant,
};
use tonic::transport::{Channel, Endpoint};

use super::{delivery_log, wall_clock::WallClocks};
use crate::{
    model::{Codes, Settings},
    server::Server,
    settings, support,
    support::{Database, Postgres, Proxy},
};

/// How many remarks are kept.
const KEPT_REMARKS: usize = 60;

/// How many replicas there are.
pub const REPLICAS: usize = 3;

/// The clock may move so far, in milliseconds, while calls run.
const LONGEST_STEP: i64 = 25_000;

/// How long a caller waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A message as the log provider wrote it.
#[derive(Clone, Debug)]
pub struct Message {
    pub challenge: String,
    pub code: String,
    pub recipient: String,
    pub replica: usize,
    pub seen: Instant,
}

/// Every message, as soon as it is written.
#[derive(Clone)]
pub struct Mailbox(Arc<watch::Sender<HashMap<String, Vec<Message>>>>);

/// Replicas with their database and networks.
pub struct Fleet {
    pub settings: Settings,
    pub mail: Mailbox,
    pub remarks: Arc<Remarks>,
    pub clock: StoreClock,
    /// Calls that have ended, whatever their end.
    pub calls: watch::Sender<u64>,
    /// Whether the database is up; callers do not hammer on replicas while it is not.
    pub up: watch::Sender<bool>,
    /// Held by every call while it runs, so that long leaps of the clock come between
    /// calls: no promise is made for a call that lasts longer than requests are remembered.
    pub calling: RwLock<()>,
    /// Which replicas were paused, and when.
    pub pauses: Mutex<Vec<(usize, Instant, Instant)>>,
    pub postgres: Postgres,
    pub walls: WallClocks,
    database: Database,
    replicas: Vec<Replica>,
}

struct Replica {
    /// Between it and the database.
    store: Proxy,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    server: Arc<Server>,
    /// Between callers and it.
    front: Arc<Proxy>,
    channel: Channel,
}

impl Fleet {
    pub async fn start() -> Self {
        let postgres = Postgres::start();
        let database = Database::in_server(&postgres.url()).await;
        let settings = settings::settings(true);
        settings::write(&settings, &database.directory().join("otpd.toml"));
        let walls = WallClocks::new(&database.directory());
        let replicas = (0..REPLICAS)
            .map(|_| Replica {
                store: Proxy::forwarding(&database),
                running: Mutex::new(None),
            })
            .collect();
        let fleet = Self {
            settings,
            mail: Mailbox(Arc::new(watch::Sender::new(HashMap::new()))),
            remarks: Arc::default(),
            clock: StoreClock::default(),
            calls: watch::Sender::new(0),
            up: watch::Sender::new(true),
            calling: RwLock::new(()),
            pauses: Mutex::new(Vec::new()),
            postgres,
            walls,
            database,
            replicas,
        };
        for replica in 0..REPLICAS {
            fleet.walls.set(replica, 0);
            fleet.launch(replica);
            fleet.serves(replica).await;
            if replica == 0 {
                fleet.clock.install(fleet.database.url()).await;
                delivery_log::install(fleet.database.url()).await;
            }
        }
        fleet
    }

    /// Starts a replica.
    pub fn launch(&self, number: usize) {
        let mut command = support::otpd();
        command
            .current_dir(self.database.directory())
            .env("DATABASE_URL", self.replicas[number].store.url())
            .env("OTPD_CONFIG", self.database.directory().join("otpd.toml"))
            .env("OTPD_KEYS_FILE", self.database.keys_file())
            .env("OTPD_LISTEN", "127.0.0.1:0")
            .env("OTPD_SHUTDOWN_DELAY", "0s")
            .env("OTPD_STORE__TIMEOUT", "1s")
            .env("OTPD_STORE__PROBE_INTERVAL", "100ms")
            .env("OTPD_STORE__PURGE_INTERVAL", "50ms");
        self.walls.govern(number, &mut command);
        let mail = self.mail.clone();
        let remarks = Arc::clone(&self.remarks);
        let server = tokio::task::block_in_place(|| {
            Server::start(&mut command, move |line| {
                remarks.read(number, line);
                mail.read(number, line);
            })
        });
        let front = Proxy::before(SocketAddr::from(([127, 0, 0, 1], server.port())));
        let channel = Endpoint::from_shared(format!("http://{}", front.address()))
            .expect("a URL")
            .connect_lazy();
        *self.running(number) = Some(Running {
            server: Arc::new(server),
            front: Arc::new(front),
            channel,
        });
    }

    /// Kills a replica, as the kernel does when memory runs out.
    pub fn kill(&self, number: usize) {
        self.signal(number, "KILL");
    }

    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// Whether any replica was paused since `start`.
    pub fn paused_since(&self, start: Instant) -> bool {
        let pauses = self.pauses.lock().expect("lock is not poisoned");
        pauses.iter().any(|&(_, _, end)| start <= end)
    }

    /// Stops the database, so that a test that fails leaves nothing behind.
    pub fn give_up(&self) {
        self.postgres.stop();
    }

    pub async fn serves(&self, number: usize) {
        let server = Arc::clone(&self.current(number).server);
        server.serves().await;
    }

    pub fn channel(&self, number: usize) -> Channel {
        self.current(number).channel
    }

    pub fn signal(&self, number: usize, name: &str) {
        self.current(number).server.signal(name);
    }

    /// The network between a replica and the database.
    pub fn store_network(&self, number: usize) -> &Proxy {
        &self.replicas[number].store
    }

    /// The network between callers and a replica.
    pub fn front_network(&self, number: usize) -> Arc<Proxy> {
        self.current(number).front
    }

    /// Ends it as a crash does; it is up again as soon as it runs.
    pub async fn crash_postgres(self: &Arc<Self>) {
        self.do_without_postgres(Postgres::crash).await;
        self.up.send_replace(true);
    }

    /// Restarts it; it is up again as soon as all replicas say so.
    pub async fn restart_postgres(self: &Arc<Self>) {
        self.do_without_postgres(Postgres::restart).await;
        self.all_serve().await;
        self.up.send_replace(true);
    }

    /// Kills its first process; it is up again as soon as all replicas say so.
    pub async fn kill_postgres(self: &Arc<Self>) {
        let kill = |postgres: &Postgres| {
            postgres.kill();
            postgres.start_again();
        };
        self.do_without_postgres(kill).await;
        self.all_serve().await;
        self.up.send_replace(true);
    }

    /// Waits until every replica serves.
    pub async fn all_serve(&self) {
        for replica in 0..REPLICAS {
            self.serves(replica).await;
        }
    }

    async fn do_without_postgres(self: &Arc<Self>, what: fn(&Postgres)) {
        self.up.send_replace(false);
        let fleet = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || what(&fleet.postgres));
        done.await.expect("it starts again");
    }

    /// Moves the store's clock ahead.
    pub async fn advance(&self, milliseconds: i64) {
        let between_calls = if milliseconds > LONGEST_STEP {
            Some(self.calling.write().await)
        } else {
            None
        };
        self.clock.announce(milliseconds);
        // A repeated write is the same.
        while self.clock.advance(self.database.url()).await.is_err() {
            let mut up = self.up.subscribe();
            // The sender is a field of this very fleet.
            let _ = up.wait_for(|up| *up).await;
        }
        drop(between_calls);
    }

    /// Waits until so many more calls have ended.
    pub async fn after_calls(&self, count: u64) {
        let mut calls = self.calls.subscribe();
        let until = *calls.borrow() + count;
        // The sender is a field of this very fleet.
        let _ = calls.wait_for(|calls| *calls >= until).await;
    }

    pub fn last_lines(&self) -> String {
        (0..REPLICAS)
            .map(|number| self.current(number).server.last_lines())
            .collect::<Vec<_>>()
            .join("\n")
            + "\n"
            + &self.remarks.newest()
    }

    fn current(&self, number: usize) -> Running {
        self.running(number).clone().expect("it runs")
    }

    fn running(&self, number: usize) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.replicas[number]
            .running
            .lock()
            .expect("lock is not poisoned")
    }
}

/// Counts of log lines that do not belong to a request.
#[derive(Default)]
pub struct Remarks {
    /// Lines about an unavailable or available store.
    pub about_the_store: AtomicU64,
    /// Errors about anything else.
    pub other_errors: AtomicU64,
    /// The newest of both, to be shown when a test fails.
    newest: Mutex<VecDeque<String>>,
}

impl Remarks {
    fn read(&self, replica: usize, line: &str) {
        let count = if line.contains("[OTP] Store ") {
            &self.about_the_store
        } else if line.contains(" ERROR ") {
            &self.other_errors
        } else {
            return;
        };
        count.fetch_add(1, Ordering::SeqCst);
        let mut newest = self.newest.lock().expect("lock is not poisoned");
        if newest.len() == KEPT_REMARKS {
            newest.pop_front();
        }
        newest.push_back(format!("replica {replica}: {line}"));
    }

    fn newest(&self) -> String {
        let newest = self.newest.lock().expect("lock is not poisoned");
        newest.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Mailbox {
    fn read(&self, replica: usize, line: &str) {
        let Some((_, rest)) = line.split_once("[OTP] Generated OTP: ") else {
            return;
        };
        let word = |mark: &str| {
            let (_, rest) = rest.split_once(mark).expect("the design's line");
            rest.split_whitespace().next().expect("a value").to_owned()
        };
        let message = Message {
            code: rest.chars().take_while(char::is_ascii_digit).collect(),
            challenge: word("challenge_id="),
            recipient: word("recipient="),
            replica,
            seen: Instant::now(),
        };
        self.0.send_modify(|mail| {
            mail.entry(message.recipient.clone())
                .or_default()
                .push(message);
        });
    }

    /// Returns the messages that a recipient has received.
    pub fn of(&self, recipient: &str) -> Vec<Message> {
        self.0.borrow().get(recipient).cloned().unwrap_or_default()
    }

    /// The codes that a recipient has got so far, by challenge.
    pub fn codes(&self, recipient: &str) -> Codes {
        let messages = self.of(recipient).into_iter();
        messages
            .map(|message| (message.challenge, message.code))
            .collect()
    }

    /// Waits until a recipient has so many messages of a challenge, but not for ever.
    pub async fn arrives(
        &self,
        recipient: &str,
        challenge: &str,
        count: usize,
        patience: Duration,
    ) -> bool {
        let mut mail = self.0.subscribe();
        let enough = mail.wait_for(|mail| {
            let messages = mail.get(recipient).into_iter().flatten();
            messages
                .filter(|message| message.challenge == challenge)
                .count()
                >= count
        });
        tokio::time::timeout(patience, enough).await.is_ok()
    }

    /// Drops the data of a recipient after the check of its history.
    pub fn forget(&self, recipient: &str) {
        self.0.send_if_modified(|mail| {
            mail.remove(recipient);
            false
        });
    }
}

/// The store's clock as callers can know it: the machine's, and how far ahead of it the
/// store was put.
#[derive(Default)]
pub struct StoreClock {
    /// Acknowledged writes of the database, and those of unknown outcome.
    ahead: AtomicI64,
    perhaps: AtomicI64,
    pub jumps: AtomicU64,
}

impl StoreClock {
    /// Makes the store's clock run ahead of the machine's by an offset in a table.
    async fn install(&self, url: &str) {
        let mut connection = PgConnection::connect(url).await.expect("it runs");
        connection
            .execute(
                "CREATE TABLE test_clock (ahead bigint NOT NULL);
                 INSERT INTO test_clock VALUES (0);
                 CREATE OR REPLACE VIEW otp_clock AS
                 SELECT floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint + ahead AS now
                 FROM test_clock",
            )
            .await
            .expect("the view is replaced");
    }

    /// From now on the clock may be so much further ahead.
    fn announce(&self, milliseconds: i64) {
        self.perhaps.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Puts it ahead as announced.
    async fn advance(&self, url: &str) -> Result<(), sqlx::Error> {
        let ahead = self.perhaps.load(Ordering::SeqCst);
        let mut connection = PgConnection::connect(url).await?;
        // Time passes in a database that is read-only, too.
        let writable = "SET default_transaction_read_only = off";
        connection.execute(writable).await?;
        sqlx::query("UPDATE test_clock SET ahead = $1")
            .bind(ahead)
            .execute(&mut connection)
            .await?;
        self.ahead.store(ahead, Ordering::SeqCst);
        self.jumps.fetch_add(1, Ordering::SeqCst);
        // It is written, whatever becomes of the connection.
        drop(connection);
        Ok(())
    }

    /// Returns a lower bound of the clock for a call that begins now.
    pub fn earliest(&self) -> i64 {
        let ahead = self.ahead.load(Ordering::SeqCst);
        wall() + ahead
    }

    /// Returns an upper bound of the clock for a call that has ended.
    pub fn latest(&self) -> i64 {
        let now = wall();
        now + self.perhaps.load(Ordering::SeqCst) + 1
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the store's clock is this machine's, and is compared with it"
)]
fn wall() -> i64 {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(age.as_millis()).expect("this age")
}
