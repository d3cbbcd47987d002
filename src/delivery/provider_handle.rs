//! A provider with what keeps it, and those who wait for it, from harm.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    DeliveryError, OutgoingMessage, Provider, ProviderReceipt,
    breaker::{Breaker, BreakerOptions},
    fair_semaphore::FairSemaphore,
    rate_limiter::RateLimiter,
    settings::CommonSettings,
};
use otpd_rules::{CallerName, Channel, DeliveryErrorKind};

/// How a provider is used.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOptions {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts run at once, per replica.
    pub max_concurrency: usize,
    /// How many attempts start in a second, per replica; 0: any number.
    pub rate_per_second: u32,
    /// The channel that the provider sends by, where it is not the one asked for.
    pub channel: Option<Channel>,
    /// When it is left alone.
    pub breaker: BreakerOptions,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        CommonSettings::default().options()
    }
}

/// A provider as messages reach it.
#[derive(Debug)]
pub struct ProviderHandle {
    /// Its configured name.
    pub name: String,
    /// How it is used.
    pub options: GatewayOptions,
    /// Tells what it was made of from anything else.
    pub origin: [u8; 32],
    /// Whether it is worth trying.
    pub breaker: Breaker,
    provider: Provider,
    /// Admits one message at a time to the wait for a slot and for the pace.
    next: FairSemaphore,
    slots: Semaphore,
    pace: RateLimiter,
}

impl ProviderHandle {
    /// The gateway `name` to `provider`.
    pub fn new(name: &str, provider: Provider, options: GatewayOptions) -> Self {
        Self {
            name: name.to_owned(),
            origin: [0; 32],
            breaker: Breaker::new(options.breaker),
            next: FairSemaphore::default(),
            // More than a semaphore takes is any number.
            slots: Semaphore::new(options.max_concurrency.min(Semaphore::MAX_PERMITS)),
            pace: RateLimiter::new(options.rate_per_second),
            provider,
            options,
        }
    }

    /// The same, made of what `origin` tells.
    #[must_use]
    pub fn with_config_digest(self, origin: [u8; 32]) -> Self {
        Self { origin, ..self }
    }

    /// Waits for leave to make one attempt, which lasts as long as it is kept. Callers take
    /// turns; of one caller's messages the one that waited longest comes first.
    pub async fn acquire(&self, caller: &CallerName) -> SemaphorePermit<'_> {
        let _next = self.next.pass(caller).await;
        let slot = self.slots.acquire().await;
        let slot = slot.expect("the semaphore of a gateway is never closed");
        self.pace.turn().await;
        slot
    }

    /// Hands a message over.
    ///
    /// # Errors
    /// Why the provider has not taken it, as far as anybody knows.
    pub async fn deliver(
        &self,
        envelope: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let attempt = self.provider.deliver(envelope);
        match tokio::time::timeout(self.options.timeout, attempt).await {
            Ok(result) => result,
            Err(_) if envelope.progress.is_handed_over() => Err(DeliveryError::new(
                DeliveryErrorKind::Timeout,
                format!("no answer within {:?}", self.options.timeout),
            )),
            Err(_) => Err(DeliveryError::new(
                DeliveryErrorKind::Transient,
                format!(
                    "not ready for the message within {:?}",
                    self.options.timeout
                ),
            )),
        }
    }

    /// Whether equal attempts make one message.
    pub fn is_idempotent(&self) -> bool {
        self.provider.is_idempotent()
    }

    /// Channel that a message asked for by `channel` travels by.
    pub fn channel(&self, channel: Channel) -> Channel {
        self.options.channel.unwrap_or(channel)
    }

    /// Finds out whether the provider can be reached, without a message.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<String, String> {
        match tokio::time::timeout(self.options.timeout, self.provider.check()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", self.options.timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn log() -> Provider {
        let development = Environment::Development.development();
        Provider::Log(development.expect("it is"))
    }

    #[test]
    fn any_max_concurrency_is_accepted() {
        let options = GatewayOptions {
            max_concurrency: usize::MAX,
            ..GatewayOptions::default()
        };
        let gateway = ProviderHandle::new("log", log(), options);
        assert_eq!(gateway.slots.available_permits(), Semaphore::MAX_PERMITS);
    }
}
