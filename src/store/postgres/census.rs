//! The statements that are for the metrics alone.

use sqlx::PgConnection;

use super::super::{
    StoreError,
    stats::{DeliveredMessage, DeliveredRow, StoreStats},
};
use otpd_rules::Timestamp;

/// Up to so many records are counted; beyond, what PostgreSQL's own statistics say is
/// near enough.
const FEW: i64 = 10_000;

/// Counts what is there.
pub(super) async fn take(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<StoreStats, StoreError> {
    let queue = sqlx::query!(
        r#"SELECT count(*) AS "count!", min(created_at) AS oldest
         FROM otp_message WHERE due_at IS NOT NULL"#
    );
    let queue = queue.fetch_one(&mut *connection).await?;
    let dead = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM otp_record WHERE removable_at <= $1"#,
        now.milliseconds(),
    );
    let dead = dead.fetch_one(&mut *connection).await?;
    let estimate = sqlx::query_scalar!(
        r#"SELECT reltuples::bigint AS "count!" FROM pg_class WHERE oid = 'otp_record'::regclass"#
    );
    let mut records = estimate.fetch_one(&mut *connection).await?;
    if records < FEW {
        let exact = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM otp_record"#);
        records = exact.fetch_one(&mut *connection).await?;
    }
    Ok(StoreStats::of(
        now,
        (queue.count, queue.oldest),
        records,
        dead,
    ))
}

/// Loads who delivered the codes of records, oldest first.
pub(super) async fn deliveries(
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
        .filter_map(DeliveredRow::into_delivered)
        .collect())
}
