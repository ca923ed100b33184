//! An update stream: header, updates, trailer.

use std::io::{self, BufRead, Write};

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};

use crate::chain::Chain;
use crate::integrity::Integrity;
use crate::read::{ReadError, RecordReader};
use crate::record::{Header, Record, StreamKind, Trailer, UpdateLine};
use crate::relationship::Update;
use crate::stream_writer::StreamWriter;

/// Writes an update stream.
///
/// Without [`finish`](Self::finish) there is no trailer, and every reader reports the stream as cut.
pub struct UpdateWriter<W> {
    lines: StreamWriter<W>,
    chain: Chain,
    updates: u64,
}

impl<W: Write> UpdateWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(out: W, header: Header) -> io::Result<Self> {
        let lines = StreamWriter::begin(out, header)?;
        Ok(Self {
            chain: Chain::after(lines.header()),
            lines,
            updates: 0,
        })
    }

    /// Writes one update.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&mut self, update: RelationshipUpdate) -> io::Result<()> {
        self.updates += 1;
        let mut line = UpdateLine::from(update);
        self.chain.seal(&mut line);
        self.lines.put(&Record::Update(Box::new(line)))
    }

    /// Writes the trailer, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(self) -> io::Result<W> {
        let (_, out) = self.lines.finish(Trailer {
            updates: Some(self.updates),
            digest: self.chain.last(),
            ..Trailer::default()
        })?;
        Ok(out)
    }
}

/// Reads an update stream and checks it against its checksums and its trailer. Without a header
/// ([`Integrity::Unchecked`]) it reads updates, and relationships, which are to be touched.
pub struct UpdateReader<R> {
    records: RecordReader<R>,
    integrity: Integrity,
    header: Option<Box<Header>>,
    chain: Chain,
    updates: u64,
    /// Read while looking for the header.
    first: Option<Record>,
    is_at_end: bool,
}

impl<R: BufRead> UpdateReader<R> {
    /// Continues after a header that has been read already.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] where it is damaged, or that of another kind of stream.
    pub fn after(
        records: RecordReader<R>,
        header: Box<Header>,
        integrity: Integrity,
    ) -> Result<Self, ReadError> {
        header.check().map_err(|message| records.fault(message))?;
        if header.stream != StreamKind::Updates {
            let stream = header.stream;
            return Err(records.fault(format!("expected updates, this is a stream of {stream}")));
        }
        Ok(Self {
            chain: header.checksum.map(Chain::after).unwrap_or_default(),
            header: Some(header),
            integrity,
            records,
            updates: 0,
            first: None,
            is_at_end: false,
        })
    }

    /// Reads lines that were made by hand, of which the first has been read already.
    #[must_use]
    pub fn by_hand(records: RecordReader<R>, first: Record) -> Self {
        Self {
            records,
            integrity: Integrity::Unchecked,
            header: None,
            chain: Chain::default(),
            updates: 0,
            first: Some(first),
            is_at_end: false,
        }
    }

    /// How many bytes have been read, all of them complete lines.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.records.offset()
    }

    /// The next update; `None` once the stream has ended **and** agrees with its trailer.
    ///
    /// # Errors
    ///
    /// As [`RecordReader::next_record`]; [`ReadError::Line`] where the stream is altered, lines are
    /// missing, or it continues after its trailer; [`ReadError::Cut`] where it has no trailer.
    pub fn next_update(&mut self) -> Result<Option<RelationshipUpdate>, ReadError> {
        if self.is_at_end {
            return Ok(None);
        }
        let record = match self.first.take() {
            Some(first) => Some(first),
            None => self.records.next_record()?,
        };
        match record {
            Some(Record::Update(line)) => {
                let checked = self.chain.check(&*line, self.integrity);
                checked.map_err(|message| self.records.fault(message))?;
                self.updates += 1;
                let Update(update) = line.update;
                Ok(Some(update))
            }
            Some(Record::Relationship(relationship)) if self.header.is_none() => {
                Ok(Some(RelationshipUpdate {
                    operation: Operation::Touch.into(),
                    relationship: Some(relationship),
                }))
            }
            Some(Record::Trailer(trailer)) if self.header.is_some() => {
                let checked = self.check_trailer(&trailer);
                checked.map_err(|message| self.records.fault(message))?;
                self.records.expect_end()?;
                self.is_at_end = true;
                Ok(None)
            }
            Some(other) => {
                let kind = other.kind();
                Err(self
                    .records
                    .fault(format!("a stream of updates holds no {kind}")))
            }
            None if self.header.is_none() => {
                self.is_at_end = true;
                Ok(None)
            }
            None => {
                let came = self.updates;
                Err(self.records.cut(format!(
                    "the input ends after {came} updates without a trailer"
                )))
            }
        }
    }

    fn check_trailer(&self, trailer: &Trailer) -> Result<(), String> {
        let header = self.header.as_ref().and_then(|header| header.checksum);
        trailer.check(StreamKind::Updates, header)?;
        let (promised, came) = (trailer.updates.unwrap_or_default(), self.updates);
        if came > promised || (self.integrity == Integrity::Verified && came != promised) {
            return Err(format!(
                "the trailer promises {promised} updates, {came} came"
            ));
        }
        if self.integrity == Integrity::Verified && trailer.digest != self.chain.last() {
            return Err(
                "lines are missing before the trailer: its digest is not the last line's checksum"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
