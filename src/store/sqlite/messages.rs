//! Statements of the outbox.

use sqlx::{FromRow as _, Row as _, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{
    super::{
        FoundMessage, LaneCursor, MessageWrite, Place, StoreError,
        rows::count_column,
        rows::{MessageRow, history_column, key_bytes, message_state_columns},
    },
    select_by_key,
};
use otpd_rules::{CallerName, MessageId, RecordKey, Timestamp};

/// Loads the messages of records.
pub(super) async fn load(
    pool: &SqlitePool,
    records: &[RecordKey],
) -> Result<Vec<FoundMessage>, StoreError> {
    let keys = records.iter().map(|key| key.0.as_slice());
    let mut query = select_by_key("SELECT * FROM otp_message WHERE record_key IN (", keys);
    query.push(" ORDER BY created_at, message_id");
    let rows = query.build().fetch_all(pool).await?;
    rows.iter().map(found).collect()
}

/// Returns the lanes with messages that are not final. Each costs one lookup in the index,
/// whatever the number of its messages.
pub(super) async fn lanes(pool: &SqlitePool) -> Result<Vec<CallerName>, StoreError> {
    let lanes: Vec<String> = sqlx::query_scalar(
        "WITH RECURSIVE lane (caller) AS (
             SELECT min(caller) FROM otp_message WHERE due_at IS NOT NULL
             UNION ALL
             SELECT (
                 SELECT min(message.caller) FROM otp_message AS message
                 WHERE message.due_at IS NOT NULL AND message.caller > lane.caller
             )
             FROM lane
             WHERE lane.caller IS NOT NULL
         )
         SELECT caller FROM lane WHERE caller IS NOT NULL",
    )
    .fetch_all(pool)
    .await?;
    Ok(lanes.into_iter().map(CallerName::new).collect())
}

/// Loads the due messages of lanes. It takes one statement for each lane, because SQLite has no
/// lateral joins; a statement costs no round trip.
pub(super) async fn due(
    pool: &SqlitePool,
    lanes: &[LaneCursor],
) -> Result<Vec<FoundMessage>, StoreError> {
    let mut all = Vec::new();
    for lane in lanes {
        let after = lane.after.as_ref();
        let rows = sqlx::query(
            "WITH clock AS MATERIALIZED (SELECT now FROM otp_clock)
             SELECT * FROM otp_message
             WHERE due_at IS NOT NULL AND caller = ?
                 AND (created_at, message_id) > (?, ?)
                 AND (due_at <= (SELECT now FROM clock) OR updated_at > (SELECT now FROM clock))
             ORDER BY created_at, message_id
             LIMIT ?",
        )
        .bind(lane.lane.as_str())
        .bind(after.map_or(i64::MIN, |after| after.created_at.milliseconds()))
        .bind(after.map_or(&[][..], |after| &after.id.0))
        .bind(lane.most)
        .fetch_all(pool)
        .await?;
        for row in &rows {
            all.push(found(row)?);
        }
    }
    all.sort_by_key(|found: &FoundMessage| found.place);
    Ok(all)
}

/// Reads a row. It is unreadable if SQLite keeps a column in another type than the declared one;
/// the schema rules that out for the columns of the key.
fn found(row: &SqliteRow) -> Result<FoundMessage, StoreError> {
    match MessageRow::from_row(row) {
        Ok(row) => Ok(row.into_found()),
        Err(error) => {
            let key: Vec<u8> = row.try_get("record_key")?;
            let id: Vec<u8> = row.try_get("message_id")?;
            Ok(FoundMessage {
                key: RecordKey(key_bytes(&key)),
                lane: CallerName::new(row.try_get::<String, _>("caller")?),
                place: Place {
                    created_at: Timestamp::from_milliseconds(row.try_get("created_at")?),
                    id: MessageId(key_bytes(&id)),
                },
                message: Err(error.into()),
            })
        }
    }
}

/// Writes a new message.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    write: &MessageWrite,
) -> Result<(), sqlx::Error> {
    let message = &write.message;
    let (state, sealed) = message_state_columns(&message.state);
    sqlx::query(
        "INSERT INTO otp_message (
             record_key, message_id, version, challenge, channel, predecessors, state, sealed,
             provider, history, created_at, updated_at, expires_at, due_at, removable_at,
             caller
         ) VALUES (
             ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
             (SELECT caller FROM otp_record WHERE record_key = ?)
         )",
    )
    .bind(write.key.0.as_slice())
    .bind(message.id.0.as_slice())
    .bind(write.version.0)
    .bind(message.challenge.0.as_slice())
    .bind(message.channel.name())
    .bind(count_column(message.predecessors))
    .bind(state)
    .bind(sealed)
    .bind(&message.provider)
    .bind(history_column(&message.history))
    .bind(message.created_at.milliseconds())
    .bind(message.updated_at.milliseconds())
    .bind(message.expires_at.milliseconds())
    .bind(message.due_at.map(Timestamp::milliseconds))
    .bind(message.removable_at().milliseconds())
    .bind(write.key.0.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Updates a message if its version matches, and returns whether it did.
pub(super) async fn update(
    connection: &mut SqliteConnection,
    write: &MessageWrite,
) -> Result<bool, sqlx::Error> {
    let message = &write.message;
    let (state, sealed) = message_state_columns(&message.state);
    let result = sqlx::query(
        "UPDATE otp_message
         SET version = ?, state = ?, sealed = ?, provider = ?, history = ?, updated_at = ?,
             expires_at = ?, due_at = ?, removable_at = ?
         WHERE record_key = ? AND message_id = ? AND version = ?",
    )
    .bind(write.version.0)
    .bind(state)
    .bind(sealed)
    .bind(&message.provider)
    .bind(history_column(&message.history))
    .bind(message.updated_at.milliseconds())
    .bind(message.expires_at.milliseconds())
    .bind(message.due_at.map(Timestamp::milliseconds))
    .bind(message.removable_at().milliseconds())
    .bind(write.key.0.as_slice())
    .bind(message.id.0.as_slice())
    .bind(write.expected.map(|version| version.0))
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}
