//! Provider for gateways over HTTP, described by configuration alone.

mod condition;
mod request;
mod response;
mod settings;
mod table;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;

use reqwest::{Client, redirect::Policy};
use secrecy::ExposeSecret as _;

pub use request::RequestTemplate;
pub use response::GatewayResponse;
pub use settings::HttpSettings;
pub(super) use settings::read_secret;
pub use table::HttpTable;
pub use template::TemplateValues;

use super::{
    DeliveryError, OutgoingMessage, ProviderReceipt, public_ip::PublicOnlyResolver,
    redact::redacted_cause, tls_roots::client_config,
};
use otpd_base::tables::ConfigKeyError;
use otpd_rules::DeliveryErrorKind;

/// Header that carries the position in a trace.
const TRACEPARENT: &str = "traceparent";

/// Provider that hands messages to a gateway over HTTP.
pub struct HttpProvider {
    name: String,
    client: Client,
    settings: HttpSettings,
}

/// Shows no secrets.
impl fmt::Debug for HttpProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpProvider")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl HttpProvider {
    /// Creates a provider of that name; opens no connection yet.
    ///
    /// # Errors
    /// [`ConfigKeyError`] with the wrong key.
    pub fn new(name: &str, settings: HttpSettings) -> Result<Self, ConfigKeyError> {
        let resolver = PublicOnlyResolver {
            allow_private: settings.allow_private_addresses,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(client_config(settings.ca.as_deref())?)
            .dns_resolver(resolver)
            .connect_timeout(settings.connect_timeout)
            // The configuration alone decides the destination of a message: no redirect
            // and no environment variable sends it elsewhere.
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("otpd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ConfigKeyError::new("url", error.without_url()))?;
        Ok(Self {
            name: name.to_owned(),
            client,
            settings,
        })
    }

    /// Hands a message over. The caller sets a time limit.
    ///
    /// # Errors
    /// [`DeliveryError`] if the gateway has not accepted it.
    pub async fn deliver(
        &self,
        message: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let settings = &self.settings;
        let values = settings.values(message);
        // The time limit for connecting ends before that of the attempt. So an attempt
        // that is given up has written its request.
        message.progress.hand_over();
        let response = self
            .request(&settings.send, &values, message.traceparent.as_deref())
            .await?;
        settings.outcome(&response, &values)
    }

    /// Returns true if the gateway gets an idempotency key.
    pub fn is_idempotent(&self) -> bool {
        self.settings.send.has_idempotency_key()
    }

    /// Checks that the gateway would accept messages, as far as possible without sending
    /// one: by the request `check`, or by connecting. The caller sets a time limit.
    ///
    /// # Errors
    /// Description of the problem.
    pub async fn check(&self) -> Result<String, String> {
        let values = TemplateValues::default();
        let Some(request) = &self.settings.check else {
            self.connect().await?;
            return Ok(format!("{} answers", self.settings.send.host()));
        };
        let response = self
            .request(request, &values, None)
            .await
            .map_err(|error| error.cause)?;
        match response.fault(request, &values) {
            None => Ok(format!("{} accepted the login", request.host())),
            Some(fault) => Err(self.settings.refused(&response, fault, &values).cause),
        }
    }

    /// Sends `request`, with the header `traceparent` unless it sets its own. If there is no
    /// connection, it tries the other hosts, because then no gateway can have accepted the
    /// message.
    async fn request(
        &self,
        request: &RequestTemplate,
        values: &TemplateValues<'_>,
        traceparent: Option<&str>,
    ) -> Result<GatewayResponse, DeliveryError> {
        let transient = |cause: String| DeliveryError::new(DeliveryErrorKind::Transient, cause);
        let mut host = 0;
        loop {
            let built = request
                .build(&self.client, host, values)
                .map_err(|problem| DeliveryError::new(DeliveryErrorKind::Permanent, problem))?;
            let built = match traceparent {
                Some(position) if !request.sets(TRACEPARENT) => built.header(TRACEPARENT, position),
                _ => built,
            };
            host += 1;
            match built.send().await {
                Ok(response) => return Ok(GatewayResponse::read(response).await),
                Err(error) if error.is_connect() && host < request.hosts() => {}
                Err(error) if error.is_builder() => {
                    return Err(DeliveryError::new(
                        DeliveryErrorKind::Permanent,
                        "the request cannot be made with this message's values",
                    ));
                }
                Err(error) if error.is_connect() => {
                    let problem = redacted_cause(&error);
                    return Err(transient(format!("no connection: {problem}")));
                }
                Err(error) => {
                    // There was a connection, so the gateway may have read the request.
                    let problem = redacted_cause(&error);
                    return Err(DeliveryError::new(
                        DeliveryErrorKind::UnknownOutcome,
                        format!("no response: {problem}"),
                    ));
                }
            }
        }
    }

    /// Connects to the first host, without authentication.
    async fn connect(&self) -> Result<(), String> {
        let origin = self.settings.send.origin();
        // Every status is accepted: only the connection and its certificate are checked.
        let sent = self.client.head(origin.clone()).send().await;
        sent.map(|_| ())
            .map_err(|error| format!("no connection: {}", redacted_cause(&error)))
    }
}

impl HttpSettings {
    /// Returns the values of the templates for a message.
    pub fn values<'a>(&self, message: &'a OutgoingMessage<'a>) -> TemplateValues<'a> {
        TemplateValues::new(message, self.shortest_life, self.longest_life)
    }

    /// Returns the outcome of an attempt.
    ///
    /// # Errors
    /// [`DeliveryError`] if the gateway has not accepted the message of `values`.
    pub fn outcome(
        &self,
        response: &GatewayResponse,
        values: &TemplateValues<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        match response.fault(&self.send, values) {
            None => Ok(ProviderReceipt {
                provider_id: response
                    .provider_id(self, values)
                    .filter(|id| !self.shown_by(id, values)),
            }),
            Some(fault) => Err(self.refused(response, fault, values)),
        }
    }

    fn refused(
        &self,
        response: &GatewayResponse,
        fault: String,
        values: &TemplateValues<'_>,
    ) -> DeliveryError {
        let (class, matched) = response.class(self, values);
        let mut cause = fault;
        if let Some(code) = self.error_code(response, values) {
            cause = format!("{cause}, the gateway's error is {code}");
        }
        if let Some(rule) = matched {
            cause = format!("{cause} (errors[{rule}])");
        }
        DeliveryError::new(class, cause)
    }

    /// Returns the gateway's own error code, if it contains nothing else.
    fn error_code(
        &self,
        response: &GatewayResponse,
        values: &TemplateValues<'_>,
    ) -> Option<String> {
        let mut pointers = self.error_pointers.iter();
        let code = pointers.find_map(|pointer| response.visible(pointer, values))?;
        (!self.shown_by(&code, values)).then_some(code)
    }

    /// Returns true if a text of the gateway, which is for the log, repeats a part of the
    /// message or a secret.
    fn shown_by(&self, text: &str, values: &TemplateValues<'_>) -> bool {
        let lower = text.to_lowercase();
        let secret =
            |secret: &secrecy::SecretString| lower.contains(&secret.expose_secret().to_lowercase());
        values.appear_in(text) || self.secrets.iter().any(secret)
    }
}
