//! SQLite: the store that needs nothing else, for one machine.

mod census;
mod messages;
mod url;

use std::{
    fs::File,
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sqlx::{
    Connection as _, FromRow as _, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrator,
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};

use tokio::time::Instant;

use super::{
    DeliveredMessage, ExpectedLimit, FoundMessage, LaneCursor, LimitWrite, LoadedState, PurgeStats,
    RecordStore, RecordWrite, RowVersion, StoreClock, StoreError, StoreOptions, StoreStats,
    UNENDED_KEPT, VersionedLimit, WriteBatch, WriteResult,
    message_row::key_bytes,
    migration::migrator,
    record_row::{RecordRow, count_column, memory_column, record_state_columns},
    waiting::with_notice,
};
use url::DatabaseFile;

use crate::log_targets::STATE_CHANGE;
use otpd_rules::{CallerName, LimitKey, RecordKey, Timestamp};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// Readers beside the one writer that SQLite allows.
const MAX_CONNECTIONS: u32 = 4;

/// Mode of the files: readable and writable by the owner alone. SQLite gives its journals
/// the mode of the database.
const MODE: u32 = 0o600;
/// Bits of a mode that let other users in.
const OTHER_USERS: u32 = 0o007;

/// Records in an SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    options: SqliteConnectOptions,
    file: DatabaseFile,
}

impl SqliteStore {
    /// The store in the file that `url` names; opens it when it is used.
    ///
    /// # Errors
    /// [`StoreError::Url`] where the URL cannot be read or names no file.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let file = url::parse(url)?;
        let connect_options = SqliteConnectOptions::new()
            .filename(&file.path)
            // The migration creates the file, with the right mode.
            .create_if_missing(false)
            .busy_timeout(options.timeout)
            // A commit is on the disk before it is acknowledged.
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(options.timeout)
            .test_before_acquire(false)
            .connect_lazy_with(connect_options.clone());
        Ok(Self {
            pool,
            options: connect_options,
            file,
        })
    }

    /// Returns the path of the database's file.
    ///
    /// # Errors
    /// [`StoreError::Url`] if the URL cannot be read or names no file.
    pub fn path(url: &str) -> Result<PathBuf, StoreError> {
        Ok(url::parse(url)?.path)
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let path = &self.file.path;
        // SQLite has no advisory lock, and two connections that create one file, or
        // change its journal, at once fail: a lock on a file beside it keeps the
        // processes apart.
        let waits = || {
            tracing::warn!(
                target: STATE_CHANGE,
                file = %path.display(),
                "[OTP] Waiting for another process that migrates the SQLite file"
            );
        };
        let lock = with_notice(waits, lock_beside(path)).await?;
        if !self.file.must_exist {
            create(path)?;
        }
        let waits = || {
            tracing::warn!(
                target: STATE_CHANGE,
                file = %path.display(),
                "[OTP] Migration waits for a lock of the SQLite file"
            );
        };
        with_notice(waits, async {
            let options = self.options.clone().journal_mode(SqliteJournalMode::Wal);
            let mut connection = SqliteConnection::connect_with(&options).await?;
            migrator(&MIGRATOR)
                .run(&mut connection)
                .await
                .map_err(|error| StoreError::Unavailable(format!("migration failed: {error}")))?;
            Ok::<_, StoreError>(connection.close().await?)
        })
        .await?;
        warn_of_other_users(path);
        drop(lock);
        Ok(())
    }

    pub(super) async fn hold_to_index_key(&self, ours: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        // The 1 is spelled out, because SQLite numbers rows by itself where an integer
        // primary key is left out, whatever its default.
        sqlx::query(
            "INSERT INTO otp_index_key (only_row, fingerprint) VALUES (1, ?) ON CONFLICT DO NOTHING",
        )
        .bind(ours.as_slice())
        .execute(&self.pool)
        .await?;
        Ok(sqlx::query_scalar("SELECT fingerprint FROM otp_index_key")
            .fetch_one(&self.pool)
            .await?)
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let asked = sqlx::query("SELECT now FROM otp_clock").execute(&self.pool);
        match asked.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let path = &self.file.path;
                Err(match path.try_exists() {
                    Ok(false) => {
                        StoreError::Unavailable(format!("there is no file {}", path.display()))
                    }
                    _ => error.into(),
                })
            }
        }
    }

    pub(super) async fn census(&self, now: Timestamp) -> Result<StoreStats, StoreError> {
        census::take(&self.pool, now).await
    }

    pub(super) async fn deliveries(
        &self,
        records: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        census::deliveries(&self.pool, records).await
    }

    /// All connections, and the idle ones.
    pub(super) fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl RecordStore for SqliteStore {
    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        let asked_at = Instant::now();
        let mut transaction = self.pool.begin().await?;
        let record_keys = records.iter().map(|key| key.0.as_slice());
        let rows = select_by_key(
            "SELECT * FROM otp_record WHERE record_key IN (",
            record_keys,
        )
        .build()
        .fetch_all(&mut *transaction)
        .await?;
        let limit_keys = limits.iter().map(|key| key.0.as_slice());
        let limit_rows: Vec<(Vec<u8>, i64, i64)> = select_by_key(
            "SELECT limit_key, version, full_at FROM otp_limit WHERE limit_key IN (",
            limit_keys,
        )
        .build_query_as()
        .fetch_all(&mut *transaction)
        .await?;
        let limits = limit_rows
            .into_iter()
            .map(|(key, version, full_at)| {
                let key = key
                    .try_into()
                    .map_err(|_| StoreError::Corrupt("limit_key".to_owned()))?;
                let full_at = Timestamp::from_milliseconds(full_at);
                Ok((
                    LimitKey(key),
                    VersionedLimit {
                        version: RowVersion(version),
                        full_at,
                    },
                ))
            })
            .collect::<Result<_, StoreError>>()?;
        // After the records, so that none of them can have been written later.
        let now: i64 = sqlx::query_scalar("SELECT now FROM otp_clock")
            .fetch_one(&mut *transaction)
            .await?;
        let clock = StoreClock::from_reading(Timestamp::from_milliseconds(now), asked_at);
        transaction.rollback().await?;
        let mut snapshot = LoadedState {
            limits,
            ..LoadedState::empty(clock)
        };
        for row in rows {
            let key: Vec<u8> = row.try_get("record_key")?;
            let record = RecordRow::from_row(&row).map_err(StoreError::from);
            snapshot.add(
                RecordKey(key_bytes(&key)),
                record.and_then(RecordRow::into_record),
            );
        }
        Ok(snapshot)
    }

    async fn write(&self, changes: &WriteBatch) -> Result<WriteResult, StoreError> {
        let mut written = WriteResult::default();
        // IMMEDIATE: a transaction that starts as a reader may fail to become the
        // writer, without waiting for its turn.
        let mut connection = self.pool.acquire().await?;
        let waits = || tracing::warn!("[OTP] Waiting for a lock of the SQLite file");
        let mut transaction = with_notice(waits, connection.begin_with("BEGIN IMMEDIATE")).await?;
        for limit in &changes.limits {
            if let Some(full_at) = write_limit(&mut transaction, limit).await? {
                written.limits.insert(limit.key, full_at);
            }
        }
        for record in &changes.records {
            let mut needed = record.limits.iter();
            if needed.all(|limit| written.limits.contains_key(limit))
                && write_record(&mut transaction, record).await?
            {
                written.records.insert(record.key);
            }
        }
        for message in &changes.messages {
            if message.expected.is_some() {
                if messages::update(&mut transaction, message).await? {
                    written.messages.insert(message.message.id);
                }
            } else if written.records.contains(&message.key) {
                messages::insert(&mut transaction, message).await?;
            }
        }
        transaction.commit().await?;
        Ok(written)
    }

    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        messages::load(&self.pool, records).await
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        messages::lanes(&self.pool).await
    }

    async fn due_messages(&self, turns: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        messages::due(&self.pool, turns).await
    }

    async fn sweep(&self, now: Timestamp, limit: u32) -> Result<PurgeStats, StoreError> {
        let run = async |statement: &'static str| {
            let query = sqlx::query(statement).bind(now.milliseconds()).bind(limit);
            let query = query.bind(now.saturating_sub(UNENDED_KEPT).milliseconds());
            query
                .execute(&self.pool)
                .await
                .map(|done| done.rows_affected())
        };
        Ok(PurgeStats {
            records: run("DELETE FROM otp_record WHERE record_key IN (
                     SELECT record_key FROM otp_record WHERE removable_at <= ?1 LIMIT ?2
                 )")
            .await?,
            limits: run("DELETE FROM otp_limit WHERE limit_key IN (
                     SELECT limit_key FROM otp_limit WHERE full_at <= ?1 LIMIT ?2
                 )")
            .await?,
            messages: run("DELETE FROM otp_message WHERE (record_key, message_id) IN (
                     SELECT record_key, message_id FROM otp_message
                     WHERE removable_at <= ?1 AND (due_at IS NULL OR removable_at <= ?3) LIMIT ?2
                 )")
            .await?,
        })
    }
}

fn select_by_key<'a>(select: &str, keys: impl Iterator<Item = &'a [u8]>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind(key.to_vec());
    }
    query.push(")");
    query
}

/// Writes a limit if it is as expected and has room, as
/// [`LimitDelta::apply`](otpd_rules::LimitDelta::apply) says; returns when it is then full
/// again.
async fn write_limit(
    connection: &mut SqliteConnection,
    change: &LimitWrite,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let statement = match change.expected {
        ExpectedLimit::Absent => {
            "INSERT INTO otp_limit (limit_key, version, full_at)
             SELECT ?1, ?2, ?3 + ?5 WHERE ?3 <= ?4
             ON CONFLICT (limit_key) DO NOTHING
             RETURNING full_at"
        }
        ExpectedLimit::Present => {
            "UPDATE otp_limit SET version = ?2, full_at = max(full_at, ?3) + ?5
             WHERE limit_key = ?1 AND full_at <= ?4
             RETURNING full_at"
        }
        ExpectedLimit::Unchanged(_) => {
            "UPDATE otp_limit SET version = ?2, full_at = max(full_at, ?3) + ?5
             WHERE limit_key = ?1 AND full_at <= ?4 AND version = ?6
             RETURNING full_at"
        }
    };
    let mut query = sqlx::query_scalar(statement)
        .bind(change.key.0.as_slice())
        .bind(change.version.0)
        .bind(change.delta.floor.milliseconds())
        .bind(change.delta.latest.milliseconds())
        .bind(change.delta.cost);
    if let ExpectedLimit::Unchanged(version) = change.expected {
        query = query.bind(version.0);
    }
    let full_at: Option<i64> = query.fetch_optional(connection).await?;
    Ok(full_at.map(Timestamp::from_milliseconds))
}

/// Writes a record if it is as expected, and says whether it was.
async fn write_record(
    connection: &mut SqliteConnection,
    change: &RecordWrite,
) -> Result<bool, sqlx::Error> {
    let record = &change.record;
    let (state, sealed) = record_state_columns(&record.challenge.state);
    let statement = match change.expected {
        None => {
            "INSERT INTO otp_record (
                 version, caller, purpose, challenge, state, sealed, channel, created_at,
                 expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at,
                 memory, written_at, removable_at, sends, record_key
             ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (record_key) DO NOTHING"
        }
        Some(_) => {
            "UPDATE otp_record
             SET version = ?, caller = ?, purpose = ?, challenge = ?, state = ?, sealed = ?,
                 channel = ?, created_at = ?, expires_at = ?, attempts = ?, sent_at = ?,
                 failures = ?, failed_at = ?, hour_full_at = ?, day_full_at = ?, memory = ?,
                 written_at = ?, removable_at = ?, sends = ?
             WHERE record_key = ? AND version = ?"
        }
    };
    let query = sqlx::query(statement)
        .bind(change.version.0)
        .bind(record.caller.as_str())
        .bind(record.purpose.as_str())
        .bind(record.challenge.nonce.0.as_slice())
        .bind(state)
        .bind(sealed)
        .bind(record.challenge.channel.name())
        .bind(record.challenge.created_at.milliseconds())
        .bind(record.challenge.expires_at.milliseconds())
        .bind(count_column(record.challenge.attempts))
        .bind(record.sent_at.milliseconds())
        .bind(count_column(record.failures.count))
        .bind(record.failures.last_at.milliseconds())
        .bind(record.send_limits.hour_full_at.milliseconds())
        .bind(record.send_limits.day_full_at.milliseconds())
        .bind(memory_column(&record.memory))
        .bind(record.written_at.milliseconds())
        .bind(change.removable_at.milliseconds())
        .bind(count_column(record.challenge.sends))
        .bind(change.key.0.as_slice());
    execute_if(query, change.expected, connection).await
}

/// Runs a statement whose last parameter is the expected version, if any.
async fn execute_if(
    query: Query<'_, Sqlite, SqliteArguments>,
    expected: Option<RowVersion>,
    connection: &mut SqliteConnection,
) -> Result<bool, sqlx::Error> {
    let query = match expected {
        None => query,
        Some(version) => query.bind(version.0),
    };
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

/// Creates the file unless it exists.
fn create(path: &Path) -> Result<(), StoreError> {
    let created = owned().create(true).open(path);
    created.map(drop).map_err(|error| {
        StoreError::Unavailable(format!("cannot create {}: {error}", path.display()))
    })
}

fn owned() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.write(true).truncate(false).mode(MODE);
    options
}

/// Warns of a file, such as one of an older version, that other users may read.
fn warn_of_other_users(path: &Path) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.permissions().mode();
    if mode & OTHER_USERS != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format!("{:o}", mode & 0o777),
            "[OTP] Other users can open the SQLite file; run chmod 600 on it"
        );
    }
}

/// An exclusive lock, held until the file is dropped.
async fn lock_beside(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let locked = tokio::task::spawn_blocking(move || {
        let lock = || -> io::Result<File> {
            let file = owned().create(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error| format!("cannot lock {}: {error}", path.display()))
    });
    locked
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(StoreError::Unavailable)
}
