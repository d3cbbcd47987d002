//! Keys of an `http` provider, as written in the configuration.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

/// Text, or a number or Boolean as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigScalar(pub String);

/// List of such values, or a text with commas between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalarList(pub Vec<String>);

/// Keys of an `http` provider; docs/providers.md explains each.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpTable {
    /// Method: GET, POST or PUT.
    pub method: Option<String>,
    /// Destination of the request.
    pub url: Option<String>,
    /// Parameters that are added to the URL.
    pub query: BTreeMap<String, ConfigScalar>,
    /// Headers.
    pub headers: BTreeMap<String, ConfigScalar>,
    /// User name and password (RFC 7617).
    pub basic: Option<BasicTable>,
    /// Body, as a form.
    pub form: Option<BTreeMap<String, ConfigScalar>>,
    /// Body, as JSON.
    pub json: Option<serde_json::Value>,
    /// Statuses of a successful response.
    pub success_status: Option<ScalarList>,
    /// Further conditions on a successful response.
    pub conditions: Vec<ConditionTable>,
    /// Further destinations, used if the first host cannot be reached.
    pub fallback_urls: Option<ScalarList>,
    /// Place of the gateway's identifier of the message in the response.
    pub id_pointer: Option<String>,
    /// Places of the gateway's error code in the response; the first that has one is
    /// used.
    pub error_pointer: Option<ScalarList>,
    /// Rules that classify other responses; the first that matches is used.
    pub errors: Vec<ErrorTable>,
    /// Minimum of `{ttl_seconds}`.
    pub ttl_seconds_min: Option<u64>,
    /// Maximum of `{ttl_seconds}`.
    pub ttl_seconds_max: Option<u64>,
    /// Values of `{secrets.NAME}`; `NAME_file` names a file.
    pub secrets: BTreeMap<String, SecretString>,
    /// Values of `{parameters.NAME}`.
    pub parameters: BTreeMap<String, ConfigScalar>,
    /// File of further authorities for the gateway's certificate, as PEM.
    pub ca: Option<PathBuf>,
    /// Allows a gateway in a network that is not public.
    pub allow_private_addresses: bool,
    /// Allows `http://` to another machine.
    pub allow_plaintext: bool,
    /// Request that checks the account without sending a message.
    pub check: Option<CheckTable>,
}

/// User name and password of `basic` (RFC 7617).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicTable {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Request `check`, which proves the account without a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckTable {
    /// Method: GET, POST or PUT.
    pub method: Option<String>,
    /// Destination of the request.
    pub url: Option<String>,
    /// Parameters that are added to the URL.
    pub query: BTreeMap<String, ConfigScalar>,
    /// Headers.
    pub headers: BTreeMap<String, ConfigScalar>,
    /// User name and password (RFC 7617).
    pub basic: Option<BasicTable>,
    /// Body, as a form.
    pub form: Option<BTreeMap<String, ConfigScalar>>,
    /// Body, as JSON.
    pub json: Option<serde_json::Value>,
    /// Statuses of a successful response.
    pub success_status: Option<ScalarList>,
    /// Further conditions on a successful response.
    pub conditions: Vec<ConditionTable>,
}

/// Entry of `conditions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionTable {
    /// Place in the response (RFC 6901).
    pub pointer: String,
    /// Met if the value equals this one.
    pub equals: Option<ConfigScalar>,
    /// Met if the value equals one of these.
    pub one_of: Option<ScalarList>,
    /// Met if the value exists, and equals none of these.
    pub not_one_of: Option<ScalarList>,
    /// Met if the value exists.
    pub present: Option<bool>,
    /// Met if the value does not exist.
    pub absent: Option<bool>,
    /// Met if the value is a number greater than this.
    pub greater_than: Option<f64>,
}

/// Entry of `errors`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorTable {
    /// Kind of failure of these responses.
    pub class: String,
    /// Statuses that the rule applies to.
    pub status: Option<ScalarList>,
    /// Place in the response (RFC 6901).
    pub pointer: Option<String>,
    /// Met if the value equals this one.
    pub equals: Option<ConfigScalar>,
    /// Met if the value equals one of these.
    pub one_of: Option<ScalarList>,
    /// Met if the value exists, and equals none of these.
    pub not_one_of: Option<ScalarList>,
    /// Met if the value exists.
    pub present: Option<bool>,
    /// Met if the value does not exist.
    pub absent: Option<bool>,
    /// Met if the value is a number greater than this.
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
