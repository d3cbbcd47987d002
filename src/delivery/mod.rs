//! How a code reaches its recipient: which providers there are, which of them a message
//! goes to, and what it says. What was promised about messages is kept by
//! [`outbox`](crate::outbox); a provider only hands one over.

mod breaker;
mod envelope;
mod gateway;
mod guard;
mod http;
mod log;
mod pace;
mod preset;
mod problem;
mod provider;
mod roots;
mod route;
pub mod settings;
mod smtp;
#[cfg(test)]
mod tests;
pub mod text;
mod turnstile;

use std::sync::Arc;

use crate::environment::Development;
use text::Texts;

pub use breaker::{Admission, Change};
pub use envelope::{Accepted, DeliveryError, Envelope, Progress, Text};
pub use gateway::{Gateway, GatewayOptions};
pub use http::{Answer, HttpProvider, HttpSettings, Request, Values};
pub use preset::preset_names;
pub use provider::Provider;
pub use route::{Conditions, Resend, Route, Shipment};

/// Every provider, and the way of each message.
#[derive(Debug)]
pub struct Delivery {
    /// All gateways, in the order of their names.
    pub gateways: Vec<Arc<Gateway>>,
    /// The first one that is for a message counts.
    pub routes: Vec<Route>,
    /// What messages say.
    pub texts: Texts,
}

impl Delivery {
    /// Nothing is delivered: there is no provider.
    pub fn none(texts: Texts) -> Self {
        Self {
            gateways: Vec::new(),
            routes: Vec::new(),
            texts,
        }
    }

    /// Everything goes to the development log.
    pub fn development(texts: Texts, development: Development) -> Self {
        let log = Arc::new(Gateway::new(
            "log",
            Provider::Log(development),
            GatewayOptions::default(),
        ));
        Self {
            gateways: vec![Arc::clone(&log)],
            routes: vec![Route {
                conditions: Conditions::default(),
                gateways: vec![log],
                resend: Resend::Same,
            }],
            texts,
        }
    }

    /// The same delivery with those gateways of `earlier` that were made of the same: they
    /// know who is down, and whose turn it is.
    #[must_use]
    pub fn keeping(mut self, earlier: &Self) -> Self {
        let keep = |gateway: &mut Arc<Gateway>| {
            let is_same =
                |old: &&Arc<Gateway>| old.name == gateway.name && old.origin == gateway.origin;
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
    pub fn route(&self, shipment: &Shipment<'_>) -> Option<&Route> {
        self.routes.iter().find(|route| route.is_for(shipment))
    }
}
