//! The kinds of line in a stream, and their fields.

use std::fmt;

use authzed::v1::Relationship;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::checks::Check;
use crate::digest::{Digest, ExpiryPrecision, digest_fields};
use crate::relationship::{StructJson, Update, relationship_json};

/// One line: an object with exactly one key, which says what it is.
///
/// Unknown keys are refused (a newer producer may mean something that must not be skipped); unknown
/// fields inside a known record are ignored.
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
    Update(Box<Update>),
    /// All changes of one revision, or a part of them.
    Transaction(Box<Transaction>),
    /// The schema changed.
    Schema(Box<SchemaChange>),
    /// Everything up to a revision has been said.
    Checkpoint(Box<Checkpoint>),
    /// What an import did.
    Imported(Box<Imported>),
    /// What an apply committed.
    Applied(Box<Applied>),
    /// Where an apply stands, in its position file.
    Position(Box<Position>),
    /// Counts and digests of a set of relationships.
    Digest(Box<Digests>),
    /// A question to a server, and its answer.
    Check(Box<Check>),
    /// Last line of a stream that ended as it should.
    Trailer(Box<Trailer>),
}

/// What kind of stream a header opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// Relationships at one revision.
    Snapshot,
    /// Transactions, schemas and checkpoints after a revision.
    Changes,
    /// Updates without revisions.
    Updates,
    /// Questions with their answers at one revision.
    Checks,
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Changes => "changes",
            Self::Updates => "updates",
            Self::Checks => "checks",
        })
    }
}

/// First line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// [`crate::FORMAT`].
    pub format: String,
    /// What follows.
    pub stream: StreamKind,
    /// The zedtoken of the snapshot, or the one after which the changes begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The schema's text as the server gives it; absent if it was left out on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Set if the stream holds only some of the relationships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Program and version that wrote the stream.
    pub producer: String,
    /// When it began to, RFC 3339.
    pub created_at: String,
}

/// Which relationships a stream is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Resource types; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Prefix of the resource ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_prefix: Option<String>,
}

impl Header {
    /// The checksum that the trailer repeats: of the decoded fields, so that another spelling of the
    /// same JSON keeps it and a flipped bit in the schema does not.
    #[must_use]
    pub fn checksum(&self) -> Digest {
        let stream = self.stream.to_string();
        let mut fields = vec![
            Some(self.format.as_str()),
            Some(&stream),
            self.revision.as_deref(),
            self.schema.as_deref(),
            Some(&self.producer),
            Some(&self.created_at),
        ];
        if let Some(filter) = &self.filter {
            fields.push(filter.resource_prefix.as_deref());
            fields.extend(filter.types.iter().map(|name| Some(name.as_str())));
        }
        digest_fields(fields)
    }
}

/// Last line of a stream that ended as it should.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trailer {
    /// Snapshot: how many relationships stand between header and trailer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relationships: Option<u64>,
    /// Snapshot: their digest at `expiry_precision`, comparable with another server's. Checks: theirs,
    /// in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Snapshot: their digest with expiries in full, where it differs from `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_digest: Option<Digest>,
    /// Snapshot: the precision of `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_precision: Option<ExpiryPrecision>,
    /// The header's [checksum](Header::checksum).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Digest>,
    /// Updates: how many stand between header and trailer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Checks: how many stand between header and trailer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<u64>,
    /// Changes: the last revision, all of which has been said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Changes: why the stream ended (`until`, `quiet`, `signal`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// All changes of one revision. A huge revision stands on several lines: each has a `part`, counted
/// from 1, and only the one with `last_part` completes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// The zedtoken of the revision.
    pub revision: String,
    /// The changes, at most one of each relationship, in no order.
    #[serde(default)]
    pub updates: Vec<Update>,
    /// The metadata that its writers gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<StructJson>,
    /// Which part of the revision this line is; absent if it is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u64>,
    /// Whether this part is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_part: Option<bool>,
    /// These are states that were read at the revision, of relationships that changed more than once
    /// within a short time: the order of their revisions is not the order of their effects.
    #[serde(default, skip_serializing_if = "is_false")]
    pub contended: bool,
}

impl Transaction {
    /// Whether the revision is whole with this line.
    #[must_use]
    pub fn completes_revision(&self) -> bool {
        self.part.is_none() || self.last_part == Some(true)
    }
}

/// The schema changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaChange {
    /// The zedtoken of the change.
    pub revision: String,
    /// The text, read at the head: it may be newer than its place in the stream.
    pub text: String,
}

/// Everything up to a revision has been said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The zedtoken.
    pub revision: String,
    /// When it was seen, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Seconds from the acknowledgement of a heartbeat's marker until this, the first checkpoint that
    /// holds it, was seen. Absent where no marker is new in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<f64>,
}

/// What an import did. `relationships` is the sum of the five counts after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Relationships in the stream.
    pub relationships: u64,
    /// Written, and new to the target.
    pub loaded: u64,
    /// On the target already, the same.
    pub present: u64,
    /// Written over another state (`--on-conflict touch`), or over a row that had expired.
    pub touched: u64,
    /// Left as they are on the target, where they differ (`--on-conflict skip`).
    pub skipped: u64,
    /// Refused by the target, and written to the rejects file.
    pub rejected: u64,
    /// Expiries that the target keeps less precisely than the stream says them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_truncated: Option<u64>,
    /// Revision of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
    /// A revision of the target that holds all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// Digest of the stream.
    pub digest: Digest,
    /// Precision of the digest.
    pub expiry_precision: ExpiryPrecision,
    /// Whether count, digest and header were proved by a trailer.
    pub sealed: bool,
    /// Wall time.
    pub seconds: f64,
}

/// What an apply committed to a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The source's revision through which everything is on the target; absent for updates that have
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
    /// A revision of the target that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// Nothing was in flight when it was written, and the target's revision was taken after that: so
    /// both ends, exported at these two revisions, must agree.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paired: bool,
    /// Revisions of the source.
    #[serde(default)]
    pub transactions: u64,
    /// Updates sent, at most one for each relationship.
    #[serde(default)]
    pub updates: u64,
    /// WriteRelationships calls.
    #[serde(default)]
    pub calls: u64,
    /// One revision of the source became several of the target.
    #[serde(default, skip_serializing_if = "is_false")]
    pub split: bool,
    /// Several revisions of the source became fewer of the target.
    #[serde(default, skip_serializing_if = "is_false")]
    pub coalesced: bool,
    /// Seconds from the commit on the source to that on the target, by the clocks of both; absent
    /// where the source's revisions do not tell the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<f64>,
    /// When it was acknowledged, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// How far the changes of a source have been written to a target: the position file of an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The source's datastore id, as in its zedtokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What part of the source is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// The revision at which the very first stream began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The source's revision, all of which is on the target.
    pub source_revision: String,
    /// The newest revision of the target that is known to hold what was written before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// That revision was taken when nothing was in flight, after everything through the source's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paired: bool,
    /// Writes after this revision were given up and may be applied late, until this time (RFC 3339):
    /// nothing is to be written again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubts_until: Option<String>,
    /// Digest of the text of the newest schema of the stream that the target has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Digest>,
    /// Where in the spool the record with that revision begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Place>,
}

/// Counts and digests of a set of relationships: of one stream, or of several that are its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digests {
    /// How much of an expiry takes part in the digests.
    pub expiry_precision: ExpiryPrecision,
    /// What expires before this instant was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// The revisions of the streams, in the order in which they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// All of them.
    pub total: Counted,
    /// By definition and relation, sorted.
    #[serde(default)]
    pub relations: Vec<Counted>,
}

/// How many relationships there are, and the sum of their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// `definition#relation`; absent for all of them together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// How many there are.
    pub relationships: u64,
    /// How many of them have a caveat.
    pub caveated: u64,
    /// How many of them expire.
    pub expiring: u64,
    /// The sum of their digests.
    pub digest: Digest,
}

/// A place in a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Number of the segment, from 0.
    #[serde(default)]
    pub segment: u64,
    /// Bytes from its start.
    pub offset: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The key in a transaction's metadata that says that an apply wrote it, from which source and
/// revision: so it does not travel back.
pub const APPLIED_KEY: &str = "spicePipes";

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
                "empty object: expected one key that says what it is",
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
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        KINDS
            .iter()
            .find(|kind| **kind == text)
            .map(|kind| Self(kind))
            .ok_or_else(|| de::Error::unknown_variant(&text, KINDS))
    }
}

#[derive(Deserialize)]
struct Bare(#[serde(with = "relationship_json")] Relationship);
