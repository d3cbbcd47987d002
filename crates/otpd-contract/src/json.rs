//! JSON form of the messages, by the rules of proto3 with these decisions: a text must be a
//! string, an unknown or repeated field is an error, and an error never contains a value.
//!
//! `pbjson` 0.9 does not read `null` for a text, and its errors contain the value;
//! `prost-reflect` 0.16 takes the last of repeated fields, and needs the descriptors at run
//! time.

use std::{collections::HashMap, fmt, marker::PhantomData};

use prost_types::Timestamp;
use serde::{
    Deserialize, Deserializer, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use crate::v1;

/// Enumeration of the contract.
pub trait Enumeration: Sized + TryFrom<i32> + Into<i32> {
    /// Value of a name of the contract.
    fn from_name(name: &str) -> Option<Self>;
    /// Name of a value in the contract.
    fn name(self) -> &'static str;
}

macro_rules! enumerations {
    ($($Type:ident)*) => {
        $(impl Enumeration for v1::$Type {
            fn from_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }

            fn name(self) -> &'static str {
                self.as_str_name()
            }
        })*
    };
}

enumerations!(Channel DeliveryState VerifyOutcome);

/// Reads a text; `null` is the empty one.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Number(_) => Err(D::Error::custom(
            "must be a JSON string: write it in quotes, because a number loses leading zeros",
        )),
        _ => Err(D::Error::custom("must be a JSON string")),
    }
}

/// Reads a switch; `null` is false.
pub fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(value),
        _ => Err(D::Error::custom("must be true or false, without quotes")),
    }
}

/// Reads a value of an enumeration by its name or its number; `null` is the unspecified one.
/// The receiver of the message refuses unknown numbers.
pub fn enumeration<'de, E: Enumeration, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<i32, D::Error> {
    let value = match Value::deserialize(deserializer)? {
        Value::Null => Some(0),
        Value::String(name) => E::from_name(&name).map(Into::into),
        Value::Number(number) => number.as_i64().and_then(|number| number.try_into().ok()),
        _ => None,
    };
    value.ok_or_else(|| {
        let known: Vec<_> = (0..)
            .map_while(|number| E::try_from(number).ok())
            .map(E::name)
            .collect();
        D::Error::custom(format!("must be one of {}", known.join(", ")))
    })
}

/// Reads an object of texts, in which each name may be there once; `null` is the empty one.
pub fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<HashMap<String, String>, D::Error> {
    deserializer.deserialize_any(TextMap)
}

/// Visitor of an object of texts.
struct TextMap;

const TEXT_MAP: &str = "must be a JSON object whose values are strings";

impl<'de> Visitor<'de> for TextMap {
    type Value = HashMap<String, String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut texts = HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            let Value::String(value) = value else {
                return Err(M::Error::custom(TEXT_MAP));
            };
            if texts.insert(name, value).is_some() {
                return Err(M::Error::custom("holds one name twice"));
            }
        }
        Ok(texts)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(HashMap::new())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(E::custom(TEXT_MAP))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(E::custom(TEXT_MAP))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(E::custom(TEXT_MAP))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom(TEXT_MAP))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::custom(TEXT_MAP))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom(TEXT_MAP))
    }
}

/// Reads a message, which must be an object; `null` is an unset one.
pub fn message<'de, M: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<M>, D::Error> {
    deserializer.deserialize_any(Message(PhantomData))
}

/// Visitor of a message. Without it serde would read an array as well, as the fields in their
/// order.
struct Message<M>(PhantomData<M>);

const MESSAGE: &str = "must be a JSON object";

impl<'de, M: Deserialize<'de>> Visitor<'de> for Message<M> {
    type Value = Option<M>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(E::custom(MESSAGE))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(E::custom(MESSAGE))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(E::custom(MESSAGE))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom(MESSAGE))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::custom(MESSAGE))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom(MESSAGE))
    }
}

/// Writes the name of a value; the number of an unknown one.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
pub fn enumeration_name<E: Enumeration, S: Serializer>(
    number: &i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match E::try_from(*number) {
        Ok(value) => serializer.serialize_str(value.name()),
        Err(_) => serializer.serialize_i32(*number),
    }
}

/// Writes an instant as RFC 3339 in UTC.
#[expect(clippy::ref_option, reason = "the signature that serde calls")]
pub fn timestamp<S: Serializer>(
    instant: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match instant {
        Some(instant) => serializer.collect_str(instant),
        None => serializer.serialize_none(),
    }
}
