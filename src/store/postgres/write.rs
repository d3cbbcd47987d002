//! The one statement that writes a batch.

use sqlx::PgConnection;

use super::{
    super::{Change, StoreError, Written},
    columns::{LimitColumns, MessageColumns, RecordColumns},
    fixed,
};
use crate::domain::{LimitKey, RecordKey};

/// Writes what of `changes` is as expected: first limits, then the records all of
/// whose limits were written, then the messages whose records were.
#[expect(
    clippy::too_many_lines,
    reason = "it is one statement, and reads as one"
)]
pub(super) async fn write(
    connection: &mut PgConnection,
    changes: &[Change],
) -> Result<Written, StoreError> {
    let limits = LimitColumns::of(changes);
    let records = RecordColumns::of(changes);
    let messages = MessageColumns::of(changes.iter().filter_map(|change| change.message.as_ref()));
    let rows = sqlx::query!(
        r#"
        WITH limit_input AS (
            SELECT *
            FROM UNNEST($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[])
                AS input (limit_key, for_record, expected, version, full_at)
        ),
        limit_updated AS (
            UPDATE otp_limit AS old
            SET version = input.version, full_at = input.full_at
            FROM limit_input AS input
            WHERE old.limit_key = input.limit_key AND old.version = input.expected
            RETURNING old.limit_key
        ),
        limit_inserted AS (
            INSERT INTO otp_limit (limit_key, version, full_at)
            SELECT limit_key, version, full_at FROM limit_input WHERE expected IS NULL
            ON CONFLICT (limit_key) DO NOTHING
            RETURNING limit_key
        ),
        limit_written AS (
            SELECT limit_key FROM limit_updated UNION ALL SELECT limit_key FROM limit_inserted
        ),
        input AS (
            SELECT *
            FROM UNNEST(
                $6::bytea[], $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::bytea[],
                $12::text[], $13::bytea[], $14::text[], $15::bigint[], $16::bigint[],
                $17::integer[], $18::bigint[], $19::integer[], $20::bigint[], $21::bigint[],
                $22::bigint[], $23::bytea[], $24::bigint[], $25::bigint[], $26::integer[]
            ) AS input (
                record_key, expected, version, caller, purpose, challenge, state, sealed,
                channel, created_at, expires_at, attempts, sent_at, failures, failed_at,
                hour_full_at, day_full_at, memory, written_at, removable_at, sends
            )
            WHERE (record_key IN (
                SELECT for_record FROM limit_input
                WHERE for_record IS NOT NULL
                    AND (limit_key IN (SELECT limit_key FROM limit_written)) IS NOT TRUE
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
            WHERE record.record_key = input.record_key AND record.version = input.expected
            RETURNING record.record_key
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
            RETURNING record_key
        ),
        written AS (
            SELECT record_key FROM updated UNION ALL SELECT record_key FROM inserted
        ),
        message_inserted AS (
            INSERT INTO otp_message (
                record_key, message_id, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at, removable_at
            )
            SELECT * FROM UNNEST(
                $27::bytea[], $28::bytea[], $29::bigint[], $30::bytea[], $31::text[],
                $32::integer[], $33::text[], $34::bytea[], $35::text[], $36::bytea[],
                $37::bigint[], $38::bigint[], $39::bigint[], $40::bigint[], $41::bigint[]
            ) AS input (
                record_key, message_id, version, challenge, channel, predecessors, state, sealed,
                provider, history, created_at, updated_at, expires_at, due_at, removable_at
            )
            WHERE (record_key IN (SELECT record_key FROM written)) IS TRUE
        )
        SELECT record_key AS "record_key?", NULL::bytea AS "limit_key?" FROM written
        UNION ALL
        SELECT NULL, limit_key FROM limit_written
        "#,
        &limits.limit_key as &[&[u8]],
        &limits.for_record as &[Option<&[u8]>],
        &limits.expected as &[Option<i64>],
        &limits.version,
        &limits.full_at,
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
        &messages.record_key as &[&[u8]],
        &messages.message_id as &[&[u8]],
        &messages.version,
        &messages.challenge as &[&[u8]],
        &messages.channel as &[&str],
        &messages.predecessors,
        &messages.state as &[&str],
        &messages.sealed as &[Option<&[u8]>],
        &messages.provider as &[&str],
        &messages.history,
        &messages.created_at,
        &messages.updated_at,
        &messages.expires_at,
        &messages.due_at as &[Option<i64>],
        &messages.removable_at,
    )
    .fetch_all(connection)
    .await?;
    let mut written = Written::default();
    for row in rows {
        if let Some(key) = row.record_key {
            written.records.insert(RecordKey(fixed(key, "record_key")?));
        }
        if let Some(key) = row.limit_key {
            written.limits.insert(LimitKey(fixed(key, "limit_key")?));
        }
    }
    Ok(written)
}
