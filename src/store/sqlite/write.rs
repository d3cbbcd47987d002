//! Statements that write limits and records.

use sqlx::{Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::super::{
    ExpectedLimit, LimitWrite, RecordWrite, RowVersion,
    rows::{count_column, memory_column, record_state_columns},
};
use otpd_rules::Timestamp;

/// Updates a limit as [`LimitDelta::apply`](otpd_rules::LimitDelta::apply) does, if its version
/// matches and it has room. Returns the time at which it is then full again.
pub(super) async fn limit(
    connection: &mut SqliteConnection,
    write: &LimitWrite,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let statement = match write.expected {
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
        .bind(write.key.0.as_slice())
        .bind(write.version.0)
        .bind(write.delta.floor.milliseconds())
        .bind(write.delta.latest.milliseconds())
        .bind(write.delta.cost);
    if let ExpectedLimit::Unchanged(version) = write.expected {
        query = query.bind(version.0);
    }
    let full_at: Option<i64> = query.fetch_optional(connection).await?;
    Ok(full_at.map(Timestamp::from_milliseconds))
}

/// Writes a record if its version matches, and returns whether it did.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    write: &RecordWrite,
) -> Result<bool, sqlx::Error> {
    let record = &write.record;
    let (state, sealed) = record_state_columns(&record.challenge.state);
    let statement = match write.expected {
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
        .bind(write.version.0)
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
        .bind(write.removable_at.milliseconds())
        .bind(count_column(record.challenge.sends))
        .bind(write.key.0.as_slice());
    execute_if(query, write.expected, connection).await
}

/// Executes a statement with the expected version, if any, as its last parameter.
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
