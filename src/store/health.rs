//! Whether the store answers, found out by asking it.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::{RecordStoreHandle, StoreError, StoreOptions};
use crate::log_targets::STATE_CHANGE;

/// Whether the store answers. While it does not, requests are refused at once
/// instead of each waiting for its own time-out.
#[derive(Clone, Debug)]
pub struct StoreHealth {
    answers: watch::Receiver<bool>,
    doubt: Arc<Notify>,
}

impl StoreHealth {
    /// One that nobody asks about.
    #[cfg(test)]
    pub fn fixed(answers: bool) -> Self {
        Self {
            answers: watch::channel(answers).1,
            doubt: Arc::default(),
        }
    }

    /// Whether the store answered when last asked.
    pub fn is_available(&self) -> bool {
        *self.answers.borrow()
    }

    /// Has the store asked now rather than at the next turn.
    pub fn request_probe(&self) {
        self.doubt.notify_one();
    }

    /// Waits until the store answers, or ceases to: whatever it does not do now.
    pub async fn changed(&mut self) -> bool {
        // An error means that nobody asks any more, so nothing changes ever again.
        if self.answers.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.answers.borrow_and_update()
    }
}

/// Asks the store for a sign of life, for ever.
#[derive(Debug)]
pub struct HealthMonitor {
    store: Arc<RecordStoreHandle>,
    options: StoreOptions,
    index_key_fingerprint: [u8; 32],
    answers: watch::Sender<bool>,
    doubt: Arc<Notify>,
}

impl HealthMonitor {
    /// A monitor of `store`, whose records must be of the index key of
    /// `index_key_fingerprint`.
    pub fn new(
        store: Arc<RecordStoreHandle>,
        options: StoreOptions,
        index_key_fingerprint: [u8; 32],
    ) -> (Self, StoreHealth) {
        let (sender, answers) = watch::channel(false);
        let doubt = Arc::new(Notify::new());
        let availability = StoreHealth {
            answers,
            doubt: Arc::clone(&doubt),
        };
        (
            Self {
                store,
                options,
                index_key_fingerprint,
                answers: sender,
                doubt,
            },
            availability,
        )
    }

    /// Brings the store's schema up to date as soon as it answers, then keeps asking.
    /// After each silence it may be another store: restored, or on another server. So
    /// the schema and the index key are looked at again. Each cause of a silence is
    /// logged once, and so is its end.
    ///
    /// # Errors
    /// [`StoreError::IndexKeyMismatch`]: this replica must not serve.
    pub async fn run(self) -> Result<(), StoreError> {
        let mut prepared = false;
        let mut causes = ReportedErrors::default();
        loop {
            match self.probe(prepared).await {
                Ok(()) => {
                    prepared = true;
                    if !self.answers.send_replace(true) {
                        tracing::info!("[OTP] Store available");
                    }
                    causes = ReportedErrors::default();
                }
                Err(StoreError::IndexKeyMismatch) => return Err(StoreError::IndexKeyMismatch),
                Err(error) => {
                    prepared = false;
                    self.answers.send_replace(false);
                    let cause = error.to_string();
                    if causes.insert_if_new(&cause) {
                        tracing::error!(target: STATE_CHANGE, %cause, "[OTP] Store unavailable");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.probe_interval) => {}
                () = self.doubt.notified() => {}
            }
        }
    }

    async fn probe(&self, prepared: bool) -> Result<(), StoreError> {
        if !prepared {
            self.prepare().await?;
        }
        self.store.probe().await
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.store.migrate().await?;
        self.store
            .verify_index_key(&self.index_key_fingerprint)
            .await
    }
}

/// Why the store is silent, as far as it was told. A store that is about to come back
/// may say something else each time it is asked.
#[derive(Debug, Default)]
struct ReportedErrors(Vec<String>);

impl ReportedErrors {
    /// More are not told: somebody knows by then, and a log that is full of one outage
    /// hides all else.
    const MOST: usize = 5;

    fn insert_if_new(&mut self, cause: &str) -> bool {
        let news = self.0.len() < Self::MOST && self.0.iter().all(|known| known != cause);
        if news {
            self.0.push(cause.to_owned());
        }
        news
    }
}
