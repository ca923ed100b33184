//! SpiceDB's relationship as proto3 JSON, both ways, and as the text that people read.
//!
//! The messages come from generated code, so the JSON is described by structs beside them. Reading
//! accepts `lowerCamelCase` and the proto's own `snake_case` names, as proto3 JSON demands. An unknown
//! field is refused: it may be a caveat whose name is misspelt, and a grant without its caveat is
//! wider than it was.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use authzed::v1::{
    ContextualizedCaveat, ObjectReference, Relationship, RelationshipUpdate, SubjectReference,
    relationship_update::Operation,
};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// Writes a relationship as `document:readme#viewer@group:eng#member[caveat][expiration:...]`, the
/// notation of SpiceDB's own messages. Caveat context is left out: it can be 25 kB, and private.
pub struct Text<'a>(pub &'a Relationship);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = |f: &mut fmt::Formatter<'_>, object: Option<&ObjectReference>| match object {
            Some(o) => write!(f, "{}:{}", o.object_type, o.object_id),
            None => f.write_str("?"),
        };
        object(f, self.0.resource.as_ref())?;
        write!(f, "#{}@", self.0.relation)?;
        object(f, self.0.subject.as_ref().and_then(|s| s.object.as_ref()))?;
        if let Some(subject) = &self.0.subject
            && !subject.optional_relation.is_empty()
        {
            write!(f, "#{}", subject.optional_relation)?;
        }
        if let Some(caveat) = &self.0.optional_caveat {
            write!(f, "[{}]", caveat.caveat_name)?;
        }
        if let Some(expiry) = &self.0.optional_expires_at {
            match instant(expiry) {
                Some(time) => write!(f, "[expiration:{time}Z]")?,
                None => write!(f, "[expiration:{}s]", expiry.seconds)?,
            }
        }
        Ok(())
    }
}

/// The time, in UTC, that a protobuf timestamp says; `None` outside the years that RFC 3339 can write.
///
/// A civil time, because jiff's instants end a day before the year 9999 does, and the last second of
/// that year is how people write "never".
#[must_use]
pub fn instant(timestamp: &Timestamp) -> Option<DateTime> {
    let since = SignedDuration::new(timestamp.seconds, timestamp.nanos);
    let time = UNIX_EPOCH.checked_add(since).ok()?;
    (YEAR_1..=YEAR_9999)
        .contains(&timestamp.seconds)
        .then_some(time)
}

const UNIX_EPOCH: DateTime = jiff::civil::datetime(1970, 1, 1, 0, 0, 0, 0);

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the range of a protobuf timestamp, in seconds.
const YEAR_1: i64 = -62_135_596_800;
const YEAR_9999: i64 = 253_402_300_799;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ObjectJson<'a> {
    #[serde(alias = "object_type")]
    object_type: Cow<'a, str>,
    #[serde(alias = "object_id")]
    object_id: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubjectJson<'a> {
    object: ObjectJson<'a>,
    #[serde(
        default,
        alias = "optional_relation",
        skip_serializing_if = "str::is_empty"
    )]
    optional_relation: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaveatJson<'a> {
    #[serde(alias = "caveat_name")]
    caveat_name: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "ContextJson::is_empty")]
    context: ContextJson<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RelationshipJson<'a> {
    resource: ObjectJson<'a>,
    relation: Cow<'a, str>,
    subject: SubjectJson<'a>,
    #[serde(
        default,
        alias = "optional_caveat",
        skip_serializing_if = "Option::is_none"
    )]
    optional_caveat: Option<CaveatJson<'a>>,
    #[serde(
        default,
        alias = "optional_expires_at",
        skip_serializing_if = "Option::is_none"
    )]
    optional_expires_at: Option<ExpiryJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateJson<'a> {
    operation: OperationJson,
    relationship: RelationshipJson<'a>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum OperationJson {
    #[serde(rename = "OPERATION_CREATE")]
    Create,
    #[serde(rename = "OPERATION_TOUCH")]
    Touch,
    #[serde(rename = "OPERATION_DELETE")]
    Delete,
}

/// For `#[serde(with = "...")]` on a [`Relationship`].
pub(crate) mod relationship_json {
    use super::{Deserialize, Deserializer, Relationship, RelationshipJson, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        message: &Relationship,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        RelationshipJson::try_from(message)
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Relationship, D::Error> {
        RelationshipJson::deserialize(d).map(Relationship::from)
    }
}

/// An update of a relationship: a wrapper, because neither serde nor the message is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Update(pub RelationshipUpdate);

impl Serialize for Update {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let operation = match self.0.operation() {
            Operation::Create => OperationJson::Create,
            Operation::Touch => OperationJson::Touch,
            Operation::Delete => OperationJson::Delete,
            Operation::Unspecified => return Err(S::Error::custom("update without an operation")),
        };
        let Some(relationship) = &self.0.relationship else {
            return Err(S::Error::custom("update without a relationship"));
        };
        let relationship = relationship.try_into().map_err(S::Error::custom)?;
        UpdateJson {
            operation,
            relationship,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Update {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = UpdateJson::deserialize(deserializer)?;
        let operation = match json.operation {
            OperationJson::Create => Operation::Create,
            OperationJson::Touch => Operation::Touch,
            OperationJson::Delete => Operation::Delete,
        };
        Ok(Self(RelationshipUpdate {
            operation: operation.into(),
            relationship: Some(json.relationship.into()),
        }))
    }
}

impl<'a> From<&'a ObjectReference> for ObjectJson<'a> {
    fn from(message: &'a ObjectReference) -> Self {
        Self {
            object_type: Cow::Borrowed(&message.object_type),
            object_id: Cow::Borrowed(&message.object_id),
        }
    }
}

impl From<ObjectJson<'_>> for ObjectReference {
    fn from(json: ObjectJson<'_>) -> Self {
        Self {
            object_type: json.object_type.into_owned(),
            object_id: json.object_id.into_owned(),
        }
    }
}

impl<'a> TryFrom<&'a SubjectReference> for SubjectJson<'a> {
    type Error = String;

    fn try_from(message: &'a SubjectReference) -> Result<Self, String> {
        let Some(object) = &message.object else {
            return Err("subject without an object".to_owned());
        };
        Ok(Self {
            object: object.into(),
            optional_relation: Cow::Borrowed(&message.optional_relation),
        })
    }
}

impl From<SubjectJson<'_>> for SubjectReference {
    fn from(json: SubjectJson<'_>) -> Self {
        Self {
            object: Some(json.object.into()),
            optional_relation: json.optional_relation.into_owned(),
        }
    }
}

impl<'a> TryFrom<&'a Relationship> for RelationshipJson<'a> {
    type Error = String;

    fn try_from(message: &'a Relationship) -> Result<Self, String> {
        let (Some(resource), Some(subject)) = (&message.resource, &message.subject) else {
            return Err("relationship without a resource or a subject".to_owned());
        };
        let expires = |timestamp: &Timestamp| {
            instant(timestamp)
                .map(ExpiryJson)
                .ok_or_else(|| format!("{}: expiry outside the years 1 to 9999", Text(message)))
        };
        Ok(Self {
            resource: resource.into(),
            relation: Cow::Borrowed(&message.relation),
            subject: subject.try_into()?,
            optional_caveat: message.optional_caveat.as_ref().map(|caveat| CaveatJson {
                caveat_name: Cow::Borrowed(&caveat.caveat_name),
                context: ContextJson(caveat.context.as_ref().map(Cow::Borrowed)),
            }),
            optional_expires_at: message
                .optional_expires_at
                .as_ref()
                .map(expires)
                .transpose()?,
        })
    }
}

impl From<RelationshipJson<'_>> for Relationship {
    fn from(json: RelationshipJson<'_>) -> Self {
        Self {
            resource: Some(json.resource.into()),
            relation: json.relation.into_owned(),
            subject: Some(json.subject.into()),
            optional_caveat: json.optional_caveat.map(|caveat| ContextualizedCaveat {
                caveat_name: caveat.caveat_name.into_owned(),
                context: caveat.context.0.map(Cow::into_owned),
            }),
            optional_expires_at: json
                .optional_expires_at
                .map(|ExpiryJson(time)| timestamp(time)),
        }
    }
}

/// A protobuf timestamp counts its nanoseconds forward from the second before it, also before 1970.
fn timestamp(time: DateTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH);
    let (mut seconds, mut nanos) = (since.as_secs(), since.subsec_nanos());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    Timestamp { seconds, nanos }
}

struct ExpiryJson(DateTime);

impl Serialize for ExpiryJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}Z", self.0))
    }
}

impl<'de> Deserialize<'de> for ExpiryJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let refuse = || {
            de::Error::custom(format!(
                "expected an RFC 3339 time such as 2027-01-01T00:00:00Z, got {text:?}"
            ))
        };
        parse_time(&text).map(Self).ok_or_else(refuse)
    }
}

/// RFC 3339, in UTC or with an offset.
fn parse_time(text: &str) -> Option<DateTime> {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'.' | b'T' | b't');
    let time = match text.strip_suffix(['Z', 'z']) {
        // Not by way of an instant: see `instant`.
        Some(utc) if utc.len() >= 19 && utc.bytes().all(plain) => utc.parse().ok()?,
        _ => jiff::tz::Offset::UTC.to_datetime(text.parse().ok()?),
    };
    (YEAR_1..=YEAR_9999)
        .contains(&timestamp(time).seconds)
        .then_some(time)
}

/// A caveat's context. Numbers are IEEE doubles, as in the API; none and empty are the same.
#[derive(Default)]
pub(crate) struct ContextJson<'a>(pub(crate) Option<Cow<'a, Struct>>);

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
            Some(context) => StructRef(context).serialize(serializer),
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
pub struct StructJson(pub Struct);

impl Serialize for StructJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StructRef(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StructJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ValueJson::deserialize(deserializer)?.0.kind {
            Some(Kind::StructValue(value)) => Ok(Self(value)),
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
                    "key {key:?} stands twice in one object"
                )));
            }
        }
        Ok(Kind::StructValue(Struct { fields }))
    }
}
