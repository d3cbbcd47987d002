//! Statement that updates records alone.

use sqlx::PgConnection;

use super::{
    super::{RecordWrite, StoreError, WriteBatch, WriteResult},
    columns::RecordColumns,
    to_array,
};
use otpd_rules::RecordKey;

/// Returns whether a batch updates records and does nothing else, as a verification does.
pub(super) fn are_updated_alone(batch: &WriteBatch) -> bool {
    let is_update = |write: &RecordWrite| write.expected.is_some();
    batch.limits.is_empty() && batch.messages.is_empty() && batch.records.iter().all(is_update)
}

/// Updates the records with matching versions. The statement that writes any batch costs a single
/// verification several times as much, because the database prepares each of its parts.
pub(super) async fn update(
    connection: &mut PgConnection,
    writes: &[RecordWrite],
) -> Result<WriteResult, StoreError> {
    let records = RecordColumns::new(writes);
    let rows = sqlx::query_scalar!(
        "UPDATE otp_record AS record
         SET version = input.version, caller = input.caller, purpose = input.purpose,
             challenge = input.challenge, state = input.state, sealed = input.sealed,
             channel = input.channel, created_at = input.created_at,
             expires_at = input.expires_at, attempts = input.attempts,
             sent_at = input.sent_at, failures = input.failures, failed_at = input.failed_at,
             hour_full_at = input.hour_full_at, day_full_at = input.day_full_at,
             memory = input.memory, written_at = input.written_at,
             removable_at = input.removable_at, sends = input.sends
         FROM UNNEST(
             $1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[],
             $7::text[], $8::bytea[], $9::text[], $10::bigint[], $11::bigint[], $12::integer[],
             $13::bigint[], $14::integer[], $15::bigint[], $16::bigint[], $17::bigint[],
             $18::bytea[], $19::bigint[], $20::bigint[], $21::integer[]
         ) AS input (
             record_key, expected, version, caller, purpose, challenge, state, sealed, channel,
             created_at, expires_at, attempts, sent_at, failures, failed_at, hour_full_at,
             day_full_at, memory, written_at, removable_at, sends
         )
         WHERE record.record_key = ANY ($1)
             AND record.record_key = input.record_key AND record.version = input.expected
         RETURNING record.record_key",
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
    )
    .fetch_all(connection)
    .await?;
    let keys = rows
        .into_iter()
        .map(|key| Ok(RecordKey(to_array(key, "record_key")?)));
    Ok(WriteResult {
        records: keys.collect::<Result<_, StoreError>>()?,
        ..WriteResult::default()
    })
}
