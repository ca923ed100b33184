//! The kinds of line in a stream, and their fields.

use std::fmt;
use std::str::FromStr;

use authzed::JsonObject;
use authzed::v1::Relationship;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::object::from_string;
use crate::relationship::relationship_json;

pub(crate) mod change;
pub mod check;
mod filter;
pub(crate) mod header;
mod summary;
mod trailer;

pub use self::change::{Checkpoint, SchemaChange, Transaction, UpdateLine};
pub use self::check::Check;
pub use self::filter::{Filter, by_prefix};
pub use self::header::{Header, MAX_MAPPING_BYTES, MAX_SCHEMA_BYTES, StreamKind};
pub use self::summary::{Applied, Digests, Imported, Position, RelationDigest, SpoolOffset};
pub use self::trailer::{StreamEnd, Trailer};

/// One line: an object with exactly one key, which names its kind.
///
/// Unknown keys and unknown fields are refused: a newer producer may mean something that must not be
/// skipped, and a damaged name of a field must not cost what it held.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every line is a relationship"
)]
pub enum Record {
    /// First line of a stream.
    Header(Box<Header>),
    /// A relationship of a snapshot.
    #[serde(with = "relationship_json")]
    Relationship(Relationship),
    /// A change without a revision: what a comparison writes, or a person.
    Update(Box<UpdateLine>),
    /// All changes of one revision, or a part of them.
    Transaction(Box<Transaction>),
    /// The schema changed.
    Schema(Box<SchemaChange>),
    /// Everything up to a revision has been written.
    Checkpoint(Box<Checkpoint>),
    /// What an import did.
    Imported(Box<Imported>),
    /// What an apply committed.
    Applied(Box<Applied>),
    /// How far an apply has come, in its position file.
    Position(Box<Position>),
    /// Counts and digests of a set of relationships.
    Digest(Box<Digests>),
    /// A question to a server, and its answer.
    Check(Box<Check>),
    /// Last line of a stream that ended as it should.
    Trailer(Box<Trailer>),
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

/// The key in a transaction's metadata with which spice-apply marks what it wrote, and from which source and
/// revision, so that it does not travel back.
pub const APPLIED_KEY: &str = "spicePipes";

/// Whether spice-apply has written the transaction of these metadata: all of its writers, where one revision
/// has several. `source`: the datastore id that it was read from, or empty for any.
#[must_use]
pub fn is_applied_from<'a>(
    source: &str,
    metadata: impl IntoIterator<Item = &'a JsonObject>,
) -> bool {
    let mut metadata = metadata.into_iter().peekable();
    metadata.peek().is_some() && metadata.all(|one| is_applied(one, source))
}

fn is_applied(metadata: &JsonObject, source: &str) -> bool {
    use prost_types::value::Kind::{StringValue, StructValue};

    let Some(value) = metadata.fields.get(APPLIED_KEY) else {
        return false;
    };
    if source.is_empty() {
        return true;
    }
    match &value.kind {
        Some(StructValue(applied)) => {
            let named = applied.fields.get("source").map(|value| &value.kind);
            matches!(named, Some(Some(StringValue(named))) if named == source)
        }
        _ => false,
    }
}

const KINDS: &[&str] = &[
    "header",
    "relationship",
    "update",
    "transaction",
    "schema",
    "checkpoint",
    "imported",
    "applied",
    "position",
    "digest",
    "check",
    "trailer",
];

impl Record {
    /// The key of the line.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Relationship(_) => "relationship",
            Self::Update(_) => "update",
            Self::Transaction(_) => "transaction",
            Self::Schema(_) => "schema",
            Self::Checkpoint(_) => "checkpoint",
            Self::Imported(_) => "imported",
            Self::Applied(_) => "applied",
            Self::Position(_) => "position",
            Self::Digest(_) => "digest",
            Self::Check(_) => "check",
            Self::Trailer(_) => "trailer",
        }
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

/// Serde's own enums would accept `"header"` for `{"header": ...}` and explain less.
struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one key, such as {\"relationship\":{...}}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let Some(Kind(kind)) = map.next_key()? else {
            return Err(de::Error::custom(
                "empty object: expected one key that names its kind",
            ));
        };
        let record = match kind {
            "header" => Record::Header(map.next_value()?),
            "relationship" => Record::Relationship(map.next_value::<Bare>()?.0),
            "update" => Record::Update(map.next_value()?),
            "transaction" => Record::Transaction(map.next_value()?),
            "schema" => Record::Schema(map.next_value()?),
            "checkpoint" => Record::Checkpoint(map.next_value()?),
            "imported" => Record::Imported(map.next_value()?),
            "applied" => Record::Applied(map.next_value()?),
            "position" => Record::Position(map.next_value()?),
            "digest" => Record::Digest(map.next_value()?),
            "check" => Record::Check(map.next_value()?),
            _ => Record::Trailer(map.next_value()?),
        };
        if let Some(second) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            return Err(de::Error::custom(format!(
                "second key {second:?} beside {kind:?}: a line has exactly one"
            )));
        }
        Ok(record)
    }
}

/// One of [`KINDS`].
struct Kind(&'static str);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer)
    }
}

impl FromStr for Kind {
    type Err = de::value::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        KINDS
            .iter()
            .find(|kind| **kind == text)
            .map(|kind| Self(kind))
            .ok_or_else(|| de::Error::unknown_variant(text, KINDS))
    }
}

#[derive(Deserialize)]
struct Bare(#[serde(with = "relationship_json")] Relationship);
