//! The lines of change and update streams. Each is sealed: it has the checksum of its own fields and
//! that of the line before it.

use authzed::v1::RelationshipUpdate;
use serde::{Deserialize, Serialize};

use super::is_false;
use crate::digest::{
    Digest, digest_bytes, put_canonical, put_len, put_optional, put_str, put_struct,
};
use crate::object::objects;
use crate::relationship::{OperationJson, RelationshipJson, StructJson, Update};

/// All changes of one revision. A huge revision takes several lines: each has a `part`, counted
/// from 1, and only the one with `last_part` completes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
pub struct Transaction {
    /// The zedtoken of the revision.
    pub revision: String,
    /// The changes, at most one of each relationship, in no order.
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
    /// The checksum of the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The checksum of this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

impl Transaction {
    /// Whether the revision is complete with this line.
    #[must_use]
    pub fn completes_revision(&self) -> bool {
        self.part.is_none() || self.last_part == Some(true)
    }
}

/// The schema changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", expecting = "a JSON object", deny_unknown_fields)]
pub struct SchemaChange {
    /// The zedtoken of the change.
    pub revision: String,
    /// The text, read at the head: it may be newer than its place in the stream.
    pub text: String,
    /// The checksum of the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The checksum of this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

/// Everything up to a revision has been written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", expecting = "a JSON object", deny_unknown_fields)]
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
    /// The checksum of the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The checksum of this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

/// A line of an update stream. One that was made by hand has no checksums.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateLine {
    /// What is to be done.
    pub update: Update,
    /// The checksum of the line before.
    pub previous: Option<Digest>,
    /// The checksum of this line.
    pub checksum: Option<Digest>,
}

impl From<RelationshipUpdate> for UpdateLine {
    fn from(update: RelationshipUpdate) -> Self {
        Self {
            update: Update(update),
            previous: None,
            checksum: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Self", expecting = "a JSON object", deny_unknown_fields)]
struct UpdateLineJson<'a> {
    operation: OperationJson,
    relationship: RelationshipJson<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<Digest>,
}

objects!(Transaction, SchemaChange, Checkpoint, UpdateLineJson<'a>);

impl Serialize for UpdateLine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (operation, relationship) = self.update.to_json()?;
        let line = UpdateLineJson {
            operation,
            relationship,
            previous: self.previous,
            checksum: self.checksum,
        };
        Serialize::serialize(&line, serializer)
    }
}

impl<'de> Deserialize<'de> for UpdateLine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = <UpdateLineJson<'_> as Deserialize>::deserialize(deserializer)?;
        Ok(Self {
            update: Update::from_json(line.operation, line.relationship),
            previous: line.previous,
            checksum: line.checksum,
        })
    }
}

/// A line with the checksum of its fields and that of the line before.
pub(crate) trait Sealed {
    /// The kind of line, first in the canonical form.
    const KIND: &'static str;

    /// `previous` and `checksum`.
    fn seal(&self) -> (Option<Digest>, Option<Digest>);

    /// The same, to be set.
    fn seal_mut(&mut self) -> (&mut Option<Digest>, &mut Option<Digest>);

    /// Appends the canonical form of all other fields.
    fn put_fields(&self, out: &mut Vec<u8>);
}

macro_rules! sealed {
    ($type:ident, $kind:literal, |$this:ident, $out:ident| $fields:block) => {
        impl Sealed for $type {
            const KIND: &'static str = $kind;

            fn seal(&self) -> (Option<Digest>, Option<Digest>) {
                (self.previous, self.checksum)
            }

            fn seal_mut(&mut self) -> (&mut Option<Digest>, &mut Option<Digest>) {
                (&mut self.previous, &mut self.checksum)
            }

            fn put_fields(&self, $out: &mut Vec<u8>) {
                let $this = self;
                $fields
            }
        }
    };
}

sealed!(Transaction, "transaction", |this, out| {
    put_str(out, &this.revision);
    put_optional(out, this.part.map(u64::to_le_bytes).as_ref());
    out.extend([
        u8::from(this.last_part == Some(true)),
        u8::from(this.contended),
    ]);
    put_len(out, this.metadata.len());
    for StructJson(metadata) in &this.metadata {
        put_struct(out, metadata);
    }
    put_len(out, this.updates.len());
    for update in &this.updates {
        put_update(out, update);
    }
});

sealed!(SchemaChange, "schema", |this, out| {
    put_str(out, &this.revision);
    put_str(out, &this.text);
});

sealed!(Checkpoint, "checkpoint", |this, out| {
    put_str(out, &this.revision);
    put_optional(out, this.at.as_ref());
    put_optional(
        out,
        this.lag.map(|lag| lag.to_bits().to_le_bytes()).as_ref(),
    );
});

sealed!(UpdateLine, "update", |this, out| {
    put_update(out, &this.update);
});

fn put_update(out: &mut Vec<u8>, Update(update): &Update) {
    out.extend_from_slice(&update.operation.to_le_bytes());
    if let Some(relationship) = &update.relationship {
        put_canonical(relationship, out);
    }
}

/// The checksum of a line: of its kind, the checksum before it, and its fields.
pub(crate) fn checksum_of<T: Sealed>(line: &T, scratch: &mut Vec<u8>) -> Digest {
    scratch.clear();
    put_str(scratch, T::KIND);
    put_optional(
        scratch,
        line.seal().0.map(|digest| digest.0.to_le_bytes()).as_ref(),
    );
    line.put_fields(scratch);
    digest_bytes(scratch)
}
