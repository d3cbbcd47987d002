//! Statements for messages alone.

use sqlx::PgConnection;

use super::{
    super::{FoundMessage, LaneCursor, MessageWrite, StoreError, WriteResult, rows::MessageRow},
    columns::MessageColumns,
    to_array,
};
use otpd_rules::{CallerName, MessageId};

/// Loads the messages of records.
pub(super) async fn load(
    connection: &mut PgConnection,
    record_keys: &[&[u8]],
) -> Result<Vec<FoundMessage>, StoreError> {
    let rows = sqlx::query_as!(
        MessageRow,
        "SELECT record_key, message_id, caller, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at
         FROM otp_message
         WHERE record_key = ANY ($1::bytea[])
         ORDER BY created_at, message_id",
        record_keys as &[&[u8]],
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(MessageRow::into_found).collect())
}

/// Returns the lanes with messages that are not final. Each costs one lookup in the index,
/// whatever the number of its messages.
pub(super) async fn lanes(connection: &mut PgConnection) -> Result<Vec<CallerName>, StoreError> {
    let lanes = sqlx::query_scalar!(
        r#"WITH RECURSIVE lane AS (
             (SELECT caller FROM otp_message WHERE due_at IS NOT NULL ORDER BY caller LIMIT 1)
             UNION ALL
             SELECT (
                 SELECT message.caller FROM otp_message AS message
                 WHERE message.due_at IS NOT NULL AND message.caller > lane.caller
                 ORDER BY message.caller LIMIT 1
             )
             FROM lane
             WHERE lane.caller IS NOT NULL
         )
         SELECT caller AS "caller!" FROM lane WHERE caller IS NOT NULL"#
    );
    let lanes = lanes.fetch_all(connection).await?;
    Ok(lanes.into_iter().map(CallerName::new).collect())
}

/// Loads the due messages of lanes.
pub(super) async fn due(
    connection: &mut PgConnection,
    lanes: &[LaneCursor],
) -> Result<Vec<FoundMessage>, StoreError> {
    let (mut caller, mut created_at, mut message_id, mut most) = (vec![], vec![], vec![], vec![]);
    for lane in lanes {
        caller.push(lane.lane.as_str());
        let after = lane.after.as_ref();
        created_at.push(after.map_or(i64::MIN, |after| after.created_at.milliseconds()));
        message_id.push(after.map_or(&[][..], |after| &after.id.0));
        most.push(i64::from(lane.most));
    }
    let rows = sqlx::query_as!(
        MessageRow,
        r#"WITH clock AS MATERIALIZED (SELECT now FROM otp_clock)
         SELECT message.record_key AS "record_key!", message.message_id AS "message_id!",
                message.caller AS "caller!", message.version AS "version!",
                message.challenge AS "challenge!", message.channel AS "channel!",
                message.predecessors AS "predecessors!", message.state AS "state!",
                message.sealed AS "sealed?", message.provider AS "provider!",
                message.history AS "history!", message.created_at AS "created_at!",
                message.updated_at AS "updated_at!", message.expires_at AS "expires_at!",
                message.due_at AS "due_at?"
         FROM UNNEST($1::text[], $2::bigint[], $3::bytea[], $4::bigint[])
             AS turn (caller, created_at, message_id, most)
         CROSS JOIN LATERAL (
             SELECT * FROM otp_message AS waiting
             WHERE waiting.due_at IS NOT NULL AND waiting.caller = turn.caller
                 AND (waiting.created_at, waiting.message_id) > (turn.created_at, turn.message_id)
                 AND (waiting.due_at <= (SELECT now FROM clock)
                     OR waiting.updated_at > (SELECT now FROM clock))
             ORDER BY waiting.created_at, waiting.message_id
             LIMIT turn.most
         ) AS message
         ORDER BY message.created_at, message.message_id"#,
        &caller as &[&str],
        &created_at,
        &message_id as &[&[u8]],
        &most,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(MessageRow::into_found).collect())
}

/// Updates the messages with matching versions. It is used for a batch of messages alone, because it
/// locks nothing else.
pub(super) async fn update(
    connection: &mut PgConnection,
    writes: &[MessageWrite],
) -> Result<WriteResult, StoreError> {
    let columns = MessageColumns::new(writes.iter().collect());
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
        .map(|id| Ok(MessageId(to_array(id, "message_id")?)));
    Ok(WriteResult {
        messages: ids.collect::<Result<_, StoreError>>()?,
        ..WriteResult::default()
    })
}
