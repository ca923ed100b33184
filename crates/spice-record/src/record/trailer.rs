//! The trailer: the last line of a stream, and whether it proves that the stream is complete.

use serde::{Deserialize, Serialize};

use super::header::StreamKind;
use crate::digest::{Digest, DigestSum, ExpiryPrecision, digest_text};
use crate::object::objects;

/// Last line of a stream that ended as it should.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub struct Trailer {
    /// Snapshot: how many relationships are between header and trailer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relationships: Option<u64>,
    /// Snapshot: their digest at `expiry_precision`, comparable with another server's. Checks: theirs,
    /// in their order. Changes and updates: the checksum of the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Snapshot: their digest with expiries in full, where it differs from `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_digest: Option<Digest>,
    /// Snapshot: the precision of `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_precision: Option<ExpiryPrecision>,
    /// The header's checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Digest>,
    /// Updates: how many are between header and trailer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Checks: how many are between header and trailer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<u64>,
    /// Changes: the last complete revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Changes: why the stream ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<StreamEnd>,
    /// The [checksum](Trailer::sealed) of all the other fields. A writer sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

/// Why a change stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamEnd {
    /// Everything through the revision of `--until` was written.
    Until,
    /// Nothing changed for the time of `--until-quiet`.
    Quiet,
    /// A signal.
    Signal,
}

objects!(Trailer);

/// Which fields the trailer of a kind of stream must have.
fn required(kind: StreamKind) -> &'static [&'static str] {
    match kind {
        StreamKind::Snapshot => &["relationships", "digest", "expiryPrecision", "header"],
        StreamKind::Changes => &["revision", "endReason", "digest", "header"],
        StreamKind::Updates => &["updates", "digest", "header"],
        StreamKind::Checks => &["checks", "digest", "header"],
    }
}

impl Trailer {
    /// Count and digests of a snapshot, without the header's checksum.
    #[must_use]
    pub fn of_snapshot(sum: &DigestSum, precision: ExpiryPrecision) -> Self {
        let (digest, exact) = (sum.digest(precision), sum.exact());
        Self {
            relationships: Some(sum.relationships()),
            digest: Some(digest),
            exact_digest: (exact != digest).then_some(exact),
            expiry_precision: Some(precision),
            ..Self::default()
        }
    }

    /// The same with its checksum: the digest of the trailer as compact JSON without it, fields in the
    /// order in which they are written.
    #[must_use]
    pub fn sealed(self) -> Self {
        let bare = Self {
            checksum: None,
            ..self
        };
        // Each field can be written as JSON.
        let checksum = serde_json::to_string(&bare).map(|text| digest_text(&text));
        Self {
            checksum: checksum.ok(),
            ..bare
        }
    }

    /// Whether this is the trailer of such a stream, and of the one that `header` opens. Counts and
    /// digests are for the reader to compare.
    ///
    /// # Errors
    ///
    /// What is wrong, for the message.
    pub fn check(&self, kind: StreamKind, header: Option<Digest>) -> Result<(), String> {
        let fields = [
            ("relationships", self.relationships.is_some()),
            ("digest", self.digest.is_some()),
            ("exactDigest", self.exact_digest.is_some()),
            ("expiryPrecision", self.expiry_precision.is_some()),
            ("header", self.header.is_some()),
            ("updates", self.updates.is_some()),
            ("checks", self.checks.is_some()),
            ("revision", self.revision.is_some()),
            ("endReason", self.end_reason.is_some()),
        ];
        for (name, given) in fields {
            let is_required = required(kind).contains(&name);
            let is_optional = kind == StreamKind::Snapshot && name == "exactDigest";
            if given && !is_required && !is_optional {
                return Err(format!(
                    "not the trailer of a stream of {kind}: it has {name}"
                ));
            }
            if is_required && !given {
                return Err(format!("not the trailer of a stream of {kind}: no {name}"));
            }
        }
        if self.clone().sealed().checksum != self.checksum {
            return Err(match self.checksum {
                Some(_) => "trailer altered: it does not have its checksum".to_owned(),
                None => "trailer without a checksum: it is damaged, or was made by hand".to_owned(),
            });
        }
        if header.is_some() && self.header != header {
            return Err("header altered: its checksum is not the trailer's".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
