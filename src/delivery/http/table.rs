//! The keys of an `http` provider as they are written.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

/// A text, or a number or truth value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigScalar(pub String);

/// Several of them: a list, or a text with commas between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalarList(pub Vec<String>);

/// The keys of an `http` provider; docs/providers.md explains each.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpTable {
    /// GET, POST or PUT.
    pub method: Option<String>,
    /// Where the request goes.
    pub url: Option<String>,
    /// What is added to the URL.
    pub query: BTreeMap<String, ConfigScalar>,
    /// The headers.
    pub headers: BTreeMap<String, ConfigScalar>,
    /// A name and password (RFC 7617).
    pub basic: Option<BasicTable>,
    /// The body, as a form.
    pub form: Option<BTreeMap<String, ConfigScalar>>,
    /// The body, as JSON.
    pub json: Option<serde_json::Value>,
    /// The statuses of a good reply.
    pub success_status: Option<ScalarList>,
    /// What else must hold of it.
    pub conditions: Vec<ConditionTable>,
    /// Where else to connect to if the first host cannot be reached.
    pub fallback_urls: Option<ScalarList>,
    /// Where the reply has the gateway's name of the message.
    pub id_pointer: Option<String>,
    /// Where the reply has the gateway's error code: the first place that has one.
    pub error_pointer: Option<ScalarList>,
    /// The classes of other replies; the first that fits counts.
    pub errors: Vec<ErrorTable>,
    /// The least that `{ttl_seconds}` can be.
    pub ttl_seconds_min: Option<u64>,
    /// The most that it can be.
    pub ttl_seconds_max: Option<u64>,
    /// What `{secrets.NAME}` stands for; `NAME_file` names a file.
    pub secrets: BTreeMap<String, SecretString>,
    /// What `{parameters.NAME}` stands for.
    pub parameters: BTreeMap<String, ConfigScalar>,
    /// More authorities for the gateway's certificate, as PEM.
    pub ca: Option<PathBuf>,
    /// Whether the gateway may be in a network that is not public.
    pub allow_private_addresses: bool,
    /// Whether `http://` may go to another machine.
    pub allow_plaintext: bool,
    /// A request that sends nothing to anybody.
    pub check: Option<CheckTable>,
}

/// `basic`: a name and password (RFC 7617).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicTable {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// `check`: a request that proves the account without a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckTable {
    /// GET, POST or PUT.
    pub method: Option<String>,
    /// Where the request goes.
    pub url: Option<String>,
    /// What is added to the URL.
    pub query: BTreeMap<String, ConfigScalar>,
    /// The headers.
    pub headers: BTreeMap<String, ConfigScalar>,
    /// A name and password (RFC 7617).
    pub basic: Option<BasicTable>,
    /// The body, as a form.
    pub form: Option<BTreeMap<String, ConfigScalar>>,
    /// The body, as JSON.
    pub json: Option<serde_json::Value>,
    /// The statuses of a good reply.
    pub success_status: Option<ScalarList>,
    /// What else must hold of it.
    pub conditions: Vec<ConditionTable>,
}

/// One of `conditions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionTable {
    /// The place in the reply (RFC 6901).
    pub pointer: String,
    /// It is this.
    pub equals: Option<ConfigScalar>,
    /// It is one of these.
    pub one_of: Option<ScalarList>,
    /// It is there, and none of these.
    pub not_one_of: Option<ScalarList>,
    /// It is there.
    pub present: Option<bool>,
    /// It is not there.
    pub absent: Option<bool>,
    /// It is a number greater than this.
    pub greater_than: Option<f64>,
}

/// One of `errors`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorTable {
    /// What they mean.
    pub class: String,
    /// The statuses that it is about.
    pub status: Option<ScalarList>,
    /// The place in the reply (RFC 6901).
    pub pointer: Option<String>,
    /// It is this.
    pub equals: Option<ConfigScalar>,
    /// It is one of these.
    pub one_of: Option<ScalarList>,
    /// It is there, and none of these.
    pub not_one_of: Option<ScalarList>,
    /// It is there.
    pub present: Option<bool>,
    /// It is not there.
    pub absent: Option<bool>,
    /// It is a number greater than this.
    pub greater_than: Option<f64>,
}

impl<'de> Deserialize<'de> for ConfigScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ScalarVisitor)? {
            ScalarOrList::One(text) => Ok(Self(text)),
            ScalarOrList::Many(_) => Err(serde::de::Error::custom(
                "must be a text, a number, true or false",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ScalarList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match deserializer.deserialize_any(ScalarVisitor)? {
            ScalarOrList::One(text) => text
                .split(',')
                .map(|element| element.trim().to_owned())
                .collect(),
            ScalarOrList::Many(elements) => elements,
        }))
    }
}

enum ScalarOrList {
    One(String),
    Many(Vec<String>),
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = ScalarOrList;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number, true or false, or a list of such")
    }

    fn visit_bool<E>(self, value: bool) -> Result<ScalarOrList, E> {
        Ok(ScalarOrList::One(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ScalarOrList, E> {
        Ok(ScalarOrList::One(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ScalarOrList, E> {
        Ok(ScalarOrList::One(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ScalarOrList, E> {
        Ok(ScalarOrList::One(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<ScalarOrList, E> {
        Ok(ScalarOrList::One(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ScalarOrList, A::Error> {
        let mut elements = Vec::new();
        while let Some(ConfigScalar(element)) = list.next_element()? {
            elements.push(element);
        }
        Ok(ScalarOrList::Many(elements))
    }
}
