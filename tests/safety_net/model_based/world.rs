//! Replicas on a database with a simulated clock.

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use otpd::keys::{generate_receipt_entry, generate_sealing_entry, os_rng};
use otpd_model::{Call, Codes, HOUR, Observed, Settings, TimeRange};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tokio::{sync::watch, time::Instant};
use tonic::transport::Channel;

use crate::{
    server::Server,
    settings, support,
    support::{Database, Kind},
};
/// Initial time: long after any wall clock that a replica could read.
const START: i64 = 4_000_000_000_000;
const REPLICAS: usize = 2;

/// Movements of the clock in a world. No reply depends on a purged record, but only if the
/// clock does not step back. So a world has either purges or steps back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockMode {
    /// Forward only; expired records are purged before the next call.
    Forward,
    /// In both directions; nothing is purged.
    StepsBack,
}

/// Replicas, their database and its clock.
pub struct World {
    pub settings: Settings,
    pub clock_mode: ClockMode,
    database: Database,
    clock: Clock,
    now: i64,
    replicas: Vec<Server>,
    keys: Rotation,
    pub rotations: u64,
    /// Codes in the logs, by challenge.
    delivered: watch::Sender<Codes>,
}

enum Clock {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// Progress of a rotation of the sealing key: each replica in turn gets the new key beside the
/// old one, then before it, then alone.
struct Rotation {
    index: String,
    /// Key of receipts.
    receipt: String,
    old: String,
    new: String,
    number: u8,
    step: usize,
}

impl World {
    pub async fn start(kind: Kind, clock_mode: ClockMode) -> Self {
        let database = Database::new(kind).await;
        let settings = settings::settings(false);
        settings::write(&settings, &config_file(&database));
        let keys = Rotation::of(&database);
        std::fs::write(database.keys_file(), keys.first_ring()).expect("the file is writable");
        let delivered = watch::Sender::new(Codes::new());
        let first = serve(&database, clock_mode, &delivered);
        first.serves().await;
        let clock = Clock::freeze(&database).await;
        let second = serve(&database, clock_mode, &delivered);
        second.serves().await;
        Self {
            settings,
            clock_mode,
            database,
            clock,
            now: START,
            replicas: vec![first, second],
            keys,
            rotations: 0,
            delivered,
        }
    }

    /// Returns the code of a challenge, once it has been delivered.
    pub async fn delivered_code(&self, challenge: &str) -> String {
        let mut delivered = self.delivered.subscribe();
        let codes = delivered.wait_for(|codes| codes.contains_key(challenge));
        codes.await.expect("the sender is kept")[challenge].clone()
    }

    pub const fn now(&self) -> i64 {
        self.now
    }

    pub async fn set_clock(&mut self, now: i64) {
        let forward = now - self.now;
        self.now = now;
        self.clock.set(now).await;
        // Rows that can be purged by now are purged before the call.
        while self.clock_mode == ClockMode::Forward
            && forward > HOUR
            && self.clock.has_purgeable(now).await
        {}
    }

    /// Makes a call on one replica; returns the reply and the time range of its decision.
    pub async fn call(&mut self, call: &Call, replica: u8) -> (Observed, TimeRange) {
        let number = usize::from(replica);
        let channel: Channel = self.replicas[number % REPLICAS].channel();
        let start = Instant::now();
        let observed =
            super::grpc_adapter::make(channel, &self.settings, call, number / REPLICAS, |_| ())
                .await;
        let took = i64::try_from(start.elapsed().as_millis()).expect("a short while");
        let observed = observed.unwrap_or_else(|status| {
            let log = self.replicas[number % REPLICAS].last_lines();
            panic!("{call:?} failed: {status}\n{log}")
        });
        // From its load to its decision, a replica advances the clock by itself.
        let now = TimeRange {
            earliest: self.now,
            latest: self.now + took,
        };
        if took > 0 {
            // Times that were written then must not lie ahead of the next call.
            self.set_clock(self.now + took).await;
        }
        (observed, now)
    }

    /// Restarts a replica with the next stage of a rotation.
    pub async fn rotate(&mut self) {
        self.rotations += 1;
        let stage = self.keys.step / REPLICAS;
        let replica = self.keys.step % REPLICAS;
        if stage == 2 && replica == 0 {
            // The old key is removed after no reply depends on it any more.
            self.set_clock(self.now + 2 * HOUR).await;
        }
        std::fs::write(self.database.keys_file(), self.keys.ring(stage))
            .expect("the file is writable");
        let server = serve(&self.database, self.clock_mode, &self.delivered);
        server.serves().await;
        std::mem::replace(&mut self.replicas[replica], server).stop();
        self.keys.step += 1;
        if self.keys.step == 3 * REPLICAS {
            self.keys.next();
        }
    }
}

fn config_file(database: &Database) -> PathBuf {
    database.directory().join("otpd.toml")
}

fn serve(database: &Database, clock_mode: ClockMode, delivered: &watch::Sender<Codes>) -> Server {
    let purge_interval = match clock_mode {
        ClockMode::Forward => "20ms",
        ClockMode::StepsBack => "1day",
    };
    let mut command = support::otpd();
    command
        .current_dir(database.directory())
        .env("DATABASE_URL", database.url())
        .env("OTPD_CONFIG", config_file(database))
        .env("OTPD_KEYS_FILE", database.keys_file())
        .env("OTPD_LISTEN", "127.0.0.1:0")
        .env("OTPD_SHUTDOWN_DELAY", "0s")
        .env("OTPD_STORE__TIMEOUT", "30s")
        .env("OTPD_STORE__PURGE_INTERVAL", purge_interval);
    let delivered = delivered.clone();
    Server::start(&mut command, move |line| {
        if let Some((code, challenge)) = delivered_code(line) {
            delivered.send_modify(|codes| {
                codes.insert(challenge.to_owned(), code.to_owned());
            });
        }
    })
}

/// Returns the code and the challenge in a line of the log provider.
fn delivered_code(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("[OTP] Generated OTP: ")?;
    let (code, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once("challenge_id=")?;
    Some((code, rest.split(' ').next()?))
}

impl Clock {
    /// Replaces the store's clock by a table.
    async fn freeze(database: &Database) -> Self {
        const TABLE: &str = "CREATE TABLE test_clock (now bigint NOT NULL)";
        let insert = format!("INSERT INTO test_clock VALUES ({START})");
        let insert = sqlx::AssertSqlSafe(insert);
        if database.url().starts_with("sqlite") {
            let options = sqlx::sqlite::SqliteConnectOptions::from_str(database.url())
                .expect("the test made the URL")
                .busy_timeout(Duration::from_secs(30));
            let mut connection = SqliteConnection::connect_with(&options)
                .await
                .expect("the database exists");
            connection.execute(TABLE).await.expect("a new table");
            connection.execute(insert).await.expect("a row");
            let view = "BEGIN IMMEDIATE; DROP VIEW otp_clock;
                 CREATE VIEW otp_clock AS SELECT now FROM test_clock; COMMIT;";
            connection
                .execute(view)
                .await
                .expect("the view is replaced");
            Self::Sqlite(connection)
        } else {
            let mut connection = PgConnection::connect(database.url())
                .await
                .expect("the database exists");
            connection.execute(TABLE).await.expect("a new table");
            connection.execute(insert).await.expect("a row");
            let view = "CREATE OR REPLACE VIEW otp_clock AS SELECT now FROM test_clock";
            connection
                .execute(view)
                .await
                .expect("the view is replaced");
            Self::Postgres(connection)
        }
    }

    /// Returns true if the database has a record that may be purged at `now`.
    async fn has_purgeable(&mut self, now: i64) -> bool {
        const QUERY: &str = "SELECT COUNT(*) FROM otp_record WHERE removable_at <= $1";
        let count: Result<i64, _> = match self {
            Self::Postgres(connection) => {
                sqlx::query_scalar(QUERY)
                    .bind(now)
                    .fetch_one(connection)
                    .await
            }
            Self::Sqlite(connection) => {
                sqlx::query_scalar(QUERY)
                    .bind(now)
                    .fetch_one(connection)
                    .await
            }
        };
        count.expect("the records are counted") > 0
    }

    async fn set(&mut self, now: i64) {
        const UPDATE: &str = "UPDATE test_clock SET now = $1";
        let done = match self {
            Self::Postgres(connection) => {
                let query = sqlx::query(UPDATE).bind(now).execute(connection).await;
                query.map(drop)
            }
            Self::Sqlite(connection) => {
                let query = sqlx::query(UPDATE).bind(now).execute(connection).await;
                query.map(drop)
            }
        };
        done.expect("the clock is set");
    }
}

impl Rotation {
    fn of(database: &Database) -> Self {
        let ring = std::fs::read_to_string(database.keys_file()).expect("the keys were made");
        let line = |name: &str| {
            let line = ring.lines().find(|line| line.starts_with(name));
            line.expect("a new ring has both keys").to_owned()
        };
        let mut rotation = Self {
            index: line("index"),
            receipt: generate_receipt_entry(1, None)
                .expect("the system has randomness")
                .to_string(),
            old: String::new(),
            new: line("seal"),
            number: 1,
            step: 0,
        };
        rotation.next();
        rotation
    }

    /// Starts another rotation.
    fn next(&mut self) {
        self.number = self.number % 200 + 1;
        self.old = std::mem::replace(
            &mut self.new,
            generate_sealing_entry(self.number, &mut os_rng()).to_string(),
        );
        self.step = 0;
    }

    /// Returns the ring of the first replicas, before the first stage.
    fn first_ring(&self) -> String {
        [&self.index, "\n", &self.old, "\n", &self.receipt].concat()
    }

    fn ring(&self, stage: usize) -> String {
        let seals: &[&String] = match stage {
            0 => &[&self.old, &self.new],
            1 => &[&self.new, &self.old],
            _ => &[&self.new],
        };
        let lines: Vec<&str> = [&self.index, &self.receipt]
            .into_iter()
            .chain(seals.iter().copied())
            .map(|line| line.trim_end())
            .collect();
        lines.join("\n")
    }
}
