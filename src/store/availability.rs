//! Whether the store answers, found out by asking it.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::{Store, StoreError, StoreOptions};

/// Whether the store answers. While it does not, requests are refused at once
/// instead of each waiting for its own time-out.
#[derive(Clone, Debug)]
pub struct Availability {
    answers: watch::Receiver<bool>,
    doubt: Arc<Notify>,
}

impl Availability {
    /// One that nobody asks about.
    #[cfg(test)]
    pub fn fixed(answers: bool) -> Self {
        Self {
            answers: watch::channel(answers).1,
            doubt: Arc::default(),
        }
    }

    /// Whether the store answered when last asked.
    pub fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// Has the store asked now rather than at the next turn.
    pub fn doubt(&self) {
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
pub struct Monitor {
    store: Arc<Store>,
    options: StoreOptions,
    index_key_fingerprint: [u8; 32],
    answers: watch::Sender<bool>,
    doubt: Arc<Notify>,
}

impl Monitor {
    /// A monitor of `store`, whose records must be of the index key of
    /// `index_key_fingerprint`.
    pub fn new(
        store: Arc<Store>,
        options: StoreOptions,
        index_key_fingerprint: [u8; 32],
    ) -> (Self, Availability) {
        let (sender, answers) = watch::channel(false);
        let doubt = Arc::new(Notify::new());
        let availability = Availability {
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

    /// Brings the store's schema up to date as soon as it answers, then keeps
    /// asking. Each cause of silence is logged once, and so is its end.
    ///
    /// # Errors
    /// [`StoreError::OtherIndexKey`]: this replica must not serve.
    pub async fn run(self) -> Result<(), StoreError> {
        let mut prepared = false;
        let mut logged_cause = None;
        loop {
            let answer = if prepared {
                self.store.probe().await
            } else {
                self.prepare().await
            };
            match answer {
                Ok(()) => {
                    prepared = true;
                    if !self.answers.send_replace(true) {
                        tracing::info!("[OTP] Store answers");
                    }
                    logged_cause = None;
                }
                Err(StoreError::OtherIndexKey) => return Err(StoreError::OtherIndexKey),
                Err(error) => {
                    self.answers.send_replace(false);
                    let cause = error.to_string();
                    if logged_cause.as_ref() != Some(&cause) {
                        tracing::error!(target: "otpd_change", %cause, "[OTP] Store unavailable");
                        logged_cause = Some(cause);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.probe_interval) => {}
                () = self.doubt.notified() => {}
            }
        }
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.store.migrate().await?;
        self.store
            .hold_to_index_key(&self.index_key_fingerprint)
            .await
    }
}
