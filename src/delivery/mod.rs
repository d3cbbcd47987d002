//! How a code reaches its recipient: which providers there are, which of them a message
//! goes to, and what it says. What was promised about messages is kept by
//! [`outbox`](crate::outbox); a provider only hands one over.

mod breaker;
mod envelope;
mod gateway;
mod log;
mod pace;
mod provider;
mod route;
pub mod text;

use std::sync::Arc;

pub use breaker::{Admission, Breaker, BreakerOptions, Change};
pub use envelope::{Accepted, DeliveryError, Envelope, Text};
pub use gateway::{Gateway, GatewayOptions};
pub use provider::Provider;
pub use route::{Conditions, Resend, Route, Shipment};

/// Every provider, and the way of each message.
#[derive(Debug)]
pub struct Delivery {
    /// All gateways, in the order of their names.
    pub gateways: Vec<Arc<Gateway>>,
    /// The first one that is for a message counts.
    pub routes: Vec<Route>,
}

impl Delivery {
    /// Everything goes to the development log.
    pub fn development() -> Self {
        let log = Arc::new(Gateway::new(
            "log",
            Provider::Log,
            GatewayOptions::default(),
        ));
        Self {
            gateways: vec![Arc::clone(&log)],
            routes: vec![Route {
                conditions: Conditions::default(),
                gateways: vec![log],
                resend: Resend::Same,
            }],
        }
    }

    /// The way of a message; `None` where no provider is for it.
    pub fn route(&self, shipment: &Shipment<'_>) -> Option<&Route> {
        self.routes.iter().find(|route| route.is_for(shipment))
    }
}
