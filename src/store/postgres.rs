//! PostgreSQL: the store that any number of replicas share.

use std::{collections::HashSet, future::Future, str::FromStr as _, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Change, Clock, RecordStore, Snapshot, StoreError, StoreOptions,
    borrowed::Borrowed,
    connect_parameters::refuse_unknown_parameters,
    migration::up_to_date,
    row::{Row, attempts_column, state_columns},
};
use crate::domain::{RecordKey, Timestamp};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

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
            // A plan made for the number of keys at hand may scan the whole table
            // once that number is large; the generic one uses the primary key.
            .options([("plan_cache_mode", "force_generic_plan")]);
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

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn load_once(&self, keys: &[Vec<u8>]) -> Result<Snapshot, sqlx::Error> {
        load_on(&mut *self.borrow().await?, keys).await
    }
}

impl RecordStore for PostgresStore {
    async fn load(&self, keys: &[RecordKey]) -> Result<Snapshot, StoreError> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.0.to_vec()).collect();
        // After a restart of the database each idle connection fails once.
        let tries = self.pool.options().get_max_connections() + 1;
        let mut result = self.load_once(&keys).await;
        for _ in 1..tries {
            match result {
                Err(sqlx::Error::Io(_)) => result = self.load_once(&keys).await,
                Err(ref error) if is_end_of_session(error) => result = self.load_once(&keys).await,
                _ => break,
            }
        }
        Ok(result?)
    }

    async fn write(&self, changes: &[Change]) -> Result<HashSet<RecordKey>, StoreError> {
        // In one order everywhere, so that batches of two replicas cannot deadlock.
        let mut changes: Vec<&Change> = changes.iter().collect();
        changes.sort_unstable_by_key(|change| change.key);
        let columns = Columns::of(&changes);
        let written = sqlx::query_scalar!(
            r#"
            WITH input AS (
                SELECT *
                FROM UNNEST(
                    $1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[],
                    $7::text[], $8::bytea[], $9::text[], $10::bigint[], $11::bigint[],
                    $12::integer[], $13::bigint[], $14::bigint[], $15::bigint[]
                ) AS input (
                    record_key, expected, version, caller, purpose, challenge, state, sealed,
                    channel, created_at, expires_at, attempts, sent_at, written_at, removable_at
                )
            ),
            updated AS (
                UPDATE otp_record AS record
                SET version = input.version, caller = input.caller, purpose = input.purpose,
                    challenge = input.challenge, state = input.state, sealed = input.sealed,
                    channel = input.channel, created_at = input.created_at,
                    expires_at = input.expires_at, attempts = input.attempts,
                    sent_at = input.sent_at, written_at = input.written_at,
                    removable_at = input.removable_at
                FROM input
                WHERE record.record_key = input.record_key AND record.version = input.expected
                RETURNING record.record_key
            ),
            inserted AS (
                INSERT INTO otp_record (
                    record_key, version, caller, purpose, challenge, state, sealed,
                    channel, created_at, expires_at, attempts, sent_at, written_at, removable_at
                )
                SELECT record_key, version, caller, purpose, challenge, state, sealed,
                       channel, created_at, expires_at, attempts, sent_at, written_at, removable_at
                FROM input
                WHERE expected IS NULL
                ON CONFLICT (record_key) DO NOTHING
                RETURNING record_key
            )
            SELECT record_key AS "record_key!" FROM updated
            UNION ALL
            SELECT record_key FROM inserted
            "#,
            &columns.record_key as &[&[u8]],
            &columns.expected as &[Option<i64>],
            &columns.version,
            &columns.caller as &[&str],
            &columns.purpose as &[&str],
            &columns.challenge as &[&[u8]],
            &columns.state as &[&str],
            &columns.sealed as &[Option<&[u8]>],
            &columns.channel as &[&str],
            &columns.created_at,
            &columns.expires_at,
            &columns.attempts,
            &columns.sent_at,
            &columns.written_at,
            &columns.removable_at,
        )
        .fetch_all(&mut *self.borrow().await?)
        .await?;
        written
            .into_iter()
            .map(|key| {
                let key = key
                    .try_into()
                    .map_err(|_| StoreError::Corrupt("record_key".to_owned()))?;
                Ok(RecordKey(key))
            })
            .collect()
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let sweep = sqlx::query!(
            "DELETE FROM otp_record
             WHERE removable_at <= $1 AND record_key IN (
                 SELECT record_key FROM otp_record WHERE removable_at <= $1
                 ORDER BY record_key LIMIT $2
             )",
            now.milliseconds(),
            i64::from(limit),
        );
        let swept = self
            .in_time(async { Ok(sweep.execute(&mut *self.borrow().await?).await?) })
            .await?;
        Ok(swept.rows_affected())
    }
}

async fn load_on(connection: &mut PgConnection, keys: &[Vec<u8>]) -> Result<Snapshot, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
            SELECT clock.now AS "now!",
                   record_key AS "record_key?", version AS "version?", caller AS "caller?",
                   purpose AS "purpose?", challenge AS "challenge?", state AS "state?", sealed,
                   channel AS "channel?", created_at AS "created_at?", expires_at AS "expires_at?",
                   attempts AS "attempts?", sent_at AS "sent_at?", written_at AS "written_at?"
            FROM otp_clock AS clock
            LEFT JOIN otp_record ON record_key = ANY ($1::bytea[])
            "#,
        keys,
    )
    .fetch_all(connection)
    .await?;

    let now = rows
        .first()
        .map(|row| row.now)
        .ok_or(sqlx::Error::RowNotFound)?;
    let clock = Clock::read_now(Timestamp::from_milliseconds(now));
    let records = rows
        .into_iter()
        // Without a record the join yields the clock alone.
        .filter_map(|row| {
            Some(Row {
                record_key: row.record_key?,
                version: row.version?,
                caller: row.caller?,
                purpose: row.purpose?,
                challenge: row.challenge?,
                state: row.state?,
                sealed: row.sealed,
                channel: row.channel?,
                created_at: row.created_at?,
                expires_at: row.expires_at?,
                attempts: row.attempts?,
                sent_at: row.sent_at?,
                written_at: row.written_at?,
            })
        })
        .map(Row::into_record)
        .collect::<Result<_, _>>()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Snapshot { clock, records })
}

/// Whether the database does what requests need.
async fn sign_of_life(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // What requests do first, about a record that is nobody's.
    let nobody = [vec![0; size_of::<RecordKey>()]];
    load_on(connection, &nobody).await?;
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

/// Whether the server ended the session (SQLSTATE class 57P: shutdown, crash, or
/// an administrator), which says nothing about the next one.
fn is_end_of_session(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code.starts_with("57P"))
}

/// The changes column by column, as `UNNEST` takes them.
#[derive(Default)]
struct Columns<'a> {
    record_key: Vec<&'a [u8]>,
    expected: Vec<Option<i64>>,
    version: Vec<i64>,
    caller: Vec<&'a str>,
    purpose: Vec<&'a str>,
    challenge: Vec<&'a [u8]>,
    state: Vec<&'a str>,
    sealed: Vec<Option<&'a [u8]>>,
    channel: Vec<&'a str>,
    created_at: Vec<i64>,
    expires_at: Vec<i64>,
    attempts: Vec<i32>,
    sent_at: Vec<i64>,
    written_at: Vec<i64>,
    removable_at: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(changes: &[&'a Change]) -> Self {
        let mut columns = Self::default();
        for change in changes {
            let record = &change.record;
            let (state, sealed) = state_columns(&record.challenge.state);
            columns.record_key.push(&change.key.0);
            columns
                .expected
                .push(change.expected.map(|version| version.0));
            columns.version.push(change.version.0);
            columns.caller.push(record.caller.as_str());
            columns.purpose.push(record.purpose.as_str());
            columns.challenge.push(&record.challenge.nonce.0);
            columns.state.push(state);
            columns.sealed.push(sealed);
            columns.channel.push(record.challenge.channel.name());
            columns
                .created_at
                .push(record.challenge.created_at.milliseconds());
            columns
                .expires_at
                .push(record.challenge.expires_at.milliseconds());
            columns
                .attempts
                .push(attempts_column(record.challenge.attempts));
            columns.sent_at.push(record.sent_at.milliseconds());
            columns.written_at.push(record.written_at.milliseconds());
            columns
                .removable_at
                .push(change.removable_at.milliseconds());
        }
        columns
    }
}
