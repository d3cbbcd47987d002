//! How a code reaches its recipient: which providers there are, which of them a message
//! goes to, and what it says. What was promised about messages is kept by
//! [`outbox`](crate::outbox); a provider only hands one over.

mod breaker;
mod fair_semaphore;
mod http;
mod log;
mod message;
mod preset;
mod provider;
mod provider_handle;
mod public_ip;
mod rate_limiter;
mod redact;
mod route;
pub mod settings;
mod smtp;
#[cfg(test)]
mod tests;
pub mod text;
mod tls_roots;

use std::sync::Arc;

use crate::environment::DevelopmentOnly;
use text::MessageTemplates;

pub use breaker::{BreakerPermit, BreakerTransition};
pub use http::{GatewayResponse, HttpProvider, HttpSettings, RequestTemplate, TemplateValues};
pub use message::{AttemptProgress, DeliveryError, MessageBody, OutgoingMessage, ProviderReceipt};
pub use preset::preset_names;
pub use provider::Provider;
pub use provider_handle::{GatewayOptions, ProviderHandle};
pub use route::{ResendStrategy, Route, RouteMatcher, RouteQuery};

/// Every provider, and the way of each message.
#[derive(Debug)]
pub struct Delivery {
    /// All gateways, in the order of their names.
    pub gateways: Vec<Arc<ProviderHandle>>,
    /// The first one that is for a message counts.
    pub routes: Vec<Route>,
    /// What messages say.
    pub texts: MessageTemplates,
}

impl Delivery {
    /// Nothing is delivered: there is no provider.
    pub fn none(texts: MessageTemplates) -> Self {
        Self {
            gateways: Vec::new(),
            routes: Vec::new(),
            texts,
        }
    }

    /// Everything goes to the development log.
    pub fn development(texts: MessageTemplates, development: DevelopmentOnly) -> Self {
        let log = Arc::new(ProviderHandle::new(
            "log",
            Provider::Log(development),
            GatewayOptions::default(),
        ));
        Self {
            gateways: vec![Arc::clone(&log)],
            routes: vec![Route {
                conditions: RouteMatcher::default(),
                gateways: vec![log],
                resend: ResendStrategy::Same,
            }],
            texts,
        }
    }

    /// The same delivery with those gateways of `earlier` that were made of the same: they
    /// know who is down, and whose turn it is.
    #[must_use]
    pub fn reuse_unchanged(mut self, earlier: &Self) -> Self {
        let keep = |gateway: &mut Arc<ProviderHandle>| {
            let is_same = |old: &&Arc<ProviderHandle>| {
                old.name == gateway.name && old.origin == gateway.origin
            };
            if let Some(old) = earlier.gateways.iter().find(is_same) {
                *gateway = Arc::clone(old);
            }
        };
        self.gateways.iter_mut().for_each(keep);
        for route in &mut self.routes {
            route.gateways.iter_mut().for_each(keep);
        }
        self
    }

    /// The way of a message; `None` where no provider is for it.
    pub fn route(&self, shipment: &RouteQuery<'_>) -> Option<&Route> {
        self.routes.iter().find(|route| route.is_for(shipment))
    }
}
