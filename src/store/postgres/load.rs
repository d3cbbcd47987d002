//! Statement that loads a batch.

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{
    super::{
        LoadedState, LockedRows, RowVersion, StoreClock, StoreError, VersionedLimit,
        rows::RecordRow, rows::key_bytes,
    },
    to_array,
};
use otpd_rules::{LimitKey, RecordKey, Timestamp};

/// Loads records, limits and the clock.
pub(super) async fn load(
    connection: &mut PgConnection,
    record_keys: &[&[u8]],
    limit_keys: &[&[u8]],
) -> Result<LoadedState, sqlx::Error> {
    let requested_at = Instant::now();
    let rows = sqlx::query!(
        r#"
        WITH clock AS MATERIALIZED (SELECT now FROM otp_clock)
        SELECT now AS "now!",
               record_key AS "record_key?", version AS "version?", caller AS "caller?",
               purpose AS "purpose?", challenge AS "challenge?", state AS "state?",
               sealed AS "sealed?", channel AS "channel?", created_at AS "created_at?",
               expires_at AS "expires_at?", attempts AS "attempts?", sent_at AS "sent_at?",
               failures AS "failures?", failed_at AS "failed_at?",
               hour_full_at AS "hour_full_at?", day_full_at AS "day_full_at?",
               memory AS "memory?", written_at AS "written_at?", sends AS "sends?",
               NULL::bytea AS "limit_key?", NULL::bigint AS "full_at?"
        FROM clock
        LEFT JOIN otp_record ON record_key = ANY ($1::bytea[])
        UNION ALL
        SELECT now, NULL, version, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, limit_key, full_at
        FROM clock
        JOIN otp_limit ON limit_key = ANY ($2::bytea[])
        "#,
        record_keys as &[&[u8]],
        limit_keys as &[&[u8]],
    )
    .fetch_all(connection)
    .await?;

    let now = rows
        .first()
        .map(|row| row.now)
        .ok_or(sqlx::Error::RowNotFound)?;
    let clock = StoreClock::from_reading(Timestamp::from_milliseconds(now), requested_at);
    let mut state = LoadedState::empty(clock);
    for row in rows {
        if let (Some(key), Some(version), Some(full_at)) = (row.limit_key, row.version, row.full_at)
        {
            let full_at = Timestamp::from_milliseconds(full_at);
            let limit = VersionedLimit {
                version: RowVersion(version),
                full_at,
            };
            state
                .limits
                .insert(LimitKey(to_array(key, "limit_key")?), limit);
            continue;
        }
        // Without a record the join yields only the clock.
        let columns = || {
            Some(RecordRow {
                record_key: row.record_key?,
                version: row.version?,
                caller: row.caller?,
                purpose: row.purpose?,
                challenge: row.challenge?,
                state: row.state?,
                sealed: row.sealed,
                channel: row.channel?,
                created_at: row.created_at?,
                expires_at: row.expires_at?,
                attempts: row.attempts?,
                sends: row.sends?,
                sent_at: row.sent_at?,
                failures: row.failures?,
                failed_at: row.failed_at?,
                hour_full_at: row.hour_full_at?,
                day_full_at: row.day_full_at?,
                memory: row.memory?,
                written_at: row.written_at?,
            })
        };
        if let Some(columns) = columns() {
            let key = RecordKey(key_bytes(&columns.record_key));
            state.add(key, columns.into_record());
        }
    }
    Ok(state)
}

/// Finds the rows that other sessions keep locked. It locks the free ones until its end, as a write
/// does.
pub(super) async fn locked_rows(
    connection: &mut PgConnection,
    record_keys: &[&[u8]],
    limit_keys: &[&[u8]],
) -> Result<LockedRows, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH free_record AS (
            SELECT record_key FROM otp_record WHERE record_key = ANY ($1::bytea[])
            ORDER BY record_key
            FOR NO KEY UPDATE SKIP LOCKED
        ),
        free_limit AS (
            SELECT limit_key FROM otp_limit WHERE limit_key = ANY ($2::bytea[])
            ORDER BY limit_key
            FOR NO KEY UPDATE SKIP LOCKED
        )
        SELECT record_key AS "record_key?", NULL::bytea AS "limit_key?"
        FROM otp_record
        WHERE record_key = ANY ($1) AND record_key NOT IN (SELECT record_key FROM free_record)
        UNION ALL
        SELECT NULL, limit_key
        FROM otp_limit
        WHERE limit_key = ANY ($2) AND limit_key NOT IN (SELECT limit_key FROM free_limit)
        "#,
        record_keys as &[&[u8]],
        limit_keys as &[&[u8]],
    )
    .fetch_all(connection)
    .await?;
    let mut locked = LockedRows::default();
    for row in rows {
        if let Some(key) = row.record_key {
            locked
                .records
                .insert(RecordKey(to_array(key, "record_key")?));
        }
        if let Some(key) = row.limit_key {
            locked.limits.insert(LimitKey(to_array(key, "limit_key")?));
        }
    }
    Ok(locked)
}
