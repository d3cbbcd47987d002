//! How many of the codes that were sent are verified, and who had delivered those.
//!
//! A replica remembers for a while what it sent itself. But whoever verifies a code need
//! not have sent it, and its record does not say who did. So the others are gathered, and
//! once in a while the messages of all of them are looked up by one statement, off the way
//! of every request.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;

use super::SELF_DELIVERY_PROVIDER;
use crate::{
    metrics::DeliveryMetrics,
    store::{DeliveredMessage, RecordStoreHandle, health::StoreHealth},
};
use otpd_rules::{Caller, ChallengeId, Channel, CountryCode, Recipient};

/// How long codes are gathered. By then it is written down, but seldom, who had
/// delivered them.
const ATTRIBUTION_INTERVAL: Duration = Duration::from_secs(1);
/// How often a code is looked up before it is taken for one that nobody delivered, as
/// that of a test recipient.
const MAX_LOOKUPS: u8 = 3;
/// How many verified codes wait at most; of more than that in a round it is not known
/// who delivered them.
const MOST_WAITING: usize = 65_536;
/// How many are looked up by one statement.
const BATCH: usize = 1_000;

/// A verified code of which it is to be found out who delivered it.
#[derive(Debug)]
pub struct PendingAttribution {
    challenge: ChallengeId,
    country: CountryCode,
    looks: u8,
}

/// Counts the codes that reach people.
#[derive(Clone, Debug)]
pub struct ConversionTracker {
    metrics: DeliveryMetrics,
    /// Nobody looks where nobody scrapes.
    waiting: Option<mpsc::Sender<PendingAttribution>>,
}

impl ConversionTracker {
    /// Counts nothing.
    pub fn disabled() -> Self {
        Self {
            metrics: DeliveryMetrics::default(),
            waiting: None,
        }
    }

    /// Counts in `metrics`. What is verified is to be given to [`ConversionTracker::count`].
    pub fn new(metrics: DeliveryMetrics) -> (Self, mpsc::Receiver<PendingAttribution>) {
        metrics.remember();
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let conversions = Self {
            metrics,
            waiting: Some(sender),
        };
        (conversions, receiver)
    }

    /// A caller was given a code that it delivers by itself.
    pub(super) fn record_self_delivered(&self, channel: Channel, recipient: &Recipient) {
        if self.waiting.is_some() {
            self.metrics.self_delivered(
                SELF_DELIVERY_PROVIDER,
                channel,
                CountryCode::of(recipient),
            );
        }
    }

    /// A code of `caller` was verified.
    pub(super) fn verified(
        &self,
        caller: &Caller,
        challenge: ChallengeId,
        channel: Channel,
        recipient: &Recipient,
    ) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        let country = CountryCode::of(recipient);
        if caller.self_delivery {
            return self
                .metrics
                .verified(SELF_DELIVERY_PROVIDER, channel, country);
        }
        if self.metrics.verified_here(challenge.nonce, country) {
            return;
        }
        let verified = PendingAttribution {
            challenge,
            country,
            looks: 0,
        };
        if waiting.try_send(verified).is_err() {
            // No provider has an empty name: it counts among the others.
            self.metrics.verified("", channel, country);
        }
    }

    /// Finds out who delivered what was verified, for ever.
    pub async fn count(
        metrics: DeliveryMetrics,
        mut waiting: mpsc::Receiver<PendingAttribution>,
        store: Arc<RecordStoreHandle>,
        availability: StoreHealth,
    ) {
        let mut left = Vec::new();
        loop {
            tokio::time::sleep(ATTRIBUTION_INTERVAL).await;
            while left.len() < MOST_WAITING
                && let Ok(verified) = waiting.try_recv()
            {
                left.push(verified);
            }
            if !availability.is_available() {
                continue;
            }
            let mut again = Vec::new();
            while !left.is_empty() {
                let batch = left.split_off(left.len().saturating_sub(BATCH));
                again.extend(attribute_batch(&metrics, batch, &store).await);
            }
            left = again;
        }
    }
}

/// Counts those of a batch of whom it is known who delivered them, and returns those who
/// are to be looked up again.
async fn attribute_batch(
    metrics: &DeliveryMetrics,
    batch: Vec<PendingAttribution>,
    store: &RecordStoreHandle,
) -> Vec<PendingAttribution> {
    let keys: BTreeSet<_> = batch
        .iter()
        .map(|verified| verified.challenge.key)
        .collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let delivered = match store.deliveries(&keys).await {
        Ok(delivered) => delivered,
        Err(error) => {
            tracing::debug!(%error, "[OTP] Delivery attribution postponed");
            return batch;
        }
    };
    // Of several messages of a challenge the last one counts.
    let last: HashMap<_, &DeliveredMessage> = delivered
        .iter()
        .map(|message| ((message.key, message.challenge.0), message))
        .collect();
    let mut again = Vec::new();
    for mut verified in batch {
        let challenge = (verified.challenge.key, verified.challenge.nonce.0);
        if let Some(message) = last.get(&challenge) {
            metrics.verified(&message.provider, message.channel, verified.country);
        } else {
            verified.looks += 1;
            if verified.looks < MAX_LOOKUPS {
                again.push(verified);
            }
        }
    }
    again
}
