//! The header: the first line of a stream.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use crate::FORMAT;
use crate::digest::{Digest, digest_fields};
use crate::object::objects;
use crate::time::is_rfc3339;

/// The longest text of a schema: a server takes no larger request.
pub const MAX_SCHEMA_BYTES: usize = 4 << 20;
/// The longest mapping. It is kept in each position.
pub const MAX_MAPPING_BYTES: usize = 64 << 10;

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
#[serde(
    remote = "Self",
    expecting = "a JSON object",
    rename_all = "camelCase",
    deny_unknown_fields
)]
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
    /// What was changed between the server and this stream, in the order in which it was: names, parts, ids.
    /// Two streams of one server can be compared, and continue each other, only if this is equal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mapping: Vec<String>,
    /// Of a stream of checks that two servers were asked: what the schema of the second one has otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_difference: Option<String>,
    /// Program and version that wrote the stream.
    pub producer: String,
    /// When it began to, RFC 3339.
    pub created_at: String,
    /// Of a spool's later segment: the checksum of the last line of the segment before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The [checksum](Header::compute_checksum) of all the other fields. A writer sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

impl Header {
    /// A header without revision, schema and filter.
    #[must_use]
    pub fn new(
        stream: StreamKind,
        producer: impl Into<String>,
        created_at: impl Into<String>,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            stream,
            revision: None,
            schema: None,
            filter: None,
            mapping: Vec::new(),
            schema_difference: None,
            producer: producer.into(),
            created_at: created_at.into(),
            previous: None,
            checksum: None,
        }
    }

    /// The checksum of the decoded fields: another spelling of the same JSON keeps it, a flipped bit
    /// in the schema does not.
    #[must_use]
    pub fn compute_checksum(&self) -> Digest {
        let stream = self.stream.to_string();
        let previous = self.previous.map(|digest| digest.to_string());
        let changes = self.mapping.len().to_string();
        let mut fields = vec![
            Some(self.format.as_str()),
            Some(&stream),
            self.revision.as_deref(),
            self.schema.as_deref(),
            Some(&self.producer),
            Some(&self.created_at),
            previous.as_deref(),
        ];
        if let Some(difference) = &self.schema_difference {
            fields.extend([Some("schemaDifference"), Some(difference.as_str())]);
        }
        if !self.mapping.is_empty() {
            fields.extend([Some("mapping"), Some(changes.as_str())]);
            fields.extend(self.mapping.iter().map(|change| Some(change.as_str())));
        }
        if let Some(filter) = &self.filter {
            fields.push(filter.resource_prefix.as_deref());
            fields.extend(filter.types.iter().map(|name| Some(name.as_str())));
        }
        digest_fields(fields)
    }

    /// The same with its checksum.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = Some(self.compute_checksum());
        self
    }

    /// Whether format and checksum are right.
    ///
    /// # Errors
    ///
    /// What is wrong, for the message.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            let format = &self.format;
            return Err(format!("format {format:?}: this version reads {FORMAT}"));
        }
        if !is_rfc3339(&self.created_at) {
            return Err("createdAt is no RFC 3339 time".to_owned());
        }
        if self
            .schema
            .as_ref()
            .is_some_and(|text| text.len() > MAX_SCHEMA_BYTES)
        {
            return Err("a schema of more than 4 MiB: no server takes it".to_owned());
        }
        if self.mapping.iter().map(String::len).sum::<usize>() > MAX_MAPPING_BYTES {
            return Err("a mapping of more than 64 KiB".to_owned());
        }
        match self.checksum {
            None => Err("header without a checksum: it is damaged, or was made by hand".to_owned()),
            Some(checksum) if checksum != self.compute_checksum() => Err(
                "header altered: it does not have its checksum; if it was edited on purpose, drop \
                     it and the trailer: spice-import and spice-apply take the rest with --no-trailer"
                    .to_owned(),
            ),
            Some(_) => Ok(()),
        }
    }
}

objects!(Header);
