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

use otpd_model::{Codes, Settings};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    sync::{RwLock, watch},
    time::Instant,
};
use tonic::transport::{Channel, Endpoint};

use super::{delivery_log, wall_clock::WallClocks};
use crate::{
    server::Server,
    settings, support,
    support::{Database, Postgres, Proxy},
};
/// Number of log lines that are kept.
const KEPT_LINES: usize = 60;

/// Number of replicas.
pub const REPLICAS: usize = 3;

/// Maximum jump of the clock during calls, in milliseconds.
const MAX_JUMP_DURING_CALLS: i64 = 25_000;

/// Time for which a caller waits for a reply.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Message, as written by the log provider.
#[derive(Clone, Debug)]
pub struct Message {
    pub challenge: String,
    pub code: String,
    pub recipient: String,
    pub replica: usize,
    pub seen: Instant,
}

/// All messages, by recipient.
#[derive(Clone)]
pub struct Mailbox(Arc<watch::Sender<HashMap<String, Vec<Message>>>>);

/// Replicas with their database and networks.
pub struct Fleet {
    pub settings: Settings,
    pub mail: Mailbox,
    pub system_lines: Arc<SystemLines>,
    pub clock: StoreClock,
    /// Number of calls that have ended, with any result.
    pub calls: watch::Sender<u64>,
    /// True if the database is up; callers pause while it is not.
    pub up: watch::Sender<bool>,
    /// Held by every call, so that large jumps of the clock happen between calls: a call that
    /// outlasts `request_memory` has no guarantee.
    pub calling: RwLock<()>,
    /// Pauses: replica, start and end.
    pub pauses: Mutex<Vec<(usize, Instant, Instant)>>,
    pub postgres: Postgres,
    pub walls: WallClocks,
    database: Database,
    replicas: Vec<Replica>,
}

struct Replica {
    /// Network between the replica and the database.
    store: Proxy,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    server: Arc<Server>,
    /// Network between callers and the replica.
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
            system_lines: Arc::default(),
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
        self.walls.apply(number, &mut command);
        let mail = self.mail.clone();
        let system_lines = Arc::clone(&self.system_lines);
        let server = tokio::task::block_in_place(|| {
            Server::start(&mut command, move |line| {
                system_lines.read(number, line);
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

    /// Kills a replica, as the kernel does if memory runs out.
    pub fn kill(&self, number: usize) {
        self.signal(number, "KILL");
    }

    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// Returns whether a pooler is between the replicas and the database.
    pub fn is_pooled(&self) -> bool {
        self.database.is_pooled()
    }

    /// Restarts the pooler.
    pub fn restart_pooler(&self) {
        tokio::task::block_in_place(|| self.database.restart_pooler());
    }

    /// Returns true if a replica was paused since `start`.
    pub fn paused_since(&self, start: Instant) -> bool {
        let pauses = self.pauses.lock().expect("lock is not poisoned");
        pauses.iter().any(|&(_, _, end)| start <= end)
    }

    /// Stops the database, so that a failed test leaves no process behind.
    pub fn stop_postgres(&self) {
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

    /// Returns the network between a replica and the database.
    pub fn store_network(&self, number: usize) -> &Proxy {
        &self.replicas[number].store
    }

    /// Returns the network between callers and a replica.
    pub fn front_network(&self, number: usize) -> Arc<Proxy> {
        self.current(number).front
    }

    /// Crashes PostgreSQL; `up` is true again as soon as it runs.
    pub async fn crash_postgres(self: &Arc<Self>) {
        self.run_while_down(Postgres::crash).await;
        self.up.send_replace(true);
    }

    /// Restarts PostgreSQL; `up` is true again as soon as all replicas serve.
    pub async fn restart_postgres(self: &Arc<Self>) {
        self.run_while_down(Postgres::restart).await;
        self.all_serve().await;
        self.up.send_replace(true);
    }

    /// Kills the main process of PostgreSQL; `up` is true again as soon as all replicas serve.
    pub async fn kill_postgres(self: &Arc<Self>) {
        let kill = |postgres: &Postgres| {
            postgres.kill();
            postgres.start_again();
        };
        self.run_while_down(kill).await;
        self.all_serve().await;
        self.up.send_replace(true);
    }

    /// Waits until every replica serves.
    pub async fn all_serve(&self) {
        for replica in 0..REPLICAS {
            self.serves(replica).await;
        }
    }

    async fn run_while_down(self: &Arc<Self>, restart: fn(&Postgres)) {
        self.up.send_replace(false);
        let fleet = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || restart(&fleet.postgres));
        done.await.expect("PostgreSQL starts again");
    }

    /// Moves the store's clock ahead.
    pub async fn advance(&self, milliseconds: i64) {
        let between_calls = if milliseconds > MAX_JUMP_DURING_CALLS {
            Some(self.calling.write().await)
        } else {
            None
        };
        self.clock.announce(milliseconds);
        // The write is idempotent.
        while self.clock.advance(self.database.url()).await.is_err() {
            let mut up = self.up.subscribe();
            // The sender is a field of this fleet.
            let _ = up.wait_for(|up| *up).await;
        }
        drop(between_calls);
    }

    /// Waits until `count` more calls have ended.
    pub async fn after_calls(&self, count: u64) {
        let mut calls = self.calls.subscribe();
        let until = *calls.borrow() + count;
        // The sender is a field of this fleet.
        let _ = calls.wait_for(|calls| *calls >= until).await;
    }

    pub fn last_lines(&self) -> String {
        (0..REPLICAS)
            .map(|number| self.current(number).server.last_lines())
            .collect::<Vec<_>>()
            .join("\n")
            + "\n"
            + &self.system_lines.newest()
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
pub struct SystemLines {
    /// Lines about an unavailable or available store.
    pub about_the_store: AtomicU64,
    /// Errors about anything else.
    pub other_errors: AtomicU64,
    /// Newest lines of both kinds, for the message of a failed test.
    newest: Mutex<VecDeque<String>>,
}

impl SystemLines {
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
        if newest.len() == KEPT_LINES {
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
            let (_, rest) = rest
                .split_once(mark)
                .expect("the line has the fields of the design");
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

    /// Returns the codes that a recipient has received, by challenge.
    pub fn codes(&self, recipient: &str) -> Codes {
        let messages = self.of(recipient).into_iter();
        messages
            .map(|message| (message.challenge, message.code))
            .collect()
    }

    /// Waits until a recipient has `count` messages of a challenge; returns false after the
    /// timeout.
    pub async fn arrives(
        &self,
        recipient: &str,
        challenge: &str,
        count: usize,
        timeout: Duration,
    ) -> bool {
        let mut mail = self.0.subscribe();
        let enough = mail.wait_for(|mail| {
            let messages = mail.get(recipient).into_iter().flatten();
            messages
                .filter(|message| message.challenge == challenge)
                .count()
                >= count
        });
        tokio::time::timeout(timeout, enough).await.is_ok()
    }

    /// Drops the data of a recipient after the check of its history.
    pub fn forget(&self, recipient: &str) {
        self.0.send_if_modified(|mail| {
            mail.remove(recipient);
            false
        });
    }
}

/// Bounds of the store's clock, which is the machine's clock and an offset.
#[derive(Default)]
pub struct StoreClock {
    /// Offset by acknowledged writes, and by writes with an unknown outcome.
    ahead: AtomicI64,
    announced: AtomicI64,
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

    /// Announces a jump of the clock, which may happen from now on.
    fn announce(&self, milliseconds: i64) {
        self.announced.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Moves the clock as announced.
    async fn advance(&self, url: &str) -> Result<(), sqlx::Error> {
        let ahead = self.announced.load(Ordering::SeqCst);
        let mut connection = PgConnection::connect(url).await?;
        // The clock also moves while the database is read-only.
        let writable = "SET default_transaction_read_only = off";
        connection.execute(writable).await?;
        sqlx::query("UPDATE test_clock SET ahead = $1")
            .bind(ahead)
            .execute(&mut connection)
            .await?;
        self.ahead.store(ahead, Ordering::SeqCst);
        self.jumps.fetch_add(1, Ordering::SeqCst);
        // The write is committed; an error of the connection has no effect on it.
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
        now + self.announced.load(Ordering::SeqCst) + 1
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
    i64::try_from(age.as_millis()).expect("milliseconds fit")
}
