//! Jobs that read the messages of their records.

use super::*;

fn read(fixture: &Fixture, byte: u8) -> PendingJob {
    let mut count = Count::of(key(byte));
    count.looks = true;
    count.reads_messages = true;
    fixture.submit(count)
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_batch_are_loaded_by_one_statement() {
    let fixture = Fixture::held(OPTIONS);
    let readers: Vec<PendingJob> = [1, 2, 1].map(|byte| read(&fixture, byte)).into();
    let count = fixture.count(key(3));
    fixture.store.let_loads(1);
    fixture.store.let_writes(1);
    for (reader, byte) in readers.into_iter().zip([1, 2, 1]) {
        let messages = reader.end().await.unwrap().messages;
        assert_eq!(messages, [MessageId([byte; 16])]);
    }
    assert_eq!(count.count().await, 1);
    assert_eq!(fixture.store.message_loads(), [[key(1), key(2)]]);
    assert_eq!(fixture.store.loads(), [3]);
}

#[tokio::test(start_paused = true)]
async fn messages_are_loaded_while_the_batch_is_written() {
    let fixture = Fixture::held(OPTIONS);
    let reader = read(&fixture, 1);
    let mut count = fixture.count(key(2));
    fixture.store.let_loads(1);
    assert_eq!(reader.end().await.unwrap().messages.len(), 1);
    assert!(!count.has_ended());
    fixture.store.let_writes(1);
    assert_eq!(count.count().await, 1);
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_written_record_are_loaded_after_the_write() {
    let fixture = Fixture::held(OPTIONS);
    let count = fixture.count(key(1));
    let reader = read(&fixture, 1);
    fixture.store.let_loads(1);
    fixture.store.let_writes(1);
    assert_eq!(count.count().await, 1);
    assert!(fixture.store.message_loads().is_empty());
    fixture.store.let_loads(1);
    let read = reader.end().await.unwrap();
    assert_eq!((read.count, read.tries), (1, 2));
    assert_eq!(fixture.store.message_loads(), [[key(1)]]);
}

#[tokio::test(start_paused = true)]
async fn unreadable_message_fails_its_own_reader_only() {
    let fixture = Fixture::held(OPTIONS);
    fixture.store.poison_messages(key(2));
    let readers: Vec<PendingJob> = (1..=4).map(|byte| read(&fixture, byte)).collect();
    fixture.store.let_loads(1);
    for (byte, reader) in (1..).zip(readers) {
        let end = reader.end().await;
        if byte == 2 {
            let is_corrupt = matches!(end, Err(BatchError::Store(StoreError::Corrupt(_))));
            assert!(is_corrupt, "{end:?}");
        } else {
            assert_eq!(end.unwrap().messages, [MessageId([byte; 16])]);
        }
    }
}
