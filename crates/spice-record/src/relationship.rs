//! SpiceDB's relationship as proto3 JSON, both ways, and as the text that people read.
//!
//! The messages come from generated code, so the JSON is described by structs beside them. Reading
//! accepts `lowerCamelCase` and the proto's own `snake_case` names, as proto3 JSON demands. An unknown
//! field is refused: it may be a caveat whose name is misspelt, and a grant without its caveat is
//! wider than it was.

use std::borrow::Cow;
use std::fmt;

use authzed::v1::{
    ContextualizedCaveat, ObjectReference, Relationship, RelationshipUpdate, SubjectReference,
    relationship_update::Operation,
};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use prost_types::Timestamp;
use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::context::ContextJson;
pub use crate::context::{StructJson, context_values, struct_values};
use crate::object::objects;
use crate::time::is_rfc3339;

/// Writes a relationship as `document:readme#viewer@group:eng#member[caveat][expiration:...]`, the
/// notation of SpiceDB's own messages. Caveat context is left out: it can be 25 kB, and private.
pub struct DisplayRelationship<'a>(pub &'a Relationship);

impl fmt::Display for DisplayRelationship<'_> {
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

/// The time, in UTC, of a protobuf timestamp; `None` outside the years that RFC 3339 can write,
/// and where the nanoseconds are none (0 to 999,999,999).
///
/// A civil time, because jiff's instants end a day before the year 9999 does, and the last second of
/// that year is how people write "never".
#[must_use]
pub fn instant(timestamp: &Timestamp) -> Option<DateTime> {
    let is_valid = (YEAR_1..=YEAR_9999).contains(&timestamp.seconds)
        && (0..1_000_000_000).contains(&timestamp.nanos);
    let since = is_valid.then(|| SignedDuration::new(timestamp.seconds, timestamp.nanos))?;
    UNIX_EPOCH.checked_add(since).ok()
}

const UNIX_EPOCH: DateTime = jiff::civil::datetime(1970, 1, 1, 0, 0, 0, 0);

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the range of a protobuf timestamp, in seconds.
const YEAR_1: i64 = -62_135_596_800;
const YEAR_9999: i64 = 253_402_300_799;

/// The relation of a subject that is an object, as SpiceDB's tables and old tools have it. The API has none
/// there, and so has everything that is read here: it would be another relationship.
pub const ELLIPSIS: &str = "...";

/// The longest name or id, in bytes: four times the longest that SpiceDB accepts (an object's id, 1,024).
pub const MAX_NAME_BYTES: usize = 4_096;

fn name<'de, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.len() > MAX_NAME_BYTES {
        let bytes = name.len();
        return Err(de::Error::custom(format!(
            "a name of {bytes} bytes: no server accepts more than 1,024"
        )));
    }
    Ok(Cow::Owned(name))
}

/// A caveat without a name is none, and one that is meant must not become unconditional.
fn given_name<'de, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    let name = name(deserializer)?;
    match name.is_empty() {
        true => Err(de::Error::custom("a caveat without a name")),
        false => Ok(name),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub(crate) struct ObjectJson<'a> {
    #[serde(alias = "object_type", deserialize_with = "name")]
    object_type: Cow<'a, str>,
    #[serde(alias = "object_id", deserialize_with = "name")]
    object_id: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub(crate) struct SubjectJson<'a> {
    object: ObjectJson<'a>,
    #[serde(
        default,
        alias = "optional_relation",
        deserialize_with = "name",
        skip_serializing_if = "str::is_empty"
    )]
    optional_relation: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
struct CaveatJson<'a> {
    #[serde(alias = "caveat_name", deserialize_with = "given_name")]
    caveat_name: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "ContextJson::is_empty")]
    context: ContextJson<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub(crate) struct RelationshipJson<'a> {
    resource: ObjectJson<'a>,
    #[serde(deserialize_with = "name")]
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
#[serde(remote = "Self", expecting = "a JSON object", deny_unknown_fields)]
struct UpdateJson<'a> {
    operation: OperationJson,
    relationship: RelationshipJson<'a>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum OperationJson {
    #[serde(rename = "OPERATION_CREATE")]
    Create,
    #[serde(rename = "OPERATION_TOUCH")]
    Touch,
    #[serde(rename = "OPERATION_DELETE")]
    Delete,
}

objects!(
    ObjectJson<'a>,
    SubjectJson<'a>,
    CaveatJson<'a>,
    RelationshipJson<'a>,
    UpdateJson<'a>,
);

/// For `#[serde(with = "...")]` on a [`Relationship`].
pub(crate) mod relationship_json {
    use super::{Deserialize, Deserializer, Relationship, RelationshipJson, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        message: &Relationship,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let json = RelationshipJson::try_from(message).map_err(serde::ser::Error::custom)?;
        Serialize::serialize(&json, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Relationship, D::Error> {
        <RelationshipJson<'_> as Deserialize>::deserialize(d).map(Relationship::from)
    }
}

/// An update of a relationship: a wrapper, because neither serde nor the message is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Update(pub RelationshipUpdate);

impl Update {
    pub(crate) fn to_json<E: serde::ser::Error>(
        &self,
    ) -> Result<(OperationJson, RelationshipJson<'_>), E> {
        let operation = match self.0.operation() {
            Operation::Create => OperationJson::Create,
            Operation::Touch => OperationJson::Touch,
            Operation::Delete => OperationJson::Delete,
            Operation::Unspecified => return Err(E::custom("update without an operation")),
        };
        let Some(relationship) = &self.0.relationship else {
            return Err(E::custom("update without a relationship"));
        };
        let relationship = relationship.try_into().map_err(E::custom)?;
        Ok((operation, relationship))
    }

    pub(crate) fn from_json(operation: OperationJson, relationship: RelationshipJson<'_>) -> Self {
        let operation = match operation {
            OperationJson::Create => Operation::Create,
            OperationJson::Touch => Operation::Touch,
            OperationJson::Delete => Operation::Delete,
        };
        Self(RelationshipUpdate {
            operation: operation.into(),
            relationship: Some(relationship.into()),
        })
    }
}

impl Serialize for Update {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (operation, relationship) = self.to_json()?;
        let json = UpdateJson {
            operation,
            relationship,
        };
        Serialize::serialize(&json, serializer)
    }
}

impl<'de> Deserialize<'de> for Update {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <UpdateJson<'_> as Deserialize>::deserialize(deserializer)?;
        Ok(Self::from_json(json.operation, json.relationship))
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
        let mut optional_relation = json.optional_relation.into_owned();
        if optional_relation == ELLIPSIS {
            optional_relation.clear();
        }
        Self {
            object: Some(json.object.into()),
            optional_relation,
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
            instant(timestamp).map(ExpiryJson).ok_or_else(|| {
                format!(
                    "{}: expiry outside the years 1 to 9999, or not a valid time",
                    DisplayRelationship(message)
                )
            })
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

/// Reads an RFC 3339 time, in UTC or with an offset; `None` for what is none, and outside the years of a
/// protobuf timestamp.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    parse_time(text).map(timestamp)
}

/// RFC 3339, in UTC or with an offset.
fn parse_time(text: &str) -> Option<DateTime> {
    if !is_rfc3339(text) {
        return None;
    }
    let time = match text.strip_suffix(['Z', 'z']) {
        // Not by way of an instant: see `instant`.
        Some(utc) => utc.parse().ok()?,
        None => jiff::tz::Offset::UTC.to_datetime(text.parse().ok()?),
    };
    (YEAR_1..=YEAR_9999)
        .contains(&timestamp(time).seconds)
        .then_some(time)
}
