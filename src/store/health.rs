//! Health check of the store.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::{RecordStore, StoreError, StoreOptions};
use otpd_base::log_targets::STATE_CHANGE;

/// Result of the last health check of the store. While the store is unavailable, requests are
/// refused at once instead of each waiting for its own timeout.
#[derive(Clone, Debug)]
pub struct StoreHealth {
    available: watch::Receiver<bool>,
    probe_requested: Arc<Notify>,
}

impl StoreHealth {
    /// Returns a health that never changes.
    #[cfg(test)]
    pub fn fixed(available: bool) -> Self {
        Self {
            available: watch::channel(available).1,
            probe_requested: Arc::default(),
        }
    }

    /// Returns whether the store answered the last check.
    pub fn is_available(&self) -> bool {
        *self.available.borrow()
    }

    /// Requests a check now, not only after the interval.
    pub fn request_probe(&self) {
        self.probe_requested.notify_one();
    }

    /// Waits until the availability changes, and returns the new one.
    pub async fn changed(&mut self) -> bool {
        // An error means that the monitor has ended, so nothing changes any more.
        if self.available.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.available.borrow_and_update()
    }
}

/// Task that checks the store at an interval, without end.
#[derive(Debug)]
pub struct HealthMonitor {
    store: Arc<dyn RecordStore>,
    options: StoreOptions,
    index_key_fingerprint: [u8; 32],
    available: watch::Sender<bool>,
    probe_requested: Arc<Notify>,
}

impl HealthMonitor {
    /// Returns a monitor of `store`, whose records must belong to the index key of
    /// `index_key_fingerprint`, and the health that it updates.
    pub fn new(
        store: Arc<dyn RecordStore>,
        options: StoreOptions,
        index_key_fingerprint: [u8; 32],
    ) -> (Self, StoreHealth) {
        let (sender, available) = watch::channel(false);
        let probe_requested = Arc::new(Notify::new());
        let health = StoreHealth {
            available,
            probe_requested: Arc::clone(&probe_requested),
        };
        (
            Self {
                store,
                options,
                index_key_fingerprint,
                available: sender,
                probe_requested,
            },
            health,
        )
    }

    /// Migrates the store's schema as soon as it answers, then checks it at the interval. After an
    /// outage it may be another store: restored, or on another host. Therefore the schema and the
    /// index key are checked again. Each cause of an outage is logged once, and so is its end.
    ///
    /// # Errors
    /// [`StoreError::IndexKeyMismatch`] if this replica must not serve.
    pub async fn run(self) -> Result<(), StoreError> {
        let mut prepared = false;
        let mut reported = ReportedErrors::default();
        loop {
            match self.probe(prepared).await {
                Ok(()) => {
                    prepared = true;
                    if !self.available.send_replace(true) {
                        tracing::info!("[OTP] Store available");
                    }
                    reported = ReportedErrors::default();
                }
                Err(StoreError::IndexKeyMismatch) => return Err(StoreError::IndexKeyMismatch),
                Err(error) => {
                    prepared = false;
                    self.available.send_replace(false);
                    let cause = error.to_string();
                    if reported.insert_if_new(&cause) {
                        tracing::error!(target: STATE_CHANGE, %cause, "[OTP] Store unavailable");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.probe_interval) => {}
                () = self.probe_requested.notified() => {}
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

/// Causes of the present outage that have been logged. A store that is about to come back may
/// fail each check for another cause.
#[derive(Debug, Default)]
struct ReportedErrors(Vec<String>);

impl ReportedErrors {
    /// Maximum number of logged causes. By then the outage is known, and a log that is full of it
    /// hides everything else.
    const MAX: usize = 5;

    fn insert_if_new(&mut self, cause: &str) -> bool {
        let is_new = self.0.len() < Self::MAX && self.0.iter().all(|known| known != cause);
        if is_new {
            self.0.push(cause.to_owned());
        }
        is_new
    }
}
