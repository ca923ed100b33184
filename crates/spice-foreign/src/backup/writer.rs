//! Writes a backup that zed restores, and that proves to be complete.

use std::borrow::Cow;
use std::io::{self, Write};

use authzed::v1::Relationship;
use spice_record::{DigestSum, ExpiryPrecision, Header, Record, Trailer};

use super::layout::WRITTEN;
use super::record::{cut_expiry, encode_relationship, encode_schema};
use super::{HEADER_KEY, TOKEN_KEY};
use crate::avro::{Codec, ContainerWriter};

/// Writes a backup.
///
/// Without [`finish`](Self::finish) there is no trailer, and [`BackupReader`](super::BackupReader) reports the
/// backup as cut.
pub struct BackupWriter<W> {
    container: ContainerWriter<W>,
    header: Header,
    precision: ExpiryPrecision,
    sum: DigestSum,
    object: Vec<u8>,
    truncated: u64,
}

impl<W: Write> BackupWriter<W> {
    /// Writes metadata and schema.
    ///
    /// # Errors
    ///
    /// Those of `out`, and [`io::ErrorKind::InvalidData`] without a schema: a backup begins with it.
    pub fn create(
        out: W,
        header: Header,
        precision: ExpiryPrecision,
        codec: Codec,
    ) -> io::Result<Self> {
        let header = header.sealed();
        let schema = header.schema.as_deref().filter(|schema| !schema.is_empty());
        let schema =
            schema.ok_or_else(|| invalid("no schema, with which a backup of zed begins"))?;
        let mut object = Vec::new();
        encode_schema(schema, &mut object);
        let bare = Header {
            schema: None,
            ..header.clone()
        };
        let bare = serde_json::to_string(&bare)?;
        let mut metadata = vec![(HEADER_KEY, bare.as_str())];
        metadata.extend(header.revision.as_deref().map(|token| (TOKEN_KEY, token)));
        let mut container = ContainerWriter::create(out, codec, WRITTEN, &metadata)?;
        container.put(&object)?;
        Ok(Self {
            container,
            header,
            precision,
            sum: DigestSum::default(),
            object,
            truncated: 0,
        })
    }

    /// Writes one relationship.
    ///
    /// # Errors
    ///
    /// Those of `out`, and [`io::ErrorKind::InvalidData`] for what the format cannot hold.
    pub fn write(&mut self, relationship: &Relationship) -> io::Result<()> {
        let relationship = match cut_expiry(relationship) {
            Some(cut) => {
                self.truncated += 1;
                Cow::Owned(cut)
            }
            None => Cow::Borrowed(relationship),
        };
        self.object.clear();
        encode_relationship(&relationship, &mut self.object).map_err(invalid)?;
        self.container.put(&self.object)?;
        self.sum.add(&relationship);
        Ok(())
    }

    /// How many expiries were cut to milliseconds.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Writes the trailer, flushes, and gives back the output. The trailer covers what the backup holds.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(self) -> io::Result<(Trailer, W)> {
        let trailer = Trailer {
            header: self.header.checksum,
            ..Trailer::of_snapshot(&self.sum, self.precision)
        }
        .sealed();
        let line = serde_json::to_vec(&Record::Trailer(Box::new(trailer.clone())))?;
        Ok((trailer, self.container.finish(&line)?))
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}
