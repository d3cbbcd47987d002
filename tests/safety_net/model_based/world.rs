//! Replicas on a database with a simulated clock.

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use otpd::keys::{generate_sealing_entry, os_rng};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::{
    model::{Call, HOUR, Moment, Settings, Told},
    server::Server,
    settings, support,
    support::{Database, Kind},
};

/// Where the clock stands at first: long after any wall clock that a replica could read.
const START: i64 = 4_000_000_000_000;
const REPLICAS: usize = 2;

/// What may happen in a world. A purged record is one that no answer depends on, but only
/// as long as the clock does not step back; so a world has one or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upset {
    Purges,
    StepsBack,
}

/// Replicas, their database and its clock.
pub struct World {
    pub settings: Settings,
    pub upset: Upset,
    database: Database,
    clock: Clock,
    now: i64,
    replicas: Vec<Server>,
    keys: Rotation,
    pub rotations: u64,
}

enum Clock {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// How far a rotation of the sealing key is: each replica in turn is given the new key
/// beside the old one, then before it, then alone.
struct Rotation {
    index: String,
    old: String,
    new: String,
    number: u8,
    step: usize,
}

impl World {
    pub async fn start(kind: Kind, upset: Upset) -> Self {
        let database = Database::new(kind).await;
        let settings = settings::settings(false);
        settings::write(&settings, &config_file(&database));
        let keys = Rotation::of(&database);
        let first = serve(&database, upset);
        first.serves().await;
        let clock = Clock::freeze(&database).await;
        let second = serve(&database, upset);
        second.serves().await;
        Self {
            settings,
            upset,
            database,
            clock,
            now: START,
            replicas: vec![first, second],
            keys,
            rotations: 0,
        }
    }

    pub const fn now(&self) -> i64 {
        self.now
    }

    pub async fn set_clock(&mut self, now: i64) {
        let forward = now - self.now;
        self.now = now;
        self.clock.set(now).await;
        // Rows that can be purged by now are purged before the call.
        while self.upset == Upset::Purges && forward > HOUR && self.clock.removable(now).await {}
    }

    /// Makes a call on one replica; returns the reply and the time range of its decision.
    pub async fn call(&mut self, call: &Call, replica: u8) -> (Told, Moment) {
        let number = usize::from(replica);
        let channel: Channel = self.replicas[number % REPLICAS].channel();
        let start = Instant::now();
        let told =
            super::grpc_adapter::make(channel, &self.settings, call, number / REPLICAS, |_| ())
                .await;
        let took = i64::try_from(start.elapsed().as_millis()).expect("a short while");
        let told = told.unwrap_or_else(|status| {
            let log = self.replicas[number % REPLICAS].last_lines();
            panic!("{call:?} failed: {status}\n{log}")
        });
        // A replica carries the clock on by itself from its load to its decision.
        let now = Moment {
            earliest: self.now,
            latest: self.now + took,
        };
        if took > 0 {
            // Times written then must not be ahead of the next call.
            self.set_clock(self.now + took).await;
        }
        (told, now)
    }

    /// Restarts a replica with the next stage of a rotation.
    pub async fn rotate(&mut self) {
        self.rotations += 1;
        let stage = self.keys.step / REPLICAS;
        let replica = self.keys.step % REPLICAS;
        if stage == 2 && replica == 0 {
            // The old key is removed when no answer depends on it any more.
            self.set_clock(self.now + 2 * HOUR).await;
        }
        std::fs::write(self.database.keys_file(), self.keys.ring(stage)).expect("the file is ours");
        let server = serve(&self.database, self.upset);
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

fn serve(database: &Database, upset: Upset) -> Server {
    let purge_interval = match upset {
        Upset::Purges => "20ms",
        Upset::StepsBack => "1day",
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
    Server::start(&mut command, |_| ())
}

impl Clock {
    /// Puts a table in the place of the store's clock.
    async fn freeze(database: &Database) -> Self {
        const TABLE: &str = "CREATE TABLE test_clock (now bigint NOT NULL)";
        let insert = format!("INSERT INTO test_clock VALUES ({START})");
        let insert = sqlx::AssertSqlSafe(insert);
        if database.url().starts_with("sqlite") {
            let options = sqlx::sqlite::SqliteConnectOptions::from_str(database.url())
                .expect("the URL is ours")
                .busy_timeout(Duration::from_secs(30));
            let mut connection = SqliteConnection::connect_with(&options)
                .await
                .expect("the database was made");
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
                .expect("the database was made");
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

    /// Whether the database still holds a record that may be purged at `now`.
    async fn removable(&mut self, now: i64) -> bool {
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
            old: String::new(),
            new: line("seal"),
            number: 1,
            step: 0,
        };
        rotation.next();
        rotation
    }

    /// Begins another rotation.
    fn next(&mut self) {
        self.number = self.number % 200 + 1;
        self.old = std::mem::replace(
            &mut self.new,
            generate_sealing_entry(self.number, &mut os_rng()).to_string(),
        );
        self.step = 0;
    }

    fn ring(&self, stage: usize) -> String {
        let seals: &[&String] = match stage {
            0 => &[&self.old, &self.new],
            1 => &[&self.new, &self.old],
            _ => &[&self.new],
        };
        let lines: Vec<&str> = std::iter::once(&self.index)
            .chain(seals.iter().copied())
            .map(|line| line.trim_end())
            .collect();
        lines.join("\n")
    }
}
