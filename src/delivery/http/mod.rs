//! A gateway that is described by configuration alone.

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
use crate::{tables::ConfigKeyError, traces};
use otpd_rules::DeliveryErrorKind;

/// Hands messages to a gateway over HTTP.
pub struct HttpProvider {
    name: String,
    client: Client,
    settings: HttpSettings,
}

/// Shows nothing that could be secret.
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
    /// A provider of that name; opens no connection yet.
    ///
    /// # Errors
    /// The key at fault.
    pub fn new(name: &str, settings: HttpSettings) -> Result<Self, ConfigKeyError> {
        let resolver = PublicOnlyResolver {
            allow_private: settings.allow_private_addresses,
        };
        let client = Client::builder()
            .tls_backend_preconfigured(client_config(settings.ca.as_deref())?)
            .dns_resolver(resolver)
            .connect_timeout(settings.connect_timeout)
            // Where a message goes is what the configuration says: no reply and no
            // variable of the environment sends it elsewhere.
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

    /// Hands a message over. Whoever calls this sets it a time.
    ///
    /// # Errors
    /// Why the gateway has not taken it, and what can be done about it.
    pub async fn deliver(
        &self,
        envelope: &OutgoingMessage<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        let settings = &self.settings;
        let values = settings.values(envelope);
        // The time to connect ends before that of the attempt, so that whoever gives it up
        // does so after the request was written.
        envelope.progress.hand_over();
        let answer = self.ask(&settings.send, &values).await?;
        settings.verdict(&answer, &values)
    }

    /// Whether the gateway is given an idempotency key.
    pub fn is_idempotent(&self) -> bool {
        self.settings.send.has_idempotency_key()
    }

    /// Whether the gateway would take messages, as far as that can be known without
    /// sending one: by the request `check`, or by connecting. Whoever calls this sets it
    /// a time.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self) -> Result<String, String> {
        let values = TemplateValues::default();
        let Some(request) = &self.settings.check else {
            self.connect().await?;
            return Ok(format!("{} answers", self.settings.send.host()));
        };
        let answer = self
            .ask(request, &values)
            .await
            .map_err(|error| error.cause)?;
        match answer.fault(request, &values) {
            None => Ok(format!("{} knows the account", request.host())),
            Some(fault) => Err(self.settings.refused(&answer, fault, &values).cause),
        }
    }

    /// Sends `request`, to its other hosts as well while there is no connection: then
    /// nobody can have taken the message.
    async fn ask(
        &self,
        request: &RequestTemplate,
        values: &TemplateValues<'_>,
    ) -> Result<GatewayResponse, DeliveryError> {
        let transient = |cause: String| DeliveryError::new(DeliveryErrorKind::Transient, cause);
        let mut host = 0;
        loop {
            let built = request
                .build(&self.client, host, values)
                .map_err(|problem| DeliveryError::new(DeliveryErrorKind::Permanent, problem))?;
            let built = match traces::current() {
                Some(place) if !request.sets(traces::HEADER) => {
                    built.header(traces::HEADER, place.traceparent())
                }
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
                    // The connection stood, so that the request may have been read.
                    let problem = redacted_cause(&error);
                    return Err(DeliveryError::new(
                        DeliveryErrorKind::UnknownOutcome,
                        format!("no answer: {problem}"),
                    ));
                }
            }
        }
    }

    /// Connects to the first host, and asks it nothing of the account.
    async fn connect(&self) -> Result<(), String> {
        let origin = self.settings.send.origin();
        // Any status will do: it is the connection and its certificate that count.
        let sent = self.client.head(origin.clone()).send().await;
        sent.map(|_| ())
            .map_err(|error| format!("no connection: {}", redacted_cause(&error)))
    }
}

impl HttpSettings {
    /// What the templates stand for in the message of `message`.
    pub fn values<'a>(&self, envelope: &'a OutgoingMessage<'a>) -> TemplateValues<'a> {
        TemplateValues::new(envelope, self.shortest_life, self.longest_life)
    }

    /// What a reply says of the message of `values`.
    ///
    /// # Errors
    /// Why the gateway has not taken it, and what can be done about it.
    pub fn verdict(
        &self,
        answer: &GatewayResponse,
        values: &TemplateValues<'_>,
    ) -> Result<ProviderReceipt, DeliveryError> {
        match answer.fault(&self.send, values) {
            None => Ok(ProviderReceipt {
                provider_id: answer
                    .provider_id(self, values)
                    .filter(|id| !self.shown_by(id, values)),
            }),
            Some(fault) => Err(self.refused(answer, fault, values)),
        }
    }

    fn refused(
        &self,
        answer: &GatewayResponse,
        fault: String,
        values: &TemplateValues<'_>,
    ) -> DeliveryError {
        let (class, matched) = answer.class(self, values);
        let mut cause = fault;
        if let Some(code) = self.error_code(answer, values) {
            cause = format!("{cause}, the gateway's error is {code}");
        }
        if let Some(rule) = matched {
            cause = format!("{cause} (errors[{rule}])");
        }
        DeliveryError::new(class, cause)
    }

    /// The gateway's own code of an error, if it is one and holds nothing else.
    fn error_code(&self, answer: &GatewayResponse, values: &TemplateValues<'_>) -> Option<String> {
        let mut pointers = self.error_pointers.iter();
        let code = pointers.find_map(|pointer| answer.visible(pointer, values))?;
        (!self.shown_by(&code, values)).then_some(code)
    }

    /// Whether a text of the gateway, which is for the log, repeats something of the
    /// message or a secret.
    fn shown_by(&self, text: &str, values: &TemplateValues<'_>) -> bool {
        let lower = text.to_lowercase();
        let secret =
            |secret: &secrecy::SecretString| lower.contains(&secret.expose_secret().to_lowercase());
        values.appear_in(text) || self.secrets.iter().any(secret)
    }
}
