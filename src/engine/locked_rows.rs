//! Isolation of the requests about rows that another session keeps locked.

use std::collections::HashSet;

use super::{
    Job,
    queued_job::{KeySet, QueuedJob, fail_all},
};
use crate::store::{LockedRows, RecordStore, StoreError};
use otpd_rules::RecordKey;

/// Maximum number of remembered records. They are forgotten if more are locked than that.
const MAX_REMEMBERED: usize = 1_000;

/// Records whose row was locked when a write of their own waited for it. A later batch does not wait
/// for them again: it asks first whether they are still locked.
#[derive(Debug, Default)]
pub(super) struct LockedRecords(HashSet<RecordKey>);

impl LockedRecords {
    /// Remembers the record of a job that failed alone because of a lock.
    pub fn remember(&mut self, job: &QueuedJob) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        self.0.extend(job.job().map(Job::record));
    }

    /// Ends the jobs about remembered records that are still locked.
    pub async fn refuse<Store: RecordStore + ?Sized>(
        &mut self,
        store: &Store,
        batch: Vec<QueuedJob>,
    ) -> Vec<QueuedJob> {
        let jobs = batch.iter().filter_map(QueuedJob::job);
        let mut keys: Vec<RecordKey> = jobs
            .map(Job::record)
            .filter(|key| self.0.contains(key))
            .collect();
        if keys.is_empty() {
            return batch;
        }
        keys.sort_unstable();
        keys.dedup();
        // After an error the batch finds out.
        let locked = store.locked_rows(&keys, &[]).await.unwrap_or_default();
        for key in &keys {
            if !locked.records.contains(key) {
                self.0.remove(key);
            }
        }
        let (refused, rest) = partition(batch, &locked);
        let problem = "another session still holds the lock of the row";
        fail_all(refused, &StoreError::Locked(problem.to_owned()).into());
        rest
    }
}

/// Splits a batch whose write waited too long for a lock: jobs about rows that are not locked now,
/// and the others. The others include those about rows that another replica writes at this moment.
///
/// # Errors
/// All jobs, if the store cannot find out, such as while a table is locked.
pub(super) async fn split<Store: RecordStore + ?Sized>(
    store: &Store,
    batch: Vec<QueuedJob>,
) -> Result<(Vec<QueuedJob>, Vec<QueuedJob>), Vec<QueuedJob>> {
    let keys = KeySet::of(&batch);
    let Ok(locked) = store.locked_rows(&keys.records, &keys.limits).await else {
        return Err(batch);
    };
    let (suspects, free) = partition(batch, &locked);
    Ok((free, suspects))
}

/// Returns the jobs about locked rows, and the others.
fn partition(batch: Vec<QueuedJob>, locked: &LockedRows) -> (Vec<QueuedJob>, Vec<QueuedJob>) {
    batch.into_iter().partition(|item| {
        item.job().is_some_and(|job| {
            locked.records.contains(&job.record())
                || job
                    .limits()
                    .iter()
                    .any(|limit| locked.limits.contains(limit))
        })
    })
}
