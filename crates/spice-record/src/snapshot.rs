//! A snapshot stream: header, relationships, trailer.

use std::io::{self, BufRead, Write};

use authzed::v1::Relationship;

use crate::digest::{Digest, DigestSum, ExpiryPrecision, Hashes};
use crate::integrity::Integrity;
use crate::read::{ReadError, RecordReader};
use crate::record::{Header, Record, StreamKind, Trailer};
use crate::relationship::relationship_json;
use crate::stream_writer::StreamWriter;

/// Writes a snapshot stream.
///
/// Without [`finish`](Self::finish) there is no trailer, and every reader reports the stream as cut.
pub struct SnapshotWriter<W> {
    lines: StreamWriter<W>,
    sum: DigestSum,
    precision: ExpiryPrecision,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(out: W, header: Header, precision: ExpiryPrecision) -> io::Result<Self> {
        Ok(Self {
            lines: StreamWriter::begin(out, header)?,
            sum: DigestSum::default(),
            precision,
        })
    }

    /// Continues a stream of which `out` holds the header, with this checksum, and the relationships that
    /// `sum` has added up.
    pub fn resume(out: W, header: Digest, sum: DigestSum, precision: ExpiryPrecision) -> Self {
        Self {
            lines: StreamWriter::resume(out, header),
            sum,
            precision,
        }
    }

    /// The output. Whatever is written to it goes between two lines.
    pub fn output(&mut self) -> &mut W {
        self.lines.output()
    }

    /// The checksum of the header.
    pub fn header(&self) -> Digest {
        self.lines.header()
    }

    /// Writes one relationship.
    ///
    /// # Errors
    ///
    /// Those of `out`, and [`io::ErrorKind::InvalidData`] for what JSON cannot express (a caveat context
    /// with a NaN in it).
    pub fn write(&mut self, relationship: &Relationship) -> io::Result<()> {
        self.lines
            .put_as(|line| write_relationship(line, relationship))?;
        self.sum.add(relationship);
        Ok(())
    }

    /// What has been written so far.
    pub fn sum(&self) -> &DigestSum {
        &self.sum
    }

    /// As [`finish`](Self::finish), with another precision than at the beginning: that of a stream that is
    /// read meanwhile is in its trailer.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish_at(mut self, precision: ExpiryPrecision) -> io::Result<(Trailer, W)> {
        self.precision = precision;
        self.finish()
    }

    /// Writes the trailer, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(self) -> io::Result<(Trailer, W)> {
        self.lines
            .finish(Trailer::of_snapshot(&self.sum, self.precision))
    }
}

/// Writes a relationship as a line of its own, the form that a stream and a rejects file share.
///
/// # Errors
///
/// Those of `out`, and [`io::ErrorKind::InvalidData`] for what JSON cannot express.
pub fn write_relationship(mut out: impl Write, relationship: &Relationship) -> io::Result<()> {
    out.write_all(b"{\"relationship\":")?;
    let mut serializer = serde_json::Serializer::new(&mut out);
    relationship_json::serialize(relationship, &mut serializer).map_err(|error| {
        let kind = error.io_error_kind().unwrap_or(io::ErrorKind::InvalidData);
        io::Error::new(kind, error.to_string())
    })?;
    out.write_all(b"}\n")
}

/// Reads a snapshot stream and checks it against its trailer.
pub struct SnapshotReader<R> {
    records: RecordReader<R>,
    integrity: Integrity,
    header: Option<Box<Header>>,
    /// Read while looking for the header of a stream that has none.
    first: Option<Relationship>,
    sum: DigestSum,
    /// Of the relationship read last.
    hashes: Hashes,
    /// Set at the end: the trailer, where there is one.
    trailer: Option<Option<Box<Trailer>>>,
}

impl<R: BufRead> SnapshotReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// As [`RecordReader::next_record`], and [`ReadError::Stream`] or [`ReadError::Line`] for an empty
    /// input, a missing header or another kind of stream.
    pub fn open(mut records: RecordReader<R>, integrity: Integrity) -> Result<Self, ReadError> {
        let first = match records.next_record()? {
            Some(Record::Header(found)) => return Self::after(records, found, integrity),
            Some(Record::Relationship(found)) if integrity == Integrity::Unchecked => found,
            Some(Record::Relationship(_)) => {
                return Err(records.fault(
                    "no header: nothing proves that this stream is complete; if it was made by hand, \
                     spice-import --no-trailer takes it, and spice-convert --no-trailer seals it",
                ));
            }
            Some(other) => return Err(records.unexpected("a header", &other)),
            None => return Err(records.stream_fault("empty input: the producer wrote nothing")),
        };
        Ok(Self::new(records, integrity, None, Some(first)))
    }

    /// Continues after a header that has been read already.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] where it is that of another kind of stream.
    pub fn after(
        records: RecordReader<R>,
        header: Box<Header>,
        integrity: Integrity,
    ) -> Result<Self, ReadError> {
        check_header(&records, &header)?;
        Ok(Self::new(records, integrity, Some(header), None))
    }

    fn new(
        records: RecordReader<R>,
        integrity: Integrity,
        header: Option<Box<Header>>,
        first: Option<Relationship>,
    ) -> Self {
        Self {
            records,
            integrity,
            header,
            first,
            sum: DigestSum::default(),
            hashes: Hashes::default(),
            trailer: None,
        }
    }

    /// The header; `None` for a stream without one.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_deref()
    }

    /// The number of the line read last.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.records.line()
    }

    /// What has been read so far.
    #[must_use]
    pub fn sum(&self) -> &DigestSum {
        &self.sum
    }

    /// The digests of the relationship read last.
    #[must_use]
    pub fn hashes(&self) -> Hashes {
        self.hashes
    }

    /// The precision of the trailer's digest; `None` before the end, and without a trailer.
    #[must_use]
    pub fn precision(&self) -> Option<ExpiryPrecision> {
        self.trailer.as_ref()?.as_ref()?.expiry_precision
    }

    /// Whether count and digest were proved by a trailer.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.integrity == Integrity::Verified && matches!(self.trailer, Some(Some(_)))
    }

    /// The next relationship; `None` once the stream has ended **and** agrees with its trailer.
    ///
    /// # Errors
    ///
    /// As [`RecordReader::next_record`], and [`ReadError::Stream`] or [`ReadError::Line`] where the
    /// stream is cut, altered, or continues after its trailer.
    pub fn next_relationship(&mut self) -> Result<Option<Relationship>, ReadError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let record = match self.first.take() {
            Some(first) => Some(Record::Relationship(first)),
            None => self.records.next_record()?,
        };
        match record {
            Some(Record::Relationship(relationship)) => {
                self.hashes = self.sum.add(&relationship);
                Ok(Some(relationship))
            }
            Some(Record::Trailer(trailer)) => {
                self.check_trailer(&trailer)?;
                self.records.expect_end()?;
                self.trailer = Some(Some(trailer));
                Ok(None)
            }
            Some(other) => {
                let kind = other.kind();
                Err(self.records.fault(format!("a snapshot holds no {kind}")))
            }
            None if self.integrity == Integrity::Unchecked => {
                self.trailer = Some(None);
                Ok(None)
            }
            None => Err(self.records.cut(format!(
                "the input ends after {} relationships without a trailer",
                self.sum.relationships()
            ))),
        }
    }

    fn check_trailer(&mut self, trailer: &Trailer) -> Result<(), ReadError> {
        let header = self.header.as_ref().and_then(|header| header.checksum);
        let checked = trailer.check(StreamKind::Snapshot, header);
        checked.map_err(|message| self.records.fault(message))?;
        let (Some(count), Some(digest), Some(precision)) = (
            trailer.relationships,
            trailer.digest,
            trailer.expiry_precision,
        ) else {
            return Err(self.records.fault("not the trailer of a snapshot"));
        };
        let found = self.sum.relationships();
        if found > count && self.integrity == Integrity::Partial {
            return Err(self.records.fault(format!(
                "the trailer promises {count} relationships, {found} came: more cannot be filtered out"
            )));
        }
        if self.integrity != Integrity::Verified {
            return Ok(());
        }
        if found != count {
            return Err(self.records.fault(format!(
                "the trailer promises {count} relationships, {found} came; \
                 if they were filtered on purpose, spice-import --partial takes them"
            )));
        }
        let exact = trailer.exact_digest.unwrap_or(digest);
        if digest != self.sum.digest(precision) || exact != self.sum.exact() {
            return Err(self.records.fault(format!(
                "relationships altered: the {found} read do not have the trailer's digest"
            )));
        }
        Ok(())
    }
}

fn check_header<R: BufRead>(records: &RecordReader<R>, header: &Header) -> Result<(), ReadError> {
    header.check().map_err(|message| records.fault(message))?;
    if header.stream != StreamKind::Snapshot {
        let stream = header.stream;
        return Err(records.fault(format!(
            "expected a snapshot stream, this one holds {stream}"
        )));
    }
    Ok(())
}
