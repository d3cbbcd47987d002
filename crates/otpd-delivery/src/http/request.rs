//! Request to a gateway, as templates.

use std::{collections::BTreeMap, fmt};

use reqwest::{
    Client, Method, RequestBuilder, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::{
    condition::{ReplyCondition, StatusRange},
    template::{TemplateScope, TemplateValues, ValueTemplate},
};
use crate::public_ip::{PrivateAddress, is_public};
use otpd_base::tables::ConfigKeyError;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Keys that describe a request.
pub struct RequestTable {
    pub method: Option<String>,
    pub url: Option<String>,
    pub fallback_urls: Vec<String>,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub basic: Option<(String, String)>,
    pub form: Option<BTreeMap<String, String>>,
    pub json: Option<Value>,
    pub success: Vec<StatusRange>,
    pub conditions: Vec<ReplyCondition>,
}

/// Request template, with the conditions on its response.
pub struct RequestTemplate {
    method: Method,
    urls: Vec<UrlTemplate>,
    query: Vec<(String, ValueTemplate)>,
    headers: Vec<(HeaderName, ValueTemplate)>,
    basic: Option<(ValueTemplate, ValueTemplate)>,
    body: BodyTemplate,
    /// Statuses of a successful response.
    pub success: Vec<StatusRange>,
    /// Further conditions on a successful response.
    pub conditions: Vec<ReplyCondition>,
}

/// Shows no secrets.
impl fmt::Debug for RequestTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Request")
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// Destination of a request. Only the part after the host may differ between messages.
struct UrlTemplate {
    origin: Url,
    rest: ValueTemplate,
}

enum BodyTemplate {
    Empty,
    Form(Vec<(String, ValueTemplate)>),
    Json(JsonTemplate),
}

/// JSON with templates as its texts. Values become texts of a JSON value and are never
/// inserted into JSON text, so that none can end a text and start another element.
enum JsonTemplate {
    Fixed(Value),
    Text(ValueTemplate),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl RequestTemplate {
    /// Parses the templates.
    ///
    /// # Errors
    /// [`ConfigKeyError`] with the first wrong key.
    pub(super) fn new(
        table: RequestTable,
        names: &TemplateScope,
        allow_plaintext: bool,
        allow_private: bool,
    ) -> Result<Self, ConfigKeyError> {
        let method = table.method.unwrap_or("POST".to_owned()).to_uppercase();
        let method = match method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            _ => return Err(ConfigKeyError::new("method", "must be GET, POST or PUT")),
        };
        let url = table.url.ok_or_else(|| {
            ConfigKeyError::new("url", "is missing; write e.g. https://gateway.example/send")
        })?;
        let addresses = std::iter::once(("url", &url))
            .chain(table.fallback_urls.iter().map(|url| ("fallback_urls", url)));
        let urls = addresses
            .map(|(key, url)| {
                UrlTemplate::new(url, names, allow_plaintext, allow_private)
                    .map_err(|problem| ConfigKeyError::new(key, problem))
            })
            .collect::<Result<_, _>>()?;
        let body = match (table.form, table.json) {
            (Some(_), Some(_)) => {
                return Err(ConfigKeyError::new(
                    "json",
                    "form is set as well; leave one out",
                ));
            }
            (Some(form), None) => BodyTemplate::Form(templates("form", form, names)?),
            (None, Some(json)) => BodyTemplate::Json(
                JsonTemplate::new(json, names)
                    .map_err(|problem| ConfigKeyError::new("json", problem))?,
            ),
            (None, None) => BodyTemplate::Empty,
        };
        let headers = templates("headers", table.headers, names)?;
        let basic = |key: &str, text: &str| {
            ValueTemplate::parse(text, names)
                .map_err(|problem| ConfigKeyError::new(format!("basic.{key}"), problem))
        };
        Ok(Self {
            method,
            urls,
            query: templates("query", table.query, names)?,
            headers: headers.into_iter().map(header).collect::<Result<_, _>>()?,
            basic: match table.basic {
                None => None,
                Some((user, password)) => {
                    Some((basic("user", &user)?, basic("password", &password)?))
                }
            },
            body,
            success: table.success,
            conditions: table.conditions,
        })
    }

    /// Returns the first host, for display.
    pub fn host(&self) -> &str {
        self.urls[0].origin.host_str().unwrap_or_default()
    }

    /// Returns the number of hosts.
    pub fn hosts(&self) -> usize {
        self.urls.len()
    }

    /// Returns the scheme, name and port of the first host.
    pub fn origin(&self) -> &Url {
        &self.urls[0].origin
    }

    /// Returns true if it has a header of that name.
    pub fn sets(&self, header: &str) -> bool {
        self.headers.iter().any(|(name, _)| name.as_str() == header)
    }

    /// Returns true if it is the same for all messages.
    pub fn is_fixed(&self) -> bool {
        let mut pointers = self.conditions.iter().map(|condition| &condition.pointer);
        self.all_parts(ValueTemplate::is_fixed) && pointers.all(ValueTemplate::is_fixed)
    }

    /// Returns true if the gateway gets an idempotency key.
    pub fn has_idempotency_key(&self) -> bool {
        !self.all_parts(|template| !template.has_idempotency_key())
    }

    /// Returns true if the predicate holds for every template of the request.
    fn all_parts(&self, holds: impl Fn(&ValueTemplate) -> bool) -> bool {
        let pairs = self.query.iter().map(|(_, template)| template);
        let headers = self.headers.iter().map(|(_, template)| template);
        let basic = self
            .basic
            .iter()
            .flat_map(|(user, password)| [user, password]);
        let urls = self.urls.iter().map(|address| &address.rest);
        let body = match &self.body {
            BodyTemplate::Empty => true,
            BodyTemplate::Form(pairs) => pairs.iter().all(|(_, template)| holds(template)),
            BodyTemplate::Json(tree) => tree.all_texts(&holds),
        };
        let mut others = pairs.chain(headers).chain(basic).chain(urls);
        body && others.all(holds)
    }

    /// Builds the request to the host number `host`, with the values of a message.
    ///
    /// # Errors
    /// Description of the part that cannot be sent, without its value.
    pub fn build(
        &self,
        client: &Client,
        host: usize,
        values: &TemplateValues<'_>,
    ) -> Result<RequestBuilder, String> {
        let mut url = self.urls[host].with(values)?;
        let query = rendered(&self.query, values);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = client.request(self.method.clone(), url);
        for (name, template) in &self.headers {
            let value = template.render(values);
            if value.is_empty() {
                continue;
            }
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                format!("the header {name} would contain a character that headers cannot")
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        if let Some((user, password)) = &self.basic {
            request = request.basic_auth(user.render(values), Some(password.render(values)));
        }
        Ok(match &self.body {
            BodyTemplate::Empty => request,
            BodyTemplate::Form(pairs) => {
                let mut form = Serializer::new(String::new());
                form.extend_pairs(rendered(pairs, values));
                request.header(CONTENT_TYPE, FORM).body(form.finish())
            }
            BodyTemplate::Json(tree) => {
                let body = tree.render(values).unwrap_or_default();
                request.header(CONTENT_TYPE, JSON).body(body.to_string())
            }
        })
    }
}

impl UrlTemplate {
    fn new(
        text: &str,
        names: &TemplateScope,
        allow_plaintext: bool,
        allow_private: bool,
    ) -> Result<Self, String> {
        let template = ValueTemplate::parse(text, names)?;
        let beginning = template.beginning();
        let after_scheme = beginning.find("://").ok_or("must begin with https://")? + 3;
        let end = beginning[after_scheme..]
            .find(['/', '?', '#'])
            .map(|position| position + after_scheme);
        let end = match end {
            Some(end) => end,
            None if template.render(&TemplateValues::default()) == beginning => beginning.len(),
            None => {
                return Err(
                    "has a variable in its host; use variables only after the host".to_owned(),
                );
            }
        };
        let origin = Url::parse(&beginning[..end]).map_err(|error| error.to_string())?;
        if !origin.username().is_empty() || origin.password().is_some() {
            return Err("has a user name before its host; put it into basic".to_owned());
        }
        let host = origin.host().ok_or("has no host")?;
        let literal = match host {
            url::Host::Domain(_) => None,
            url::Host::Ipv4(address) => Some(address.into()),
            url::Host::Ipv6(address) => Some(address.into()),
        };
        if literal.is_some_and(|address| !allow_private && !is_public(address)) {
            return Err(PrivateAddress.to_string());
        }
        let loopback = literal.is_some_and(|address| address.is_loopback())
            || origin.host_str() == Some("localhost");
        match origin.scheme() {
            "https" => {}
            "http" if allow_plaintext || loopback => {}
            "http" => {
                return Err("secrets and codes would cross the network in the clear; use https://, or set allow_plaintext = true".to_owned());
            }
            _ => return Err("must begin with https://".to_owned()),
        }
        let rest = template.without_beginning(end);
        Ok(Self { origin, rest })
    }

    fn with(&self, values: &TemplateValues<'_>) -> Result<Url, String> {
        let rest = self.rest.render_in_url(values);
        self.origin
            .join(&rest)
            .ok()
            // A path that begins with two slashes would name another host.
            .filter(|url| url.origin() == self.origin.origin())
            .ok_or_else(|| "the URL cannot be made with this message's values".to_owned())
    }
}

impl JsonTemplate {
    fn new(json: Value, names: &TemplateScope) -> Result<Self, String> {
        Ok(match json {
            Value::String(text) => Self::Text(ValueTemplate::parse(&text, names)?),
            Value::Array(elements) => {
                let trees = elements
                    .into_iter()
                    .map(|element| Self::new(element, names));
                Self::List(trees.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let trees = members
                    .into_iter()
                    .map(|(key, value)| Ok((key, Self::new(value, names)?)));
                Self::Object(trees.collect::<Result<_, String>>()?)
            }
            fixed => Self::Fixed(fixed),
        })
    }

    fn all_texts(&self, holds: &impl Fn(&ValueTemplate) -> bool) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Text(template) => holds(template),
            Self::List(elements) => elements.iter().all(|element| element.all_texts(holds)),
            Self::Object(members) => members.iter().all(|(_, tree)| tree.all_texts(holds)),
        }
    }

    /// Returns the JSON value; `None` if a text is empty after its values are inserted.
    fn render(&self, values: &TemplateValues<'_>) -> Option<Value> {
        Some(match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(template) if template.is_ttl_seconds() => values.ttl_seconds().into(),
            Self::Text(template) => {
                let text = template.render(values);
                if text.is_empty() {
                    return None;
                }
                text.into()
            }
            Self::List(elements) => elements
                .iter()
                .filter_map(|element| element.render(values))
                .collect(),
            Self::Object(members) => members
                .iter()
                .filter_map(|(key, tree)| Some((key.clone(), tree.render(values)?)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        })
    }
}

fn templates(
    table: &str,
    texts: BTreeMap<String, String>,
    names: &TemplateScope,
) -> Result<Vec<(String, ValueTemplate)>, ConfigKeyError> {
    let each = texts.into_iter().map(|(key, text)| {
        let template = ValueTemplate::parse(&text, names)
            .map_err(|problem| ConfigKeyError::new(format!("{table}.{key}"), problem))?;
        Ok((key, template))
    });
    each.collect()
}

fn header(
    (name, template): (String, ValueTemplate),
) -> Result<(HeaderName, ValueTemplate), ConfigKeyError> {
    let parsed = HeaderName::try_from(name.as_str()).map_err(|_| {
        ConfigKeyError::new(format!("headers.{name}"), "is not the name of a header")
    })?;
    Ok((parsed, template))
}

/// Renders the parts to be sent. A value that is empty is left out, so that an optional
/// one needs no template of its own.
fn rendered<'t>(
    pairs: &'t [(String, ValueTemplate)],
    values: &TemplateValues<'_>,
) -> Vec<(&'t str, String)> {
    pairs
        .iter()
        .map(|(key, template)| (key.as_str(), template.render(values)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}
