//! What a program did, and how far it has come: records that are no part of a stream.

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::is_false;
use crate::digest::{Digest, ExpiryPrecision, digest_text};
use crate::object::objects;

/// What an import did. `relationships` is the sum of the five counts after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
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
    /// Expiries that the target keeps less precisely than the stream has them.
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
    pub verified: bool,
    /// Relationships that a call had at last, and how many calls were in flight at most, as were found to be
    /// best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_size: Option<u64>,
    /// See `call_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_in_flight: Option<u64>,
    /// Wall time.
    pub seconds: f64,
}

/// What an apply committed to a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
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
    pub sync_point: bool,
    /// What a live Watch has delivered through this revision of the source was written early, before it had settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_revision: Option<String>,
    /// Revisions of the source.
    #[serde(default)]
    pub transactions: u64,
    /// Updates sent, at most one for each relationship.
    #[serde(default)]
    pub updates: u64,
    /// WriteRelationships calls.
    #[serde(default)]
    pub calls: u64,
    /// Of several calls: updates that one has, and how many calls are in flight, by the setting as they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_size: Option<u64>,
    /// See `call_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_in_flight: Option<u64>,
    /// One revision of the source, or a part of it, became several of the target.
    #[serde(default, skip_serializing_if = "is_false")]
    pub split: bool,
    /// The source has more revisions of it than the target.
    #[serde(default, skip_serializing_if = "is_false")]
    pub coalesced: bool,
    /// Seconds from the commit on the source to that on the target, by the clocks of both; absent
    /// where the source's revisions have no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<f64>,
    /// When it was acknowledged, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// How far the changes of a source have been written to a target: the position file of an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
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
    /// What was changed between the source and the stream, as in its header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mapping: Vec<String>,
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
    pub sync_point: bool,
    /// Writes after this revision were given up and may be applied late, until this time (RFC 3339):
    /// nothing is to be written again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambiguous_until: Option<String>,
    /// The target may hold changes after `source_revision`, through this one: they were written early, before they
    /// had settled. Until the position has passed it, both ends cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_until: Option<String>,
    /// Digest of the text of the newest schema of the stream that the target has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Digest>,
    /// Where in the spool the record with that revision begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolOffset>,
    /// The [checksum](Position::compute_checksum) of all the other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

impl Position {
    /// The digest of the position as compact JSON without its checksum, fields in the order in which
    /// they are written.
    ///
    /// # Errors
    ///
    /// None that is known: each field can be written as JSON.
    pub fn compute_checksum(&self) -> serde_json::Result<Digest> {
        let unsealed = Self {
            checksum: None,
            ..self.clone()
        };
        serde_json::to_string(&unsealed).map(|text| digest_text(&text))
    }
}

/// Counts and digests of a set of relationships: of one stream, or of several that are its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
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
    pub total: RelationDigest,
    /// By definition and relation, sorted.
    #[serde(default)]
    pub relations: Vec<RelationDigest>,
}

/// How many relationships there are, and the sum of their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub struct RelationDigest {
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
#[serde(remote = "Self", expecting = "a JSON object", deny_unknown_fields)]
pub struct SpoolOffset {
    /// Number of the segment, from 0.
    #[serde(default)]
    pub segment: u64,
    /// Bytes from its start.
    pub offset: u64,
}

objects!(
    Imported,
    Applied,
    Position,
    Digests,
    RelationDigest,
    SpoolOffset
);
