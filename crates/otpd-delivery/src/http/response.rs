//! Response of a gateway, and its meaning.

use reqwest::Response;
use serde_json::Value;

use super::{
    condition::{MatchCount, as_written, places},
    request::RequestTemplate,
    settings::HttpSettings,
    template::{TemplateValues, ValueTemplate},
};
use crate::redact::redacted_cause;
use otpd_rules::DeliveryErrorKind;

/// Maximum length of a response body that is read, more than any gateway needs for one
/// message.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Maximum length of an error code that is logged, more than any gateway's.
const MAX_CODE_CHARACTERS: usize = 64;
/// Maximum length of a gateway's identifier of a message, more than any gateway's.
const MAX_ID_CHARACTERS: usize = 128;

/// Response: its status, and its body if that is JSON.
#[derive(Debug)]
pub struct GatewayResponse {
    status: u16,
    body: Result<Value, String>,
}

impl GatewayResponse {
    /// Creates a response from its status and its whole body.
    pub fn new(status: u16, body: &[u8]) -> Self {
        let body = serde_json::from_slice(body).map_err(|_| "the body is not JSON".to_owned());
        Self { status, body }
    }

    /// Reads a response to its end, or to the maximum length.
    pub async fn read(mut response: Response) -> Self {
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        let problem = loop {
            match response.chunk().await {
                Ok(None) => return Self::new(status, &bytes),
                Ok(Some(chunk)) if bytes.len() + chunk.len() > MAX_BODY_BYTES => {
                    break "the body is over 64 KiB".to_owned();
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Err(error) => {
                    break format!("the body broke off: {}", redacted_cause(&error));
                }
            }
        };
        Self {
            status,
            body: Err(problem),
        }
    }

    /// Returns the reason for which this is not a successful response to `request`;
    /// `None` if it is one.
    pub fn fault(&self, request: &RequestTemplate, values: &TemplateValues<'_>) -> Option<String> {
        let status = self.status;
        if !request.success.iter().any(|good| good.contain(status)) {
            return Some(format!("HTTP status {status}"));
        }
        if request.conditions.is_empty() {
            return None;
        }
        let body = match &self.body {
            Ok(body) => body,
            Err(problem) => return Some(format!("HTTP status {status}, and {problem}")),
        };
        let mut conditions = request.conditions.iter().enumerate();
        conditions.find_map(|(index, condition)| {
            let extent = match condition.holds(body, values) {
                MatchCount::Everywhere => return None,
                MatchCount::Partly => "is met only in part",
                MatchCount::Nowhere => "is not met",
            };
            let test = &condition.test;
            Some(format!(
                "HTTP status {status}, and conditions[{index}] ({test}) {extent}"
            ))
        })
    }

    /// Returns true if the gateway accepted one part of the message and refused another.
    fn is_partly_good(&self, request: &RequestTemplate, values: &TemplateValues<'_>) -> bool {
        let Ok(body) = &self.body else {
            return false;
        };
        let is_good_status = request.success.iter().any(|good| good.contain(self.status));
        let mut conditions = request.conditions.iter();
        is_good_status
            && conditions.any(|condition| condition.holds(body, values) == MatchCount::Partly)
    }

    /// Returns the kind of failure of an unsuccessful response, and the index of the rule
    /// that matched.
    pub fn class(
        &self,
        settings: &HttpSettings,
        values: &TemplateValues<'_>,
    ) -> (DeliveryErrorKind, Option<usize>) {
        if self.is_partly_good(&settings.send, values) {
            // To send it again repeats, and costs, the part that was accepted.
            return (DeliveryErrorKind::UnknownOutcome, None);
        }
        let matching = settings.errors.iter().position(|rule| {
            let of_status = rule.statuses.is_empty()
                || rule.statuses.iter().any(|some| some.contain(self.status));
            let of_body = rule.condition.as_ref().is_none_or(|condition| {
                let body = self.body.as_ref();
                body.is_ok_and(|body| condition.holds(body, values) != MatchCount::Nowhere)
            });
            of_status && of_body
        });
        if let Some(rule) = matching {
            return (settings.errors[rule].class, Some(rule));
        }
        let class = match self.status {
            // The server behind the gateway was given the message, and did not respond.
            504 => DeliveryErrorKind::UnknownOutcome,
            // Too early, too many, or a fault of the gateway.
            408 | 425 | 429 | 500..=599 => DeliveryErrorKind::Transient,
            200..=299 if self.body.is_err() => DeliveryErrorKind::UnknownOutcome,
            _ => DeliveryErrorKind::Permanent,
        };
        (class, None)
    }

    /// Returns the gateway's own identifier of the message.
    pub fn provider_id(
        &self,
        settings: &HttpSettings,
        values: &TemplateValues<'_>,
    ) -> Option<String> {
        let ids = self.texts(settings.id_pointer.as_ref()?, values);
        let id = ids.into_iter().next()?;
        is_visible(&id, MAX_ID_CHARACTERS).then_some(id)
    }

    /// Returns the value at `pointer`, or its values, if they can be error codes. A
    /// longer one is left out and not cut, because half a secret would not be recognized.
    pub fn visible(&self, pointer: &ValueTemplate, values: &TemplateValues<'_>) -> Option<String> {
        let code = self.texts(pointer, values).join(", ");
        is_visible(&code, MAX_CODE_CHARACTERS).then_some(code)
    }

    fn texts(&self, pointer: &ValueTemplate, values: &TemplateValues<'_>) -> Vec<String> {
        let Ok(body) = &self.body else {
            return Vec::new();
        };
        let places = places(body, &pointer.render_in_pointer(values));
        places
            .into_iter()
            .flatten()
            .filter_map(as_written)
            .collect()
    }
}

fn is_visible(text: &str, most: usize) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    !text.is_empty() && text.len() <= most && text.bytes().all(visible)
}
