//! Checks of the server by a session.

use rand::Rng as _;
use sqlx::{Executor as _, PgConnection};

use super::{
    super::StoreError,
    load,
    pooling::{Pooling, fetch_scalar},
    session_settings::SessionSettings,
};
use crate::system_random::os_rng;
use otpd_rules::RecordKey;

/// Size of the row that [`probe_write`] writes: about that of a request's row.
const PROBE_ROW_BYTES: usize = 1_024;

/// Verifies that the server accepts writes. A standby does not, nor does a server that its operator,
/// or a full disk, made read-only.
pub(super) async fn ensure_writable(connection: &mut PgConnection) -> Result<(), StoreError> {
    let read_only: String = fetch_scalar(connection, "SHOW transaction_read_only").await?;
    if read_only == "off" {
        Ok(())
    } else {
        let problem = "the database is read-only".to_owned();
        Err(StoreError::Unavailable(problem))
    }
}

/// Returns the timeline of the server: the number of promotions of a standby before its present
/// writes. Of two servers that both accept writes, the one that was promoted last is the primary.
/// Zero if the server does not report it.
pub(super) async fn timeline(connection: &mut PgConnection) -> i64 {
    // The timeline is the first eight hexadecimal digits of the name.
    let name: Result<String, _> =
        fetch_scalar(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    name.ok()
        .and_then(|name| i64::from_str_radix(name.get(..8)?, 16).ok())
        .unwrap_or_default()
}

/// Verifies that the database loads a record as requests do first, and accepts writes.
pub(super) async fn ping(connection: &mut PgConnection) -> Result<(), StoreError> {
    // No recipient has this key.
    let unused_key: [&[u8]; 1] = [&[0; size_of::<RecordKey>()]];
    load::load(connection, &unused_key, &[]).await?;
    ensure_writable(connection).await
}

/// Verifies that the database accepts the writes of a request, and rolls them back. Only a write
/// detects a full disk, a lock or a missing permission.
///
/// It consumes the connection. If it is cancelled while a transaction begins, that transaction stays
/// open and sqlx does not know of it. A pool would take such a connection back, and later writes on
/// it would be acknowledged and never committed.
pub(super) async fn probe_write(
    mut connection: PgConnection,
    pooling: Pooling,
    settings: &SessionSettings,
) -> Result<(), StoreError> {
    let mut key = [0; size_of::<RecordKey>()];
    os_rng().fill_bytes(&mut key);
    let padding = [0; PROBE_ROW_BYTES];
    pooling.begin_transaction(&mut connection, settings).await?;
    sqlx::query!(
        "INSERT INTO otp_record (
             record_key, version, caller, purpose, challenge, state, channel, created_at,
             expires_at, attempts, sent_at, failures, failed_at, hour_full_at, day_full_at,
             memory, written_at, removable_at
         ) VALUES ($1, 0, '', '', $2, 'spent', '', 0, 0, 0, 0, 0, 0, 0, 0, $3, 0, 0)",
        &key[..],
        &key[..16],
        &padding[..],
    )
    .execute(&mut connection)
    .await?;
    sqlx::query!(
        "INSERT INTO otp_message (
             record_key, message_id, version, challenge, channel, predecessors, state,
             provider, history, created_at, updated_at, expires_at, removable_at
         ) VALUES ($1, $2, 0, $2, '', 0, 'dropped', '', $3, 0, 0, 0, 0)",
        &key[..],
        &key[..16],
        &padding[..],
    )
    .execute(&mut connection)
    .await?;
    connection.execute("ROLLBACK").await?;
    Ok(())
}
