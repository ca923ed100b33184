//! Caveat contexts and metadata: `google.protobuf.Struct` as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use authzed::v1::Relationship;
use authzed::{JsonObject, MAX_DEPTH};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// A caveat's context. Numbers are IEEE doubles, as in the API; none and empty are the same.
#[derive(Default)]
pub(crate) struct ContextJson<'a>(pub(crate) Option<Cow<'a, JsonObject>>);

impl ContextJson<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|context| context.fields.is_empty())
    }
}

impl Serialize for ContextJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(context) => StructRef(&context.0).serialize(serializer),
            None => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for ContextJson<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let context = Option::<StructJson>::deserialize(deserializer)?;
        Ok(Self(context.map(|StructJson(context)| Cow::Owned(context))))
    }
}

/// A `google.protobuf.Struct` read from a JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StructJson(pub JsonObject);

impl Serialize for StructJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StructRef(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StructJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ValueJson::deserialize(deserializer)?.0.kind {
            Some(Kind::StructValue(object)) if depth(&object) > MAX_DEPTH => {
                Err(de::Error::custom(format!(
                    "a context or metadata nested more than {MAX_DEPTH} levels deep"
                )))
            }
            Some(Kind::StructValue(object)) => Ok(Self(object.into())),
            _ => Err(de::Error::custom("expected a JSON object")),
        }
    }
}

struct StructRef<'a>(&'a Struct);

impl Serialize for StructRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.fields.len()))?;
        for (key, value) in &self.0.fields {
            map.serialize_entry(key, &ValueRef(value))?;
        }
        map.end()
    }
}

struct ValueRef<'a>(&'a Value);

impl Serialize for ValueRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// 2^53: up to here every integer is a double, and is written without a fraction.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match &self.0.kind {
            None | Some(Kind::NullValue(_)) => serializer.serialize_unit(),
            Some(Kind::BoolValue(b)) => serializer.serialize_bool(*b),
            Some(Kind::NumberValue(n)) if !n.is_finite() => Err(S::Error::custom(format!(
                "a caveat context holds {n}, which JSON cannot say"
            ))),
            Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < EXACT && *n != 0.0 => {
                serializer.serialize_i64(*n as i64)
            }
            Some(Kind::NumberValue(n)) if *n == 0.0 && n.is_sign_positive() => {
                serializer.serialize_i64(0)
            }
            Some(Kind::NumberValue(n)) => serializer.serialize_f64(*n),
            Some(Kind::StringValue(s)) => serializer.serialize_str(s),
            Some(Kind::StructValue(s)) => StructRef(s).serialize(serializer),
            Some(Kind::ListValue(list)) => {
                let mut seq = serializer.serialize_seq(Some(list.values.len()))?;
                for value in &list.values {
                    seq.serialize_element(&ValueRef(value))?;
                }
                seq.end()
            }
        }
    }
}

/// How many values a relationship's caveat context holds.
#[must_use]
pub fn context_values(relationship: &Relationship) -> usize {
    let caveat = relationship.optional_caveat.as_ref();
    let context = caveat.and_then(|caveat| caveat.context.as_ref());
    context.map_or(0, |context| struct_values(context))
}

/// How many values a struct holds. In memory each can take about 1 KiB, however short it is as text.
#[must_use]
pub fn struct_values(context: &Struct) -> usize {
    fn count(value: &Value) -> usize {
        1 + match &value.kind {
            Some(Kind::StructValue(value)) => struct_values(value),
            Some(Kind::ListValue(list)) => list.values.iter().map(count).sum(),
            _ => 0,
        }
    }
    context.fields.values().map(count).sum()
}

/// How deep objects and lists may be nested.
fn depth(context: &Struct) -> usize {
    fn of(value: &Value) -> usize {
        match &value.kind {
            Some(Kind::StructValue(value)) => depth(value),
            Some(Kind::ListValue(list)) => 1 + list.values.iter().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    1 + context.fields.values().map(of).max().unwrap_or(0)
}

struct ValueJson(Value);

impl<'de> Deserialize<'de> for ValueJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ValueVisitor)
            .map(|kind| Self(Value { kind: Some(kind) }))
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::NullValue(0))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::BoolValue(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::NumberValue(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::NumberValue(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::NumberValue(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::StringValue(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::StringValue(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut values = Vec::new();
        while let Some(ValueJson(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Kind::ListValue(ListValue { values }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let ValueJson(value) = map.next_value()?;
            if fields.insert(key.clone(), value).is_some() {
                return Err(de::Error::custom(format!(
                    "key {key:?} is twice in one object"
                )));
            }
        }
        Ok(Kind::StructValue(Struct { fields }))
    }
}

#[cfg(test)]
mod tests;
