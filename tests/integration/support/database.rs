//! A database for one test, with control of its clock.

use std::{path::PathBuf, str::FromStr as _, sync::Mutex, time::Duration};

use otpd::key_file;
use rand::Rng as _;
use sqlx::{Connection as _, Error, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::PgBouncer;

/// An empty database of its own for one test, with keys for its replicas.
pub struct Database {
    directory: TempDir,
    url: String,
    /// Pooler between replicas and the database, if `TEST_POOL_MODE` names its mode.
    pooler: Option<Box<Mutex<PgBouncer>>>,
}

/// Store of a test; most tests run on each.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Postgres,
    Sqlite,
}

impl Database {
    pub async fn new(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => Self::postgres().await,
            Kind::Sqlite => Self::sqlite(),
        }
    }

    /// A new database in the PostgreSQL that `./check` starts.
    pub async fn postgres() -> Self {
        Self::in_server(&server_url()).await
    }

    /// A new database in the PostgreSQL of that URL.
    pub async fn in_server(server: &str) -> Self {
        let name = format!("test_{:016x}", otpd::keys::os_rng().next_u64());
        let mut connection = PgConnection::connect(server)
            .await
            .expect("PostgreSQL runs");
        let create = format!("CREATE DATABASE {name}");
        connection
            .execute(sqlx::AssertSqlSafe(create))
            .await
            .expect("a superuser may");
        let (base, _) = server.rsplit_once('/').expect("the URL names a database");
        let mut database = Self::with_keys(|_| format!("{base}/{name}"));
        if let Ok(mode) = std::env::var("TEST_POOL_MODE") {
            database.pooler = Some(Box::new(Mutex::new(PgBouncer::start(&database.url, &mode))));
        }
        database
    }

    /// A file that does not exist yet.
    pub fn sqlite() -> Self {
        Self::with_keys(|directory| {
            format!("sqlite://{}", directory.path().join("otpd.db").display())
        })
    }

    fn with_keys(url: impl FnOnce(&TempDir) -> String) -> Self {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        key_file::create(&directory.path().join("otpd.keys")).expect("a new directory takes files");
        Self {
            url: url(&directory),
            directory,
            pooler: None,
        }
    }

    /// URL of the database itself.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// URL that replicas are given: of the pooler, if there is one.
    pub fn replica_url(&self) -> String {
        match &self.pooler {
            None => self.url.clone(),
            Some(pooler) => pooler.lock().expect("lock is not poisoned").url(&self.url),
        }
    }

    /// Whether a pooler is between replicas and the database.
    #[allow(dead_code, reason = "each test program uses a part of it")]
    pub fn is_pooled(&self) -> bool {
        self.pooler.is_some()
    }

    /// Restarts the pooler, if there is one.
    #[allow(dead_code, reason = "each test program uses a part of it")]
    pub fn restart_pooler(&self) {
        if let Some(pooler) = &self.pooler {
            pooler.lock().expect("lock is not poisoned").restart();
        }
    }

    /// Directory of this test's files, removed at its end.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub fn keys_file(&self) -> PathBuf {
        self.directory.path().join("otpd.keys")
    }

    /// Puts the store's clock so far ahead of the machine's, for all replicas at
    /// once, from one statement to the next.
    pub async fn advance_clock(&self, by: Duration) {
        self.set_clock_offset(i64::try_from(by.as_millis()).expect("a sensible duration"))
            .await;
    }

    /// Like [`advance_clock`](Self::advance_clock), backwards too: milliseconds.
    pub async fn set_clock_offset(&self, milliseconds: i64) {
        let running = if self.url.starts_with("sqlite") {
            "CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER)"
        } else {
            "floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint"
        };
        self.replace_clock(&format!("{running} + {milliseconds}"))
            .await;
    }

    /// Stops the store's clock at so many milliseconds since the Unix epoch.
    pub async fn stop_clock_at(&self, milliseconds: i64) {
        self.replace_clock(&milliseconds.to_string()).await;
    }

    async fn replace_clock(&self, expression: &str) {
        if self.url.starts_with("sqlite") {
            let clock =
                format!("DROP VIEW otp_clock; CREATE VIEW otp_clock AS SELECT {expression} AS now");
            let mut connection = self.sqlite_connection().await;
            let mut transaction = connection
                .begin_with("BEGIN IMMEDIATE")
                .await
                .expect("a turn");
            transaction
                .execute(sqlx::AssertSqlSafe(clock))
                .await
                .expect("the view is replaced");
            transaction.commit().await.expect("the view is replaced");
        } else {
            let clock =
                format!("CREATE OR REPLACE VIEW otp_clock AS SELECT ({expression})::bigint AS now");
            let mut connection = self.postgres_connection().await;
            connection
                .execute(sqlx::AssertSqlSafe(clock))
                .await
                .expect("the view is replaced");
        }
    }

    /// Returns the time of the store's clock, in milliseconds since the Unix epoch.
    pub async fn now(&self) -> i64 {
        self.number("SELECT now FROM otp_clock").await
    }

    /// Returns one number from the database.
    pub async fn number(&self, query: &'static str) -> i64 {
        if self.url.starts_with("sqlite") {
            let mut connection = self.sqlite_connection().await;
            sqlx::query_scalar(query)
                .fetch_one(&mut connection)
                .await
                .expect("one number")
        } else {
            let mut connection = self.postgres_connection().await;
            sqlx::query_scalar(query)
                .fetch_one(&mut connection)
                .await
                .expect("one number")
        }
    }

    /// Runs statements.
    pub async fn execute(&self, statements: &str) {
        let statements = sqlx::AssertSqlSafe(statements.to_owned());
        let done = if self.url.starts_with("sqlite") {
            let mut connection = self.sqlite_connection().await;
            connection.execute(statements).await.map(drop)
        } else {
            let mut connection = self.postgres_connection().await;
            connection.execute(statements).await.map(drop)
        };
        done.expect("the database takes them");
    }

    /// Columns of a message with values that otpd cannot read, as a newer version or a
    /// broken disk may leave behind.
    pub fn unreadable_columns(&self) -> &'static [(&'static str, &'static str)] {
        if self.url.starts_with("sqlite") {
            &[
                ("channel", "'smoke'"),
                ("history", "x'ff'"),
                ("provider", "CAST(x'ff' AS TEXT)"),
            ]
        } else {
            &[("channel", "'smoke'"), ("history", r"'\xff'")]
        }
    }

    /// Returns a column of a query, row by row; PostgreSQL only.
    pub async fn texts(&self, query: &'static str) -> Vec<String> {
        let mut connection = self.postgres_connection().await;
        sqlx::query_scalar(query)
            .fetch_all(&mut connection)
            .await
            .expect("a column of texts")
    }

    /// Locks the records against reads until the connection is closed.
    pub async fn lock_records(&self) -> PgConnection {
        let mut connection = self.postgres_connection().await;
        connection
            .execute("BEGIN; LOCK TABLE otp_record IN ACCESS EXCLUSIVE MODE;")
            .await
            .expect("the schema is up to date");
        connection
    }

    /// Blocks all writers of records until the connection is closed.
    pub async fn lock_writes(&self) -> PgConnection {
        let mut connection = self.postgres_connection().await;
        connection
            .execute("BEGIN; LOCK TABLE otp_record IN SHARE MODE;")
            .await
            .expect("the schema is up to date");
        connection
    }

    /// Waits until a connection is held up by [`lock_writes`](Self::lock_writes), and
    /// returns the port that it comes from.
    pub async fn held_up_writer(&self) -> u16 {
        let mut connection = self.postgres_connection().await;
        loop {
            let port: Option<i32> = sqlx::query_scalar(
                "SELECT client_port FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_optional(&mut connection)
            .await
            .expect("a superuser sees them all");
            if let Some(port) = port {
                return u16::try_from(port).expect("it is a port");
            }
        }
    }

    /// Waits until a number of the database is `wanted`.
    pub async fn wait_for_number(&self, query: &'static str, wanted: i64) {
        while self.number(query).await != wanted {}
    }

    async fn postgres_connection(&self) -> PgConnection {
        const TOO_MANY_CONNECTIONS: &str = "53300";

        loop {
            match PgConnection::connect(&self.url).await {
                Ok(connection) => return connection,
                // otpd may use all of them for a moment if there are few.
                Err(Error::Database(error))
                    if error.code().as_deref() == Some(TOO_MANY_CONNECTIONS) => {}
                Err(error) => panic!("the database was made: {error}"),
            }
        }
    }

    /// Locks the SQLite file against writes until the connection is closed.
    pub async fn lock_sqlite(&self) -> SqliteConnection {
        let mut connection = self.sqlite_connection().await;
        connection.execute("BEGIN IMMEDIATE").await.expect("a turn");
        connection
    }

    async fn sqlite_connection(&self) -> SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::from_str(&self.url)
            .expect("the URL is ours")
            .busy_timeout(Duration::from_secs(10));
        SqliteConnection::connect_with(&options)
            .await
            .expect("the database was made")
    }
}

fn server_url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect(
        "TEST_POSTGRES_URL names a PostgreSQL server; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`",
    )
}
