//! Delivery of codes: the providers, the routes to them, and the texts of messages.
//! The outbox of the service guarantees that messages are delivered; a provider only
//! hands one over. This crate has no store and knows no records of codes.

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

use otpd_base::environment::DevelopmentOnly;
use text::MessageTemplates;

pub use breaker::{BreakerPermit, BreakerTransition};
pub use http::{GatewayResponse, HttpProvider, HttpSettings, RequestTemplate, TemplateValues};
pub use message::{AttemptProgress, DeliveryError, MessageBody, OutgoingMessage, ProviderReceipt};
pub use preset::preset_names;
pub use provider::Provider;
pub use provider_handle::{GatewayOptions, ProviderHandle};
pub use route::{ResendStrategy, Route, RouteMatcher, RouteQuery};

/// Providers, routes and texts.
#[derive(Debug)]
pub struct Delivery {
    /// All gateways, in the order of their names.
    pub gateways: Vec<Arc<ProviderHandle>>,
    /// Routes; the first one that matches a message is used.
    pub routes: Vec<Route>,
    /// Texts of messages.
    pub texts: MessageTemplates,
}

impl Delivery {
    /// Returns a delivery without providers, which sends no message.
    pub fn none(texts: MessageTemplates) -> Self {
        Self {
            gateways: Vec::new(),
            routes: Vec::new(),
            texts,
        }
    }

    /// Returns a delivery with the development log as the only provider.
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

    /// Replaces providers by those of `earlier` with the same configuration, which keep
    /// the state of their breakers and queues.
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

    /// Returns the route of a message; `None` if no route matches it.
    pub fn route(&self, query: &RouteQuery<'_>) -> Option<&Route> {
        self.routes.iter().find(|route| route.is_for(query))
    }
}
