//! The statements of the outbox.

use sqlx::{SqliteConnection, SqlitePool};

use super::{
    super::{
        MessageChange, StoreError, VersionedMessage,
        message_row::{MessageRow, history_column, message_state_columns},
        record_row::count_column,
    },
    select_by_key,
};
use crate::domain::{RecordKey, Timestamp};

/// Loads the messages of records.
pub(super) async fn load(
    pool: &SqlitePool,
    records: &[RecordKey],
) -> Result<Vec<VersionedMessage>, StoreError> {
    let keys = records.iter().map(|key| key.0.as_slice());
    let mut query = select_by_key("SELECT * FROM otp_message WHERE record_key IN (", keys);
    query.push(" ORDER BY created_at, message_id");
    let rows: Vec<MessageRow> = query.build_query_as().fetch_all(pool).await?;
    rows.into_iter().map(MessageRow::into_message).collect()
}

/// Loads messages that somebody has to look after.
pub(super) async fn due(
    pool: &SqlitePool,
    limit: u32,
) -> Result<Vec<VersionedMessage>, StoreError> {
    let rows: Vec<MessageRow> = sqlx::query_as(
        "WITH clock AS MATERIALIZED (SELECT now FROM otp_clock)
         SELECT * FROM otp_message
         WHERE due_at IS NOT NULL
             AND (due_at <= (SELECT now FROM clock) OR updated_at > (SELECT now FROM clock))
         ORDER BY created_at
         LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(MessageRow::into_message).collect()
}

/// Writes a new message.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    change: &MessageChange,
) -> Result<(), sqlx::Error> {
    let message = &change.message;
    let (state, sealed) = message_state_columns(&message.state);
    sqlx::query(
        "INSERT INTO otp_message (
             record_key, message_id, version, challenge, channel, predecessors, state, sealed,
             provider, history, created_at, updated_at, expires_at, due_at, removable_at
         ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(change.key.0.as_slice())
    .bind(message.id.0.as_slice())
    .bind(change.version.0)
    .bind(message.challenge.0.as_slice())
    .bind(message.channel.name())
    .bind(count_column(message.predecessors))
    .bind(state)
    .bind(sealed)
    .bind(&message.provider)
    .bind(history_column(&message.history))
    .bind(message.created_at.milliseconds())
    .bind(message.updated_at.milliseconds())
    .bind(message.expires_at.milliseconds())
    .bind(message.due_at.map(Timestamp::milliseconds))
    .bind(message.removable_at().milliseconds())
    .execute(connection)
    .await?;
    Ok(())
}

/// Replaces a message if it is as expected, and says whether it was.
pub(super) async fn update(
    connection: &mut SqliteConnection,
    change: &MessageChange,
) -> Result<bool, sqlx::Error> {
    let message = &change.message;
    let (state, sealed) = message_state_columns(&message.state);
    let result = sqlx::query(
        "UPDATE otp_message
         SET version = ?, state = ?, sealed = ?, provider = ?, history = ?, updated_at = ?,
             expires_at = ?, due_at = ?, removable_at = ?
         WHERE record_key = ? AND message_id = ? AND version = ?",
    )
    .bind(change.version.0)
    .bind(state)
    .bind(sealed)
    .bind(&message.provider)
    .bind(history_column(&message.history))
    .bind(message.updated_at.milliseconds())
    .bind(message.expires_at.milliseconds())
    .bind(message.due_at.map(Timestamp::milliseconds))
    .bind(message.removable_at().milliseconds())
    .bind(change.key.0.as_slice())
    .bind(message.id.0.as_slice())
    .bind(change.expected.map(|version| version.0))
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}
