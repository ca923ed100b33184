//! zed's backups: an Avro container file whose first object is the schema; all others are relationships.
//!
//! Read in zed's source (August 2026) and tried with v1.2.0. A union of two records: `relationship_v1` (before
//! December 2025 without `expiration`) and `schema_v1`. The zedtoken is in the file's metadata. zed compares
//! neither counts nor digests, and the format has no end marker: a file that was cut between two blocks is
//! one of fewer relationships. What is cut or altered elsewhere is refused here.
//!
//! zed puts 100 objects in a block, and fewer only where it ends: see [`BackupReader::ends_with_a_full_block`].
//!
//! A backup that [`BackupWriter`] wrote can be proven. Its metadata hold the header of a snapshot stream, and
//! its last block, which has no objects, the trailer. zed ignores both.

mod layout;
mod record;
mod writer;

use std::io::BufRead;

use authzed::v1::Relationship;
use spice_record::record::StreamKind;
use spice_record::{DigestSum, Header, ReadError, Record, Trailer};

use self::layout::{Kind, Layout};
use self::record::{decode_relationship, decode_schema};
pub use self::writer::BackupWriter;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::{
    layout::WRITTEN as WRITTEN_LAYOUT,
    record::{encode_relationship, encode_schema},
};
use crate::avro::{Block, Codec, ContainerReader, Fields};

/// The key of zed for the zedtoken.
pub const TOKEN_KEY: &str = "com.authzed.spicedb.zedtoken.v1";
/// The objects of each block that zed writes, except the last.
pub const ZED_BLOCK_OBJECTS: u64 = 100;
/// Our own key for the header of the snapshot stream, without its schema: the first object holds that.
const HEADER_KEY: &str = "spice-pipes.header.v1";

/// Reads a backup.
pub struct BackupReader<R> {
    container: ContainerReader<R>,
    layout: Layout,
    token: Option<String>,
    schema: String,
    /// Of a backup that [`BackupWriter`] wrote.
    header: Option<Box<Header>>,
    unknown: Vec<String>,
    /// Objects of the block that were not read yet, and the bytes before them.
    left: u64,
    at: usize,
    /// Objects of the block read last.
    objects: u64,
    /// The number of the first block that is not full and not the last.
    ended_early: Option<u64>,
    sum: DigestSum,
    has_ended: bool,
}

impl<R: BufRead> BackupReader<R> {
    /// Reads metadata and schema.
    ///
    /// # Errors
    ///
    /// [`ReadError::Cut`] for an input that ends too early, [`ReadError::Stream`] for one that is no Avro file, has
    /// another Avro schema, or is damaged.
    pub fn open(input: R, name: impl Into<String>) -> Result<Self, ReadError> {
        let container = ContainerReader::open(input, name.into())?;
        let layout = Layout::parse(container.schema());
        let layout = layout.map_err(|message| container.fault(message))?;
        let (mut token, mut header, mut unknown) = (None, None, Vec::new());
        for (key, value) in container.metadata() {
            match key {
                TOKEN_KEY => {
                    let text = String::from_utf8(value.to_vec()).ok();
                    let text = text.filter(|text| !text.is_empty());
                    token = Some(text.ok_or_else(|| container.fault("the zedtoken is no text"))?);
                }
                HEADER_KEY => {
                    let found: Header = serde_json::from_slice(value)
                        .map_err(|error| container.fault(format!("{HEADER_KEY}: {error}")))?;
                    header = Some(Box::new(found));
                }
                other => unknown.push(other.to_owned()),
            }
        }
        let mut backup = Self {
            container,
            layout,
            token,
            schema: String::new(),
            header,
            unknown,
            left: 0,
            at: 0,
            objects: ZED_BLOCK_OBJECTS,
            ended_early: None,
            sum: DigestSum::default(),
            has_ended: false,
        };
        backup.begin()?;
        Ok(backup)
    }

    /// Reads the first object, and compares the header with it.
    fn begin(&mut self) -> Result<(), ReadError> {
        if !self.next_object()? {
            return Err(self.fault("no schema in it"));
        }
        let mut fields = Fields(&self.container.block()[self.at..]);
        let schema = match self.layout.kind(&mut fields) {
            Ok(Kind::Schema) => decode_schema(&mut fields),
            Ok(Kind::Relationship) => Err("a relationship before the schema".to_owned()),
            Err(message) => Err(message),
        };
        let rest = fields.0.len();
        self.schema = schema.map_err(|message| self.fault(message))?;
        self.advance(rest)?;
        if let Some(header) = &mut self.header {
            header.schema = Some(self.schema.clone());
            let checked = match header.check() {
                Ok(()) if header.stream != StreamKind::Snapshot => {
                    Err("the header is not that of a snapshot".to_owned())
                }
                Ok(()) if header.revision != self.token => {
                    Err("its zedtoken is not that of its header".to_owned())
                }
                checked => checked,
            };
            checked.map_err(|message| self.container.fault(message))?;
        }
        Ok(())
    }

    /// The schema's text.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The zedtoken of the snapshot.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The header of a backup that [`BackupWriter`] wrote, which proves that it is complete.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_deref()
    }

    /// The codec of the blocks.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.container.codec()
    }

    /// Whether the file can hold expiries: an old zed left them out.
    #[must_use]
    pub fn has_expirations(&self) -> bool {
        self.layout.has_expiration
    }

    /// The keys of the metadata that are not known. They may mean something that must not be skipped.
    #[must_use]
    pub fn unknown_metadata(&self) -> &[String] {
        &self.unknown
    }

    /// Whether the block read last is as full as zed makes it. Of a file that was cut between two blocks the
    /// last one is; of a complete backup of zed, in one of 100.
    #[must_use]
    pub fn ends_with_a_full_block(&self) -> bool {
        self.objects == ZED_BLOCK_OBJECTS
    }

    /// The number of the first block that holds fewer objects and is not the last one: zed was interrupted
    /// behind it, and resumed. Other tools write blocks of other sizes.
    #[must_use]
    pub fn ended_early(&self) -> Option<u64> {
        self.ended_early
    }

    /// What has been read so far.
    #[must_use]
    pub fn sum(&self) -> &DigestSum {
        &self.sum
    }

    /// An error about what was read last.
    #[must_use]
    pub fn fault(&self, message: impl std::fmt::Display) -> ReadError {
        self.container.fault(message)
    }

    /// The next relationship; `None` once the file has ended and, if [`BackupWriter`] wrote it, agrees with its
    /// trailer.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn next_relationship(&mut self) -> Result<Option<Relationship>, ReadError> {
        if self.has_ended || !self.next_object()? {
            return Ok(None);
        }
        let mut fields = Fields(&self.container.block()[self.at..]);
        let decoded = match self.layout.kind(&mut fields) {
            Ok(Kind::Relationship) => decode_relationship(&mut fields, self.layout.has_expiration),
            Ok(Kind::Schema) => Err("a second schema".to_owned()),
            Err(message) => Err(message),
        };
        let rest = fields.0.len();
        let number = self.sum.relationships() + 1;
        let decoded = decoded.map_err(|message| format!("relationship {number}: {message}"));
        let relationship = decoded.map_err(|message| self.fault(message))?;
        self.advance(rest)?;
        self.sum.add(&relationship);
        Ok(Some(relationship))
    }

    /// Goes to the next object; `false` at the end.
    fn next_object(&mut self) -> Result<bool, ReadError> {
        if self.left > 0 {
            return Ok(true);
        }
        match self.container.next_block()? {
            Some(Block { objects: 0 }) => self.end().map(|()| false),
            Some(Block { objects }) => {
                if self.objects < ZED_BLOCK_OBJECTS && self.ended_early.is_none() {
                    self.ended_early = Some(self.container.blocks() - 1);
                }
                (self.left, self.at, self.objects) = (objects, 0, objects);
                Ok(true)
            }
            None if self.header.is_some() => Err(self.container.cut(format!(
                "it ends after {} relationships, without the trailer that spice-convert writes",
                self.sum.relationships()
            ))),
            None => {
                self.has_ended = true;
                Ok(false)
            }
        }
    }

    /// Counts an object of which `rest` bytes of the block were left.
    fn advance(&mut self, rest: usize) -> Result<(), ReadError> {
        self.at = self.container.block().len() - rest;
        self.left -= 1;
        match self.left {
            0 if rest > 0 => Err(self.fault(format!("{rest} bytes behind its last object"))),
            _ => Ok(()),
        }
    }

    /// Compares the trailer, which is in the last block, with what was read.
    fn end(&mut self) -> Result<(), ReadError> {
        let Some(header) = &self.header else {
            return Err(self.fault("a block of no objects"));
        };
        let trailer = match serde_json::from_slice(self.container.block()) {
            Ok(Record::Trailer(trailer)) => trailer,
            Ok(other) => return Err(self.fault(format!("{} instead of a trailer", other.kind()))),
            Err(error) => return Err(self.fault(format!("no trailer: {error}"))),
        };
        let checked = trailer.check(StreamKind::Snapshot, header.checksum);
        checked.map_err(|message| self.fault(message))?;
        let precision = trailer.expiry_precision.unwrap_or_default();
        let found = Trailer::of_snapshot(&self.sum, precision);
        if found.relationships != trailer.relationships {
            return Err(self.fault(format!(
                "the trailer promises {} relationships, {} came",
                trailer.relationships.unwrap_or_default(),
                self.sum.relationships()
            )));
        }
        if (found.digest, found.exact_digest) != (trailer.digest, trailer.exact_digest) {
            return Err(self.fault("relationships altered: they do not have the trailer's digest"));
        }
        if self.container.next_block()?.is_some() {
            return Err(self.fault("behind the trailer"));
        }
        self.has_ended = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
