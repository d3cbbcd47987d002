//! Conversion: verified codes, counted by the provider that delivered them.
//!
//! A replica remembers for a while the codes that it sent itself. But a code may be verified on
//! another replica, and its record does not name the provider. So the other codes are collected,
//! and now and then their messages are looked up by one statement, outside of all requests.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;

use super::SELF_DELIVERY_PROVIDER;
use crate::{
    metrics::DeliveryMetrics,
    outbox::RecentDeliveries,
    store::{DeliveredMessage, RecordStore, health::StoreHealth},
};
use otpd_rules::{Caller, ChallengeId, Channel, CountryCode, Recipient};

/// Time for which codes are collected. By then the store usually has the provider.
const ATTRIBUTION_INTERVAL: Duration = Duration::from_secs(1);
/// Number of look-ups before a code counts as not delivered, as that of a test recipient.
const MAX_LOOKUPS: u8 = 3;
/// Maximum number of waiting codes; further ones are counted without their provider.
const MAX_PENDING: usize = 65_536;
/// Maximum number of codes in one look-up.
const BATCH: usize = 1_000;

/// A verified code whose provider is to be looked up.
#[derive(Debug)]
pub struct PendingAttribution {
    challenge: ChallengeId,
    country: CountryCode,
    lookups: u8,
}

/// Counts sent codes that are verified.
#[derive(Clone, Debug)]
pub struct ConversionTracker {
    metrics: DeliveryMetrics,
    /// Providers of the codes that this replica sent lately.
    recent: RecentDeliveries,
    /// Codes to be looked up; `None` if metrics are not scraped.
    pending: Option<mpsc::Sender<PendingAttribution>>,
}

impl ConversionTracker {
    /// Returns a tracker that counts nothing.
    pub fn disabled() -> Self {
        Self {
            metrics: DeliveryMetrics::default(),
            recent: RecentDeliveries::default(),
            pending: None,
        }
    }

    /// Returns a tracker that counts in `metrics`, and the codes for
    /// [`ConversionTracker::count`]. `recent` is that of the outbox.
    pub fn new(
        metrics: DeliveryMetrics,
        recent: RecentDeliveries,
    ) -> (Self, mpsc::Receiver<PendingAttribution>) {
        let (sender, receiver) = mpsc::channel(MAX_PENDING);
        let conversions = Self {
            metrics,
            recent,
            pending: Some(sender),
        };
        (conversions, receiver)
    }

    /// Counts a code that was returned to its caller for delivery.
    pub(super) fn record_self_delivered(&self, channel: Channel, recipient: &Recipient) {
        if self.pending.is_some() {
            self.metrics.self_delivered(
                SELF_DELIVERY_PROVIDER,
                channel,
                CountryCode::of(recipient),
            );
        }
    }

    /// Counts a verified code of `caller`.
    pub(super) fn verified(
        &self,
        caller: &Caller,
        challenge: ChallengeId,
        channel: Channel,
        recipient: &Recipient,
    ) {
        let Some(pending) = &self.pending else {
            return;
        };
        let country = CountryCode::of(recipient);
        if caller.self_delivery {
            return self
                .metrics
                .verified(SELF_DELIVERY_PROVIDER, channel, country);
        }
        if let Some((provider, channel)) = self.recent.take(challenge.nonce) {
            return self.metrics.verified(&provider, channel, country);
        }
        let verified = PendingAttribution {
            challenge,
            country,
            lookups: 0,
        };
        if pending.try_send(verified).is_err() {
            // No provider has an empty name: it counts among the others.
            self.metrics.verified("", channel, country);
        }
    }

    /// Looks up the providers of verified codes, for ever.
    pub async fn count(
        metrics: DeliveryMetrics,
        mut pending: mpsc::Receiver<PendingAttribution>,
        store: Arc<dyn RecordStore>,
        availability: StoreHealth,
    ) {
        let mut left = Vec::new();
        loop {
            tokio::time::sleep(ATTRIBUTION_INTERVAL).await;
            while left.len() < MAX_PENDING
                && let Ok(verified) = pending.try_recv()
            {
                left.push(verified);
            }
            if !availability.is_available() {
                continue;
            }
            let mut again = Vec::new();
            while !left.is_empty() {
                let batch = left.split_off(left.len().saturating_sub(BATCH));
                again.extend(attribute_batch(&metrics, batch, &*store).await);
            }
            left = again;
        }
    }
}

/// Counts the codes of a batch whose provider is known, and returns those to be looked up again.
async fn attribute_batch(
    metrics: &DeliveryMetrics,
    batch: Vec<PendingAttribution>,
    store: &dyn RecordStore,
) -> Vec<PendingAttribution> {
    let keys: BTreeSet<_> = batch
        .iter()
        .map(|verified| verified.challenge.key)
        .collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let delivered = match store.delivered_messages(&keys).await {
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
            verified.lookups += 1;
            if verified.lookups < MAX_LOOKUPS {
                again.push(verified);
            }
        }
    }
    again
}
