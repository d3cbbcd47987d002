//! PostgreSQL: the store that any number of replicas share.

mod census;
mod columns;
mod load;
mod messages;
mod write;

use std::{future::Future, str::FromStr as _, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Census, Changes, Delivered, RecordStore, Snapshot, StoreError, StoreOptions, Swept,
    VersionedMessage, Written, borrowed::Borrowed, connect_parameters::refuse_unknown_parameters,
    migration::up_to_date,
};
use crate::domain::{LimitKey, RecordKey, Timestamp};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// What every session asks for, so that a statement's plan is the right one whatever the
/// tables held when it was made: all that requests do is to find rows by their keys, and
/// to match them with a batch.
pub const SESSION_OPTIONS: [(&str, &str); 5] = [
    // A plan made for the number of keys at hand may scan the whole table once that
    // number is large. A generic one is made once, and kept.
    ("plan_cache_mode", "force_generic_plan"),
    // One that was made while the table was empty would scan it, and be kept while the
    // table grows.
    ("enable_seqscan", "off"),
    // One that was made while the table had one row would go through the whole batch for
    // each. A hash table of the batch is right for every size.
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    // Compiling takes longer than what is compiled.
    ("jit", "off"),
];

/// What the column full_hour counts in.
const MILLISECONDS_OF_AN_HOUR: i64 = 3_600_000;

/// Records in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    options: PgConnectOptions,
    timeout: Duration,
}

impl PostgresStore {
    /// The store at `url`; connects when it is used.
    ///
    /// # Errors
    /// [`StoreError::Url`] where the URL cannot be read.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        refuse_unknown_parameters(url)?;
        let connect_options = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::Url(format!("cannot be read: {error}")))?
            .application_name("otpd")
            .options(SESSION_OPTIONS);
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.timeout)
            // A ping before each use would double the round trips of a load; a dead
            // connection is noticed by its statement, and a load is tried again.
            .test_before_acquire(false)
            .connect_lazy_with(connect_options.clone());
        Ok(Self {
            pool,
            options: connect_options,
            timeout: options.timeout,
        })
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        // Of replicas that start together one does the work: sqlx takes an advisory
        // lock.
        let mut connection = self.connect().await?;
        up_to_date(&MIGRATOR)
            .run(&mut connection)
            .await
            .map_err(|error| StoreError::Unavailable(format!("migration failed: {error}")))?;
        Ok(connection.close().await?)
    }

    pub(super) async fn hold_to_index_key(&self, ours: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        self.in_time(async {
            let mut connection = self.borrow().await?;
            sqlx::query!(
                "INSERT INTO otp_index_key (fingerprint) VALUES ($1) ON CONFLICT (only_row) DO NOTHING",
                ours.as_slice(),
            )
            .execute(&mut *connection)
            .await?;
            let held = sqlx::query_scalar!("SELECT fingerprint FROM otp_index_key");
            Ok(held.fetch_one(&mut *connection).await?)
        })
        .await
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let asked = async { Ok(sign_of_life(&mut *self.borrow().await?).await?) };
        if self.in_time(asked).await.is_ok() {
            return Ok(());
        }
        // The idle connections are of the same age as the one that failed: requests
        // need not find out one by one.
        while let Some(idle) = self.pool.try_acquire() {
            drop(idle.detach());
        }
        // The pool only says that it waited too long, or that a connection that had
        // died while idle is dead; a connection of its own knows better.
        let mut connection = self.connect().await?;
        self.in_time(async { Ok(sign_of_life(&mut connection).await?) })
            .await
    }

    /// A connection outside of the pool.
    async fn connect(&self) -> Result<PgConnection, StoreError> {
        self.in_time(async { Ok(PgConnection::connect_with(&self.options).await?) })
            .await
    }

    /// A connection of the pool.
    async fn borrow(&self) -> Result<Borrowed, sqlx::Error> {
        let connection = self.pool.acquire().await?;
        Ok(Borrowed::new(connection, self.timeout))
    }

    /// Awaits the database, but not longer than the configured time-out.
    fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        // In a box at once: what connects is large, and every caller would carry it.
        let work = tokio::time::timeout(self.timeout, Box::pin(work));
        let no_answer = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
        async move { work.await.unwrap_or_else(no_answer) }
    }

    pub(super) async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        self.in_time(async { census::take(&mut *self.borrow().await?, now).await })
            .await
    }

    pub(super) async fn deliveries(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<Delivered>, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        self.in_time(async { census::deliveries(&mut *self.borrow().await?, &records).await })
            .await
    }

    /// All connections, and the idle ones.
    pub(super) fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn load_once(
        &self,
        records: &[&[u8]],
        limits: &[&[u8]],
    ) -> Result<Snapshot, sqlx::Error> {
        load::load(&mut *self.borrow().await?, records, limits).await
    }
}

impl RecordStore for PostgresStore {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<Snapshot, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        let limits: Vec<&[u8]> = limits.iter().map(|key| key.0.as_slice()).collect();
        // After a restart of the database each idle connection fails once.
        let tries = self.pool.options().get_max_connections() + 1;
        let mut result = self.load_once(&records, &limits).await;
        for _ in 1..tries {
            match &result {
                Err(error) if is_end_of_session(error) => {
                    result = self.load_once(&records, &limits).await;
                }
                _ => break,
            }
        }
        Ok(result?)
    }

    async fn write(&self, changes: &Changes) -> Result<Written, StoreError> {
        let connection = &mut *self.borrow().await?;
        if changes.limits.is_empty() && changes.records.is_empty() {
            messages::replace(connection, &changes.messages).await
        } else {
            write::write(connection, changes).await
        }
    }

    async fn load_messages(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<VersionedMessage>, StoreError> {
        let records: Vec<&[u8]> = records.iter().map(|key| key.0.as_slice()).collect();
        messages::load(&mut *self.borrow().await?, &records).await
    }

    async fn due_messages(&self, limit: u32) -> Result<Vec<VersionedMessage>, StoreError> {
        self.in_time(async { messages::due(&mut *self.borrow().await?, limit).await })
            .await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<Swept, StoreError> {
        self.in_time(async {
            // Oldest first, which is the order of an index; and deleted in the order of the
            // keys, which is that of whoever writes. An array, because a join would be
            // planned once, for tables as small as they were then.
            let mut connection = self.borrow().await?;
            let records = sqlx::query!(
                "DELETE FROM otp_record
                 WHERE removable_at <= $1 AND record_key = ANY (ARRAY (
                     SELECT record_key FROM otp_record WHERE removable_at <= $1
                     ORDER BY removable_at LIMIT $2
                 ))",
                now.milliseconds(),
                i64::from(limit),
            );
            let records = records.execute(&mut *connection).await?;
            let limits = sqlx::query!(
                "DELETE FROM otp_limit
                 WHERE full_hour < $1 AND limit_key = ANY (ARRAY (
                     SELECT limit_key FROM otp_limit WHERE full_hour < $1
                     ORDER BY full_hour LIMIT $2
                 ))",
                now.milliseconds() / MILLISECONDS_OF_AN_HOUR,
                i64::from(limit),
            );
            let limits = limits.execute(&mut *connection).await?;
            let messages = sqlx::query!(
                "DELETE FROM otp_message
                 WHERE removable_at <= $1 AND due_at IS NULL AND record_key = ANY (ARRAY (
                     SELECT record_key FROM otp_message
                     WHERE removable_at <= $1 AND due_at IS NULL
                     ORDER BY removable_at LIMIT $2
                 ))",
                now.milliseconds(),
                i64::from(limit),
            );
            let messages = messages.execute(&mut *connection).await?;
            Ok(Swept {
                records: records.rows_affected(),
                limits: limits.rows_affected(),
                messages: messages.rows_affected(),
            })
        })
        .await
    }
}

/// Whether the database does what requests need.
async fn sign_of_life(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // What requests do first, about a record that is nobody's.
    let nobody: [&[u8]; 1] = [&[0; size_of::<RecordKey>()]];
    load::load(connection, &nobody, &[]).await?;
    // What they then write is refused by a standby, and by a server that its
    // operator, or a full disk, made read-only.
    let read_only: String = sqlx::query_scalar("SHOW transaction_read_only")
        .fetch_one(connection)
        .await?;
    if read_only == "off" {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(
            "the database is read-only".to_owned(),
        ))
    }
}

/// Whether the connection or the session behind it had ended (SQLSTATE class 57P:
/// shutdown, crash, or an administrator), which says nothing about the next one.
fn is_end_of_session(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    matches!(error, sqlx::Error::Io(_)) || code.is_some_and(|code| code.starts_with("57P"))
}

/// A key of so many bytes, as the schema has it.
fn fixed<const BYTES: usize>(key: Vec<u8>, column: &str) -> Result<[u8; BYTES], sqlx::Error> {
    let corrupt = |_| sqlx::Error::Decode(StoreError::Corrupt(column.to_owned()).into());
    key.try_into().map_err(corrupt)
}
