//! Conformance of a store: messages.

use std::{collections::HashSet, sync::Arc, time::Duration};

use otpd::{
    keys::os_rng,
    store::{
        FoundMessage, LaneCursor, LimitWrite, MessageWrite, Place, RecordStore, RecordWrite,
        RowVersion, SealedBytes, UNFINISHED_MESSAGE_RETENTION, VersionedMessage, WriteBatch,
    },
};
use otpd_rules::{
    AttemptLog, CallerName, ChallengeNonce, Channel, DeliveryErrorKind, LoggedAttempt, MessageId,
    MessageState, NextState, OutboxMessage, PossibleCopies, PurposePolicy, RecordKey, Timestamp,
};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    limits::new_limit,
    suite::{new_record, random_key, successor},
};
use crate::support::Database;

/// Runs every case; panics in the first that fails.
pub async fn run<S: RecordStore>(store: &Arc<S>, database: &Database) {
    a_message_is_written_with_its_record_or_not_at_all(&**store).await;
    what_was_written_of_a_message_is_loaded_unchanged(&**store).await;
    only_the_expected_version_of_a_message_is_replaced(&**store).await;
    of_replicas_that_take_a_message_over_one_has_it(store).await;
    what_is_due_is_found_oldest_first(&**store, database).await;
    lanes_are_looked_through_one_by_one(&**store).await;
    a_message_that_cannot_be_read_hides_no_other_one(&**store, database).await;
    removable_messages_are_purged(&**store).await;
}

async fn a_message_is_written_with_its_record_or_not_at_all<S: RecordStore>(store: &S) {
    let record = new_record();
    let with_messages = |records: &[&RecordWrite], limits: &[LimitWrite]| WriteBatch {
        limits: limits.to_vec(),
        records: records.iter().copied().cloned().collect(),
        messages: records
            .iter()
            .map(|record| new_message(record.key, far()))
            .collect(),
    };
    let limit = new_limit(far());
    let paid = RecordWrite {
        limits: vec![limit.key],
        ..record.clone()
    };
    let written = store.write(&with_messages(&[&paid], &[limit])).await;
    assert!(
        written
            .expect("a write works")
            .records
            .contains(&record.key)
    );
    assert_eq!(messages_of(store, record.key).await.len(), 1);

    // The record is not as expected.
    let lost = with_messages(&[&record], &[]);
    // The limit is not as expected, so neither is the record written.
    let unpaid = with_messages(&[&successor(&paid)], &[limit]);
    for changes in [lost, unpaid] {
        let written = store.write(&changes).await;
        assert!(written.expect("a write works").records.is_empty());
        let count = messages_of(store, record.key).await.len();
        assert_eq!(count, 1, "a message without its record was written");
    }

    // In one batch some are written and some are not, some records have two, and old
    // messages go with new ones.
    let old = messages_of(store, record.key).await.remove(0);
    let (fresh, other) = (new_record(), new_record());
    let mut batch = with_messages(&[&record, &fresh, &other], &[]);
    batch.messages.push(new_message(fresh.key, far()));
    let settled = MessageWrite {
        key: old.key,
        expected: Some(old.version),
        version: RowVersion::random(&mut os_rng()),
        message: old.message.transition_to(NextState::Failed, at(7)),
    };
    batch.messages.push(settled.clone());
    let written = store.write(&batch).await.expect("a write works");
    assert_eq!(written.messages, HashSet::from([settled.message.id]));
    for (key, count) in [(record.key, 1), (fresh.key, 2), (other.key, 1)] {
        assert_eq!(messages_of(store, key).await.len(), count);
    }
}

async fn what_was_written_of_a_message_is_loaded_unchanged<S: RecordStore>(store: &S) {
    let attempt = |error| LoggedAttempt {
        provider: "смс".to_owned(),
        channel: Channel::Voice,
        started_at: at(5),
        ended_at: at(6),
        error,
    };
    let sealed = || SealedBytes((0..=255).collect());
    for (state, due_at) in [
        (MessageState::Queued(sealed()), Some(at(i64::MAX))),
        (
            MessageState::Sending(SealedBytes(Vec::new())),
            Some(at(i64::MAX)),
        ),
        (MessageState::Sent, None),
        (MessageState::Failed, None),
        (MessageState::Dropped, None),
    ] {
        let mut change = insert(store, far()).await;
        change.expected = Some(change.version);
        change.version = RowVersion::random(&mut os_rng());
        change.message.state = state;
        change.message.due_at = due_at;
        "смс".clone_into(&mut change.message.provider);
        change.message.history = AttemptLog {
            possible_copies: vec![PossibleCopies {
                provider: "sms_ru".to_owned(),
                count: 1,
            }],
            attempt_open: true,
            count: u32::MAX,
            newest: vec![
                attempt(None),
                attempt(Some(DeliveryErrorKind::Timeout)),
                attempt(Some(DeliveryErrorKind::NoBalance)),
            ],
        };
        assert!(written(store, &change).await);
        let loaded = messages_of(store, change.key).await.remove(0);
        assert_eq!(loaded.version, change.version);
        assert_eq!(
            format!("{:?}", loaded.message),
            format!("{:?}", change.message)
        );
    }
}

async fn only_the_expected_version_of_a_message_is_replaced<S: RecordStore>(store: &S) {
    let first = insert(store, far()).await;
    let second = next(&first, NextState::Leased(far()));
    assert!(written(store, &second).await);
    let stale = next(&first, NextState::Failed);
    assert!(
        !written(store, &stale).await,
        "no version check: a message was replaced that had changed"
    );
    let mut absent = next(&second, NextState::Failed);
    absent.key = random_key();
    assert!(!written(store, &absent).await);

    // In one batch some are as expected and some are not.
    let other = insert(store, far()).await;
    let batch = [
        next(&first, NextState::Failed),
        next(&other, NextState::Failed),
    ];
    let done = replace(store, &batch).await;
    assert_eq!(done, HashSet::from([other.message.id]));
    let kept = messages_of(store, first.key).await.remove(0);
    assert_eq!(kept.version, second.version);
    assert!(replace(store, &[]).await.is_empty());
}

async fn of_replicas_that_take_a_message_over_one_has_it<S: RecordStore>(store: &Arc<S>) {
    for _ in 0..20 {
        let message = insert(&**store, at(0)).await;
        let start = Arc::new(Barrier::new(4));
        let mut racers = JoinSet::new();
        for _ in 0..4 {
            let (store, start) = (Arc::clone(store), Arc::clone(&start));
            let change = next(&message, NextState::Leased(far()));
            racers.spawn(async move {
                start.wait().await;
                written(&*store, &change).await
            });
        }
        let won = racers.join_all().await.into_iter().filter(|won| *won);
        assert_eq!(won.count(), 1);
    }
}

async fn what_is_due_is_found_oldest_first<S: RecordStore>(store: &S, database: &Database) {
    drain(store).await;
    let now = store
        .load(&[], &[])
        .await
        .expect("a load works")
        .clock
        .now();
    let mut due = Vec::new();
    for age in [30, 10, 20] {
        let created_at = now.saturating_sub(Duration::from_secs(age));
        due.push((created_at, insert_at(store, created_at, now).await));
    }
    insert_at(store, now.saturating_sub(Duration::from_secs(40)), far()).await;
    let sent = insert_at(store, now.saturating_sub(Duration::from_secs(50)), now).await;
    assert!(written(store, &next(&sent, NextState::Failed)).await);
    due.sort_by_key(|(created_at, _)| *created_at);
    let expected: Vec<MessageId> = due.iter().map(|(_, change)| change.message.id).collect();
    assert_eq!(ids(store, 10).await, expected);
    assert_eq!(ids(store, 2).await, expected[..2]);

    // A message that is not due yet becomes so; and where the clock stepped back, one
    // that seems to have been written in the future is looked after at once.
    drain(store).await;
    let later = insert_at(store, now, now.saturating_add(Duration::from_mins(1))).await;
    assert_eq!(ids(store, 10).await, []);
    database.advance_clock(Duration::from_secs(61)).await;
    assert_eq!(ids(store, 10).await, [later.message.id]);
    drain(store).await;
    let ahead = insert_at(store, now, now.saturating_add(Duration::from_mins(10))).await;
    database.set_clock_offset(-3_600_000).await;
    assert!(ids(store, 10).await.contains(&ahead.message.id));
    database.set_clock_offset(0).await;
    drain(store).await;
}

async fn lanes_are_looked_through_one_by_one<S: RecordStore>(store: &S) {
    drain(store).await;
    let mut expected = Vec::new();
    for lane in ["b", "a"] {
        // Two of one instant, and one that is older.
        for created_at in [2, 2, 1] {
            let mut record = new_record();
            record.record.caller = CallerName::new(lane);
            let mut message = new_message(record.key, at(0));
            message.message.created_at = at(created_at);
            let place = Place {
                created_at: at(created_at),
                id: message.message.id,
            };
            expected.push((lane, place));
            let changes = WriteBatch {
                limits: Vec::new(),
                records: vec![record],
                messages: vec![message],
            };
            store.write(&changes).await.expect("a write works");
        }
    }
    // Other cases left messages behind that are not due.
    let lanes = store.waiting_lanes().await.expect("a load works");
    assert_eq!(lanes, ["a", "b", "caller"].map(CallerName::new));
    for lane in ["a", "b"] {
        let mut of_it: Vec<Place> = Vec::new();
        loop {
            let turns = [
                turn(lane, of_it.last().copied(), 1),
                turn("nobody", None, 10),
            ];
            let found = store.due_messages(&turns).await.expect("a load works");
            let Some(found) = found.first() else { break };
            assert_eq!(found.lane.as_str(), lane);
            of_it.push(found.place);
        }
        let expected = expected.iter().filter(|(name, _)| *name == lane);
        let mut expected: Vec<Place> = expected.map(|(_, place)| *place).collect();
        expected.sort_unstable();
        assert_eq!(of_it, expected);
    }
    let all = [turn("a", None, 2), turn("b", None, 10)];
    let found = store.due_messages(&all).await.expect("a load works");
    assert!(found.is_sorted_by_key(|found| found.place));
    let of_a = found.iter().filter(|found| found.lane.as_str() == "a");
    assert_eq!((of_a.count(), found.len()), (2, 5));
    drain(store).await;
    let lanes = store.waiting_lanes().await.expect("a load works");
    assert_eq!(lanes, [CallerName::new("caller")]);
}

async fn a_message_that_cannot_be_read_hides_no_other_one<S: RecordStore>(
    store: &S,
    database: &Database,
) {
    drain(store).await;
    let record = new_record();
    let messages = [3, 2, 1].map(|created_at| {
        let mut message = new_message(record.key, at(0));
        message.message.created_at = at(created_at);
        message
    });
    let ids = [2, 1, 0].map(|index: usize| messages[index].message.id);
    let (key, changes) = (
        record.key,
        WriteBatch {
            limits: Vec::new(),
            records: vec![record],
            messages: messages.into(),
        },
    );
    store.write(&changes).await.expect("a write works");
    for (column, value) in database.unreadable_columns() {
        // Like a row of a newer version, or of a broken disk.
        let jam = format!("UPDATE otp_message SET {column} = {value} WHERE created_at = 2");
        database.execute(&jam).await;
        let of_record = store.load_messages(&[key]).await.expect("a load works");
        let due = store.due_messages(&[turn("caller", None, 10)]).await;
        for found in [of_record, due.expect("a load works")] {
            let seen: Vec<_> = found
                .iter()
                .map(|found| (found.place.id, found.message.is_ok()))
                .collect();
            assert_eq!(seen, [(ids[0], true), (ids[1], false), (ids[2], true)]);
        }
    }
    database
        .execute("DELETE FROM otp_message WHERE created_at = 2")
        .await;
    drain(store).await;
}

async fn removable_messages_are_purged<S: RecordStore>(store: &S) {
    let retention = PurposePolicy::EXPIRED_RETENTION;
    let mut pending = insert(store, far()).await;
    let mut final_one = insert(store, far()).await;
    for (change, then) in [
        (&mut pending, NextState::Leased(far())),
        (&mut final_one, NextState::Failed),
    ] {
        let mut ended = next(change, then);
        ended.message.expires_at = at(1_000);
        assert!(written(store, &ended).await);
    }
    let removable = at(1_000).saturating_add(retention);
    store
        .purge(removable.saturating_sub(Duration::from_millis(1)), 1_000)
        .await
        .expect("a purge works");
    for key in [final_one.key, pending.key] {
        assert_eq!(messages_of(store, key).await.len(), 1);
    }
    // One that is not final may still be ended, unless no replica can read it.
    store.purge(removable, 1_000).await.expect("a purge works");
    assert_eq!(messages_of(store, final_one.key).await.len(), 0);
    assert_eq!(messages_of(store, pending.key).await.len(), 1);
    let later = removable.saturating_add(UNFINISHED_MESSAGE_RETENTION);
    store.purge(later, 1_000).await.expect("a purge works");
    assert_eq!(messages_of(store, pending.key).await.len(), 0);
}

const fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

/// Returns a time after the end of all tests, to which durations can be added.
const fn far() -> Timestamp {
    at(i64::MAX / 2)
}

fn new_message(key: RecordKey, due_at: Timestamp) -> MessageWrite {
    MessageWrite {
        key,
        expected: None,
        version: RowVersion::random(&mut os_rng()),
        message: OutboxMessage {
            id: MessageId::generate(&mut os_rng()),
            challenge: ChallengeNonce([7; 16]),
            channel: Channel::Sms,
            predecessors: 3,
            state: MessageState::Sending(SealedBytes(vec![0, 255, 1])),
            provider: String::new(),
            history: AttemptLog::default(),
            created_at: at(0),
            updated_at: at(0),
            expires_at: far(),
            due_at: Some(due_at),
        },
    }
}

/// Returns a change of the message that `change` wrote.
fn next(change: &MessageWrite, then: NextState) -> MessageWrite {
    let updated_at = change.message.updated_at;
    MessageWrite {
        key: change.key,
        expected: Some(change.version),
        version: RowVersion::random(&mut os_rng()),
        message: change.message.clone().transition_to(then, updated_at),
    }
}

/// Writes a message with a record of its own.
async fn insert<S: RecordStore>(store: &S, due_at: Timestamp) -> MessageWrite {
    insert_at(store, at(0), due_at).await
}

async fn insert_at<S: RecordStore>(
    store: &S,
    created_at: Timestamp,
    due_at: Timestamp,
) -> MessageWrite {
    let record = new_record();
    let mut message = new_message(record.key, due_at);
    message.message.created_at = created_at;
    message.message.updated_at = created_at;
    let changes = WriteBatch {
        limits: Vec::new(),
        records: vec![record],
        messages: vec![message.clone()],
    };
    store.write(&changes).await.expect("a write works");
    message
}

async fn written<S: RecordStore>(store: &S, change: &MessageWrite) -> bool {
    !replace(store, std::slice::from_ref(change))
        .await
        .is_empty()
}

/// Replaces messages, and returns which were as expected.
async fn replace<S: RecordStore>(store: &S, messages: &[MessageWrite]) -> HashSet<MessageId> {
    let changes = WriteBatch {
        messages: messages.to_vec(),
        ..WriteBatch::default()
    };
    let written = store.write(&changes).await.expect("a write works");
    written.messages
}

fn turn(lane: &str, after: Option<Place>, most: u32) -> LaneCursor {
    LaneCursor {
        lane: CallerName::new(lane),
        after,
        most,
    }
}

fn read(found: Vec<FoundMessage>) -> Vec<VersionedMessage> {
    let messages = found.into_iter().map(|found| found.message);
    messages.collect::<Result<_, _>>().expect("otpd wrote them")
}

async fn messages_of<S: RecordStore>(store: &S, key: RecordKey) -> Vec<VersionedMessage> {
    read(store.load_messages(&[key]).await.expect("a load works"))
}

async fn ids<S: RecordStore>(store: &S, limit: u32) -> Vec<MessageId> {
    let due = store.due_messages(&[turn("caller", None, limit)]).await;
    let due = due.expect("a load works").into_iter();
    due.map(|due| due.place.id).collect()
}

/// Ends every message that is due, those of other cases too.
async fn drain<S: RecordStore>(store: &S) {
    loop {
        let lanes = store.waiting_lanes().await.expect("a load works");
        let turns: Vec<LaneCursor> = lanes
            .iter()
            .map(|lane| turn(lane.as_str(), None, 100))
            .collect();
        let due = read(store.due_messages(&turns).await.expect("a load works"));
        if due.is_empty() {
            return;
        }
        let changes: Vec<MessageWrite> = due
            .into_iter()
            .map(|due| MessageWrite {
                key: due.key,
                expected: Some(due.version),
                version: RowVersion::random(&mut os_rng()),
                message: due.message.transition_to(NextState::Failed, at(0)),
            })
            .collect();
        replace(store, &changes).await;
    }
}
