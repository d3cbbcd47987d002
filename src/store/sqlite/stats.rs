//! Statements that serve only the metrics.

use sqlx::{FromRow as _, SqlitePool};

use super::{
    super::{
        StoreError,
        stats::{DeliveredMessage, DeliveredRow, StoreStats},
    },
    select_by_key,
};
use otpd_rules::{RecordKey, Timestamp};

/// Counts records and messages.
pub(super) async fn count(pool: &SqlitePool, now: Timestamp) -> Result<StoreStats, StoreError> {
    let queue = sqlx::query_as(
        "SELECT count(*), min(created_at) FROM otp_message WHERE due_at IS NOT NULL",
    );
    let queue: (i64, Option<i64>) = queue.fetch_one(pool).await?;
    let purgeable: i64 =
        sqlx::query_scalar("SELECT count(*) FROM otp_record WHERE removable_at <= ?")
            .bind(now.milliseconds())
            .fetch_one(pool)
            .await?;
    let records: i64 = sqlx::query_scalar("SELECT count(*) FROM otp_record")
        .fetch_one(pool)
        .await?;
    Ok(StoreStats::from_counts(now, queue, records, purgeable))
}

/// Loads the delivered messages of records, oldest first.
pub(super) async fn delivered_messages(
    pool: &SqlitePool,
    records: &[RecordKey],
) -> Result<Vec<DeliveredMessage>, StoreError> {
    let keys = records.iter().map(|key| key.0.as_slice());
    let mut query = select_by_key(
        "SELECT record_key, challenge, channel, provider FROM otp_message
         WHERE record_key IN (",
        keys,
    );
    query.push(" AND state = 'sent' ORDER BY created_at, message_id");
    let rows = query.build().fetch_all(pool).await?;
    Ok(rows
        .iter()
        .filter_map(|row| DeliveredRow::from_row(row).ok()?.into_message())
        .collect())
}
