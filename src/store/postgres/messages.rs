//! The statements that are about messages alone.

use sqlx::PgConnection;

use super::{
    super::{MessageChange, StoreError, VersionedMessage, Written, message_row::MessageRow},
    columns::MessageColumns,
    fixed,
};
use crate::domain::MessageId;

/// Loads the messages of records.
pub(super) async fn load(
    connection: &mut PgConnection,
    record_keys: &[&[u8]],
) -> Result<Vec<VersionedMessage>, StoreError> {
    let rows = sqlx::query_as!(
        MessageRow,
        "SELECT record_key, message_id, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at
         FROM otp_message
         WHERE record_key = ANY ($1::bytea[])
         ORDER BY created_at, message_id",
        record_keys as &[&[u8]],
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(MessageRow::into_message).collect()
}

/// Loads messages that somebody has to look after.
pub(super) async fn due(
    connection: &mut PgConnection,
    limit: u32,
) -> Result<Vec<VersionedMessage>, StoreError> {
    let rows = sqlx::query_as!(
        MessageRow,
        "WITH clock AS MATERIALIZED (SELECT now FROM otp_clock)
         SELECT record_key, message_id, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at
         FROM otp_message
         WHERE due_at IS NOT NULL
             AND (due_at <= (SELECT now FROM clock) OR updated_at > (SELECT now FROM clock))
         ORDER BY created_at
         LIMIT $1",
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(MessageRow::into_message).collect()
}

/// Replaces the old messages that are as expected, where nothing else is to be written:
/// that needs no more than this, and no lock on anything else.
pub(super) async fn replace(
    connection: &mut PgConnection,
    changes: &[MessageChange],
) -> Result<Written, StoreError> {
    let columns = MessageColumns::of(changes.iter().collect());
    let rows = sqlx::query_scalar!(
        "UPDATE otp_message AS message
         SET version = input.version, state = input.state, sealed = input.sealed,
             provider = input.provider, history = input.history,
             updated_at = input.updated_at, expires_at = input.expires_at,
             due_at = input.due_at, removable_at = input.removable_at
         FROM UNNEST(
             $1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[],
             $7::text[], $8::bytea[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[]
         ) AS input (
             record_key, message_id, expected, version, state, sealed, provider, history,
             updated_at, expires_at, due_at, removable_at
         )
         WHERE message.record_key = ANY ($1)
             AND message.record_key = input.record_key AND message.message_id = input.message_id
             AND message.version = input.expected
         RETURNING message.message_id",
        &columns.record_key as &[&[u8]],
        &columns.message_id as &[&[u8]],
        &columns.expected as &[Option<i64>],
        &columns.version,
        &columns.state as &[&str],
        &columns.sealed as &[Option<&[u8]>],
        &columns.provider as &[&str],
        &columns.history,
        &columns.updated_at,
        &columns.expires_at,
        &columns.due_at as &[Option<i64>],
        &columns.removable_at,
    )
    .fetch_all(connection)
    .await?;
    let ids = rows
        .into_iter()
        .map(|id| Ok(MessageId(fixed(id, "message_id")?)));
    Ok(Written {
        messages: ids.collect::<Result<_, StoreError>>()?,
        ..Written::default()
    })
}
