//! PostgreSQL: the store that any number of replicas share.

mod columns;
mod write;

use std::{collections::HashMap, str::FromStr as _, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Change, Clock, RecordStore, Snapshot, StoreError, StoreOptions, Version, VersionedLimit,
    Written, migration::up_to_date, row::Row,
};
use crate::domain::{LimitKey, RecordKey, Timestamp};

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
        sqlx::query!(
            "INSERT INTO otp_index_key (fingerprint) VALUES ($1) ON CONFLICT (only_row) DO NOTHING",
            ours.as_slice(),
        )
        .execute(&self.pool)
        .await?;
        Ok(sqlx::query_scalar!("SELECT fingerprint FROM otp_index_key")
            .fetch_one(&self.pool)
            .await?)
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let asked = sqlx::query_scalar!("SELECT now FROM otp_clock")
            .fetch_one(&self.pool)
            .await;
        if asked.is_ok() {
            return Ok(());
        }
        // The pool only says that it waited too long, or that a connection that had
        // died while idle is dead; a connection of its own knows better.
        match self.connect().await {
            Ok(mut connection) => Ok(connection.ping().await?),
            Err(cause) => Err(cause),
        }
    }

    /// A connection outside of the pool.
    async fn connect(&self) -> Result<PgConnection, StoreError> {
        let connect = PgConnection::connect_with(&self.options);
        match tokio::time::timeout(self.timeout, connect).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(StoreError::Unavailable(
                "no answer to a new connection in time".to_owned(),
            )),
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn load_once(
        &self,
        record_keys: &[&[u8]],
        limit_keys: &[&[u8]],
    ) -> Result<Snapshot, sqlx::Error> {
        let rows = sqlx::query!(
            r#"
            WITH clock AS MATERIALIZED (SELECT now FROM otp_clock)
            SELECT now AS "now!",
                   record_key AS "record_key?", version AS "version?", caller AS "caller?",
                   purpose AS "purpose?", challenge AS "challenge?", state AS "state?",
                   sealed AS "sealed?", channel AS "channel?", created_at AS "created_at?",
                   expires_at AS "expires_at?", attempts AS "attempts?", sent_at AS "sent_at?",
                   failures AS "failures?", failed_at AS "failed_at?",
                   hour_full_at AS "hour_full_at?", day_full_at AS "day_full_at?",
                   memory AS "memory?", written_at AS "written_at?",
                   NULL::bytea AS "limit_key?", NULL::bigint AS "full_at?"
            FROM clock
            LEFT JOIN otp_record ON record_key = ANY ($1::bytea[])
            UNION ALL
            SELECT now, NULL, version, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                   NULL, NULL, NULL, NULL, NULL, NULL, limit_key, full_at
            FROM clock
            JOIN otp_limit ON limit_key = ANY ($2::bytea[])
            "#,
            record_keys as &[&[u8]],
            limit_keys as &[&[u8]],
        )
        .fetch_all(&self.pool)
        .await?;

        let now = rows
            .first()
            .map(|row| row.now)
            .ok_or(sqlx::Error::RowNotFound)?;
        let clock = Clock::read_now(Timestamp::from_milliseconds(now));
        let (mut records, mut limits) = (HashMap::new(), HashMap::new());
        for row in rows {
            if let (Some(key), Some(version), Some(full_at)) =
                (row.limit_key, row.version, row.full_at)
            {
                let full_at = Timestamp::from_milliseconds(full_at);
                let limit = VersionedLimit {
                    version: Version(version),
                    full_at,
                };
                limits.insert(LimitKey(fixed(key, "limit_key")?), limit);
                continue;
            }
            // Without a record the join yields the clock alone.
            let columns = || {
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
                    failures: row.failures?,
                    failed_at: row.failed_at?,
                    hour_full_at: row.hour_full_at?,
                    day_full_at: row.day_full_at?,
                    memory: row.memory?,
                    written_at: row.written_at?,
                })
            };
            if let Some(columns) = columns() {
                let (key, record) = columns
                    .into_record()
                    .map_err(|error| sqlx::Error::Decode(error.into()))?;
                records.insert(key, record);
            }
        }
        Ok(Snapshot {
            clock,
            records,
            limits,
        })
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

    async fn write(&self, changes: &[Change]) -> Result<Written, StoreError> {
        write::write(&self.pool, changes).await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let records = sqlx::query!(
            "DELETE FROM otp_record
             WHERE removable_at <= $1 AND record_key IN (
                 SELECT record_key FROM otp_record WHERE removable_at <= $1
                 ORDER BY record_key LIMIT $2
             )",
            now.milliseconds(),
            i64::from(limit),
        )
        .execute(&self.pool)
        .await?;
        let limits = sqlx::query!(
            "DELETE FROM otp_limit
             WHERE full_at <= $1 AND limit_key IN (
                 SELECT limit_key FROM otp_limit WHERE full_at <= $1 ORDER BY limit_key LIMIT $2
             )",
            now.milliseconds(),
            i64::from(limit),
        )
        .execute(&self.pool)
        .await?;
        Ok(records.rows_affected() + limits.rows_affected())
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

/// A key of 32 bytes, as the schema has it.
fn fixed(key: Vec<u8>, column: &str) -> Result<[u8; 32], sqlx::Error> {
    let corrupt = |_| sqlx::Error::Decode(StoreError::Corrupt(column.to_owned()).into());
    key.try_into().map_err(corrupt)
}
