//! Statement that writes a batch.

use sqlx::PgConnection;

use super::{
    super::{StoreError, WriteBatch, WriteResult},
    columns::{LimitColumns, MessageColumns, RecordColumns, RecordLimitColumns},
    to_array,
};
use otpd_rules::{LimitKey, MessageId, RecordKey, Timestamp};

/// Writes the items of `batch` with matching versions: first limits that have room, then records with
/// all their limits written, then new messages of written records, and updates of messages. Rows are
/// found by their keys first, so that the planner uses an index for any batch. A limit is updated as
/// [`LimitDelta::apply`](otpd_rules::LimitDelta::apply) does, from its state when the statement
/// locks its row.
#[expect(clippy::too_many_lines, reason = "it is a single statement")]
pub(super) async fn write(
    connection: &mut PgConnection,
    batch: &WriteBatch,
) -> Result<WriteResult, StoreError> {
    let limits = LimitColumns::new(&batch.limits);
    let record_limits = RecordLimitColumns::new(&batch.records);
    let records = RecordColumns::new(&batch.records);
    let (updates, inserts): (Vec<_>, Vec<_>) = batch
        .messages
        .iter()
        .partition(|write| write.expected.is_some());
    let (inserts, updates) = (MessageColumns::new(inserts), MessageColumns::new(updates));
    let rows = sqlx::query!(
        r#"
        WITH limit_input AS (
            SELECT *
            FROM UNNEST(
                $1::bytea[], $2::boolean[], $3::bigint[], $4::bigint[], $5::bigint[],
                $6::bigint[], $7::bigint[]
            ) AS input (limit_key, is_new, expected, version, floor, latest, cost)
        ),
        limit_updated AS (
            UPDATE otp_limit AS old
            SET version = input.version,
                full_at = greatest(old.full_at, input.floor) + input.cost
            FROM limit_input AS input
            WHERE old.limit_key = ANY ($1)
                AND old.limit_key = input.limit_key AND NOT input.is_new
                AND old.full_at <= input.latest
                AND (input.expected IS NULL OR old.version = input.expected)
            RETURNING old.limit_key, old.full_at
        ),
        limit_inserted AS (
            INSERT INTO otp_limit (limit_key, version, full_at)
            SELECT limit_key, version, floor + cost
            FROM limit_input
            WHERE is_new AND floor <= latest
            ON CONFLICT (limit_key) DO NOTHING
            RETURNING limit_key, full_at
        ),
        limit_written AS (
            SELECT limit_key, full_at FROM limit_updated
            UNION ALL
            SELECT limit_key, full_at FROM limit_inserted
        ),
        input AS (
            SELECT *
            FROM UNNEST(
                $10::bytea[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::bytea[],
                $16::text[], $17::bytea[], $18::text[], $19::bigint[], $20::bigint[],
                $21::integer[], $22::bigint[], $23::integer[], $24::bigint[], $25::bigint[],
                $26::bigint[], $27::bytea[], $28::bigint[], $29::bigint[], $30::integer[]
            ) AS input (
                record_key, expected, version, caller, purpose, challenge, state, sealed,
                channel, created_at, expires_at, attempts, sent_at, failures, failed_at,
                hour_full_at, day_full_at, memory, written_at, removable_at, sends
            )
            WHERE (record_key IN (
                SELECT need.record_key
                FROM UNNEST($8::bytea[], $9::bytea[]) AS need (record_key, limit_key)
                WHERE (need.limit_key IN (SELECT limit_key FROM limit_written)) IS NOT TRUE
            )) IS NOT TRUE
        ),
        updated AS (
            UPDATE otp_record AS record
            SET version = input.version, caller = input.caller, purpose = input.purpose,
                challenge = input.challenge, state = input.state, sealed = input.sealed,
                channel = input.channel, created_at = input.created_at,
                expires_at = input.expires_at, attempts = input.attempts,
                sent_at = input.sent_at, failures = input.failures,
                failed_at = input.failed_at, hour_full_at = input.hour_full_at,
                day_full_at = input.day_full_at, memory = input.memory,
                written_at = input.written_at, removable_at = input.removable_at,
                sends = input.sends
            FROM input
            WHERE record.record_key = ANY ($10)
                AND record.record_key = input.record_key AND record.version = input.expected
            RETURNING record.record_key, record.caller
        ),
        inserted AS (
            INSERT INTO otp_record (
                record_key, version, caller, purpose, challenge, state, sealed, channel,
                created_at, expires_at, attempts, sent_at, failures, failed_at, hour_full_at,
                day_full_at, memory, written_at, removable_at, sends
            )
            SELECT record_key, version, caller, purpose, challenge, state, sealed, channel,
                   created_at, expires_at, attempts, sent_at, failures, failed_at, hour_full_at,
                   day_full_at, memory, written_at, removable_at, sends
            FROM input
            WHERE expected IS NULL
            ON CONFLICT (record_key) DO NOTHING
            RETURNING record_key, caller
        ),
        written AS (
            SELECT record_key, caller FROM updated UNION ALL SELECT record_key, caller FROM inserted
        ),
        message_inserted AS (
            INSERT INTO otp_message (
                record_key, message_id, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at, removable_at,
                caller
            )
            SELECT input.*, written.caller FROM UNNEST(
                $31::bytea[], $32::bytea[], $33::bigint[], $34::bytea[], $35::text[],
                $36::integer[], $37::text[], $38::bytea[], $39::text[], $40::bytea[],
                $41::bigint[], $42::bigint[], $43::bigint[], $44::bigint[], $45::bigint[]
            ) AS input (
                record_key, message_id, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at, removable_at
            )
            JOIN written ON written.record_key = input.record_key
        ),
        message_updated AS (
            UPDATE otp_message AS message
            SET version = input.version, state = input.state, sealed = input.sealed,
                provider = input.provider, history = input.history,
                updated_at = input.updated_at, expires_at = input.expires_at,
                due_at = input.due_at, removable_at = input.removable_at
            FROM UNNEST(
                $46::bytea[], $47::bytea[], $48::bigint[], $49::bigint[], $50::text[],
                $51::bytea[], $52::text[], $53::bytea[], $54::bigint[], $55::bigint[],
                $56::bigint[], $57::bigint[]
            ) AS input (
                record_key, message_id, expected, version, state, sealed, provider, history,
                updated_at, expires_at, due_at, removable_at
            )
            WHERE message.record_key = ANY ($46)
                AND message.record_key = input.record_key
                AND message.message_id = input.message_id
                AND message.version = input.expected
            RETURNING message.message_id
        )
        SELECT record_key AS "record_key?", NULL::bytea AS "limit_key?",
               NULL::bigint AS "full_at?", NULL::bytea AS "message_id?"
        FROM written
        UNION ALL
        SELECT NULL, limit_key, full_at, NULL FROM limit_written
        UNION ALL
        SELECT NULL, NULL, NULL, message_id FROM message_updated
        "#,
        &limits.limit_key as &[&[u8]],
        &limits.is_new,
        &limits.expected as &[Option<i64>],
        &limits.version,
        &limits.floor,
        &limits.latest,
        &limits.cost,
        &record_limits.record_key as &[&[u8]],
        &record_limits.limit_key as &[&[u8]],
        &records.record_key as &[&[u8]],
        &records.expected as &[Option<i64>],
        &records.version,
        &records.caller as &[&str],
        &records.purpose as &[&str],
        &records.challenge as &[&[u8]],
        &records.state as &[&str],
        &records.sealed as &[Option<&[u8]>],
        &records.channel as &[&str],
        &records.created_at,
        &records.expires_at,
        &records.attempts,
        &records.sent_at,
        &records.failures,
        &records.failed_at,
        &records.hour_full_at,
        &records.day_full_at,
        &records.memory,
        &records.written_at,
        &records.removable_at,
        &records.sends,
        &inserts.record_key as &[&[u8]],
        &inserts.message_id as &[&[u8]],
        &inserts.version,
        &inserts.challenge as &[&[u8]],
        &inserts.channel as &[&str],
        &inserts.predecessors,
        &inserts.state as &[&str],
        &inserts.sealed as &[Option<&[u8]>],
        &inserts.provider as &[&str],
        &inserts.history,
        &inserts.created_at,
        &inserts.updated_at,
        &inserts.expires_at,
        &inserts.due_at as &[Option<i64>],
        &inserts.removable_at,
        &updates.record_key as &[&[u8]],
        &updates.message_id as &[&[u8]],
        &updates.expected as &[Option<i64>],
        &updates.version,
        &updates.state as &[&str],
        &updates.sealed as &[Option<&[u8]>],
        &updates.provider as &[&str],
        &updates.history,
        &updates.updated_at,
        &updates.expires_at,
        &updates.due_at as &[Option<i64>],
        &updates.removable_at,
    )
    .fetch_all(connection)
    .await?;
    let mut written = WriteResult::default();
    for row in rows {
        if let Some(key) = row.record_key {
            written
                .records
                .insert(RecordKey(to_array(key, "record_key")?));
        }
        if let Some((key, full_at)) = row.limit_key.zip(row.full_at) {
            let key = LimitKey(to_array(key, "limit_key")?);
            let full_at = Timestamp::from_milliseconds(full_at);
            written.limits.insert(key, full_at);
        }
        if let Some(id) = row.message_id {
            written
                .messages
                .insert(MessageId(to_array(id, "message_id")?));
        }
    }
    Ok(written)
}
