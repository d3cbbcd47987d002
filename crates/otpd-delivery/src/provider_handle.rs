//! Provider with its circuit breaker, its limits and the queue of waiting messages.

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

/// Settings for the use of a provider.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOptions {
    /// Maximum duration of one attempt.
    pub timeout: Duration,
    /// Maximum number of attempts at once, per replica.
    pub max_concurrency: usize,
    /// Maximum number of attempts that start in a second, per replica; 0 is no limit.
    pub rate_per_second: u32,
    /// Channel of the provider, if it is not the requested one.
    pub channel: Option<Channel>,
    /// Thresholds of the circuit breaker.
    pub breaker: BreakerOptions,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        CommonSettings::default().options()
    }
}

/// Provider as the dispatcher uses it.
#[derive(Debug)]
pub struct ProviderHandle {
    /// Configured name of the provider.
    pub name: String,
    /// Settings for its use.
    pub options: GatewayOptions,
    /// Digest of its configuration, to detect a change.
    pub origin: [u8; 32],
    /// Circuit breaker.
    pub breaker: Breaker,
    provider: Provider,
    /// Admits one message at a time to the wait for a slot and for the rate limit.
    next: FairSemaphore,
    slots: Semaphore,
    pace: RateLimiter,
}

impl ProviderHandle {
    /// Creates the handle `name` of `provider`.
    pub fn new(name: &str, provider: Provider, options: GatewayOptions) -> Self {
        Self {
            name: name.to_owned(),
            origin: [0; 32],
            breaker: Breaker::new(options.breaker),
            next: FairSemaphore::default(),
            // A larger number than a semaphore holds means no limit.
            slots: Semaphore::new(options.max_concurrency.min(Semaphore::MAX_PERMITS)),
            pace: RateLimiter::new(options.rate_per_second),
            provider,
            options,
        }
    }

    /// Sets the digest of the configuration.
    #[must_use]
    pub fn with_config_digest(self, origin: [u8; 32]) -> Self {
        Self { origin, ..self }
    }

    /// Waits for a permit for one attempt, which lasts as long as it is held. Callers
    /// take turns; of one caller's messages the one that has waited longest comes first.
    pub async fn acquire(&self, caller: &CallerName) -> SemaphorePermit<'_> {
        let _next = self.next.acquire(caller).await;
        let slot = self.slots.acquire().await;
        let slot = slot.expect("the semaphore of a gateway is never closed");
        self.pace.turn().await;
        slot
    }

    /// Hands a message over, within the time-out.
    ///
    /// # Errors
    /// [`DeliveryError`] if the provider has not accepted it, or if that is unknown.
    pub async fn deliver(
        &self,
        message: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let attempt = self.provider.deliver(message);
        match tokio::time::timeout(self.options.timeout, attempt).await {
            Ok(result) => result,
            Err(_) if message.progress.is_handed_over() => Err(DeliveryError::new(
                DeliveryErrorKind::Timeout,
                format!("no response within {:?}", self.options.timeout),
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

    /// Returns true if equal attempts make one message.
    pub fn is_idempotent(&self) -> bool {
        self.provider.is_idempotent()
    }

    /// Returns the channel of a message for which `channel` was requested.
    pub fn channel(&self, channel: Channel) -> Channel {
        self.options.channel.unwrap_or(channel)
    }

    /// Checks that the provider can be reached, without a message.
    ///
    /// # Errors
    /// Description of the problem.
    pub async fn check(&self) -> Result<String, String> {
        match tokio::time::timeout(self.options.timeout, self.provider.check()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no response within {:?}", self.options.timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otpd_base::environment::Environment;

    fn log() -> Provider {
        let development = Environment::Development.development();
        Provider::Log(development.expect("the environment is development"))
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
