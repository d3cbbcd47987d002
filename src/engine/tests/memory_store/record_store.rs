//! Interface of the store in memory.

use async_trait::async_trait;
use tokio::time::Instant;

use super::*;

#[async_trait]
impl RecordStore for InMemory {
    fn system(&self) -> &'static str {
        "memory"
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn store_fingerprint(&self, _: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
        unimplemented!("the engine does not check the index key")
    }

    async fn load(
        &self,
        records: &[RecordKey],
        limits: &[LimitKey],
    ) -> Result<LoadedState, StoreError> {
        self.loads
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        let step = {
            let mut contents = self.contents();
            contents.loads.push(records.len());
            let instead = contents.instead_of_loads.pop_front();
            contents.do_instead(instead)
        };
        match step {
            Step::Hang => std::future::pending().await,
            Step::Fail(error) => return Err(error),
            Step::Work | Step::WorkAndFail => {}
        }
        let contents = self.contents();
        if records.iter().any(|key| contents.poisoned.contains(key)) {
            return Err(StoreError::Corrupt("poison".to_owned()));
        }
        let found = |key: &RecordKey| Some((*key, contents.records.get(key)?.clone()));
        let found_limit = |key: &LimitKey| Some((*key, *contents.limits.get(key)?));
        let unreadable = |key: &&RecordKey| contents.unreadable.contains(key);
        let unreadable = records.iter().filter(unreadable);
        let error = StoreError::Corrupt("a column".to_owned());
        Ok(LoadedState {
            clock: StoreClock::from_reading(NOW, Instant::now()),
            records: records.iter().filter_map(found).collect(),
            unreadable: unreadable.map(|key| (*key, error.clone())).collect(),
            limits: limits.iter().filter_map(found_limit).collect(),
        })
    }

    async fn write(&self, changes: &WriteBatch) -> Result<WriteResult, StoreError> {
        self.writes
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        let (step, write_time) = {
            let mut contents = self.contents();
            contents.writes.push(changes.clone());
            let locked = |write: &RecordWrite| {
                contents.locked.contains(&write.key) || contents.inserted.contains(&write.key)
            };
            if changes.records.iter().any(locked) {
                return Err(StoreError::Locked("the test holds its lock".to_owned()));
            }
            let instead = contents.instead_of_writes.pop_front();
            (contents.do_instead(instead), contents.write_time)
        };
        tokio::time::sleep(write_time).await;
        match step {
            Step::Hang => std::future::pending().await,
            Step::Fail(error) => Err(error),
            Step::Work => Ok(self.contents().write(changes)),
            Step::WorkAndFail => {
                self.contents().write(changes);
                Err(unavailable())
            }
        }
    }

    async fn locked_rows(
        &self,
        records: &[RecordKey],
        _limits: &[LimitKey],
    ) -> Result<LockedRows, StoreError> {
        let mut contents = self.contents();
        contents.lock_queries.push(records.len());
        let locked = |key: &RecordKey| contents.locked.contains(key).then_some(*key);
        Ok(LockedRows {
            records: records.iter().filter_map(locked).collect(),
            ..LockedRows::default()
        })
    }

    /// One message for each record.
    async fn load_messages(&self, records: &[RecordKey]) -> Result<Vec<FoundMessage>, StoreError> {
        let mut contents = self.contents();
        contents.message_loads.push(records.to_vec());
        let found = |key: &RecordKey| {
            let id = MessageId([key.0[0]; 16]);
            let message = VersionedMessage {
                key: *key,
                version: RowVersion(1),
                message: settlement(id, RowVersion(1), 1).message,
            };
            let poison = || StoreError::Corrupt("poison".to_owned());
            FoundMessage {
                key: *key,
                lane: CallerName::new("caller"),
                place: Place {
                    created_at: at(0),
                    id,
                },
                message: Some(message)
                    .filter(|_| !contents.poisoned_messages.contains(key))
                    .ok_or_else(poison),
            }
        };
        Ok(records.iter().map(found).collect())
    }

    async fn waiting_lanes(&self) -> Result<Vec<CallerName>, StoreError> {
        unimplemented!("the engine does not look for messages")
    }

    async fn due_messages(&self, _: &[LaneCursor]) -> Result<Vec<FoundMessage>, StoreError> {
        unimplemented!("the engine does not look for messages")
    }

    async fn purge(&self, _: Timestamp, _: u32) -> Result<PurgeStats, StoreError> {
        unimplemented!("the engine does not purge")
    }

    async fn delivered_messages(
        &self,
        _: &[RecordKey],
    ) -> Result<Vec<DeliveredMessage>, StoreError> {
        unimplemented!("the engine does not look for messages")
    }

    async fn stats(&self, _: Timestamp) -> Result<StoreStats, StoreError> {
        unimplemented!("the engine does not count records")
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn connections(&self) -> (u32, u32) {
        (0, 0)
    }

    async fn close(&self) {}
}
