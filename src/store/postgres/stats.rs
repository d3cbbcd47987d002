//! Statements that serve only the metrics.

use sqlx::PgConnection;

use super::super::{
    StoreError,
    stats::{DeliveredMessage, DeliveredRow, StoreStats},
};
use otpd_rules::Timestamp;

/// Number of records up to which they are counted. Above it the estimate of PostgreSQL's own
/// statistics is precise enough.
const MAX_COUNTED: i64 = 10_000;

/// Counts records and messages.
pub(super) async fn count(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<StoreStats, StoreError> {
    let queue = sqlx::query!(
        r#"SELECT count(*) AS "count!", min(created_at) AS oldest
         FROM otp_message WHERE due_at IS NOT NULL"#
    );
    let queue = queue.fetch_one(&mut *connection).await?;
    let purgeable = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM otp_record WHERE removable_at <= $1"#,
        now.milliseconds(),
    );
    let purgeable = purgeable.fetch_one(&mut *connection).await?;
    let estimate = sqlx::query_scalar!(
        r#"SELECT reltuples::bigint AS "count!" FROM pg_class WHERE oid = 'otp_record'::regclass"#
    );
    let mut records = estimate.fetch_one(&mut *connection).await?;
    if records < MAX_COUNTED {
        let exact = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM otp_record"#);
        records = exact.fetch_one(&mut *connection).await?;
    }
    Ok(StoreStats::from_counts(
        now,
        (queue.count, queue.oldest),
        records,
        purgeable,
    ))
}

/// Loads the delivered messages of records, oldest first.
pub(super) async fn delivered_messages(
    connection: &mut PgConnection,
    record_keys: &[&[u8]],
) -> Result<Vec<DeliveredMessage>, StoreError> {
    let rows = sqlx::query_as!(
        DeliveredRow,
        "SELECT record_key, challenge, channel, provider
         FROM otp_message
         WHERE record_key = ANY ($1::bytea[]) AND state = 'sent'
         ORDER BY created_at, message_id",
        record_keys as &[&[u8]],
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(DeliveredRow::into_message)
        .collect())
}
