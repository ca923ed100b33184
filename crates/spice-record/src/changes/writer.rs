//! Writes the lines of a change stream or a spool with their checksums.

use std::io::{self, Write};

use super::Change;
use crate::chain::Chain;
use crate::digest::Digest;
use crate::record::{Header, Record, StreamEnd, Trailer};
use crate::stream_writer::StreamWriter;

/// Writes a change stream.
///
/// Without [`finish`](Self::finish) there is no trailer, and every reader reports the stream as cut.
pub struct ChangeWriter<W> {
    lines: StreamWriter<W>,
    sealer: ChangeSealer,
}

impl<W: Write> ChangeWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(out: W, header: Header) -> io::Result<Self> {
        let (sealer, header) = ChangeSealer::begin(header);
        let lines = StreamWriter::begin(out, header)?;
        Ok(Self { lines, sealer })
    }

    /// Writes one line.
    ///
    /// # Errors
    ///
    /// Those of `out`, and [`io::ErrorKind::InvalidData`] for a line that is larger than readers take.
    pub fn write(&mut self, change: Change) -> io::Result<()> {
        self.lines.put(&self.sealer.seal(change))
    }

    /// Hands what was written to the reader.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }

    /// Writes the trailer, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(self, end_reason: StreamEnd) -> io::Result<W> {
        let (_, out) = self.lines.finish(self.sealer.trailer_fields(end_reason))?;
        Ok(out)
    }
}

/// Gives the lines of a change stream their checksums.
#[derive(Clone, Debug)]
pub struct ChangeSealer {
    chain: Chain,
    header: Option<Digest>,
    /// The last complete revision.
    through: Option<String>,
}

impl ChangeSealer {
    /// Begins a stream; gives back its header, sealed.
    #[must_use]
    pub fn begin(header: Header) -> (Self, Header) {
        let header = header.sealed();
        let checksum = header.compute_checksum();
        let sealer = Self {
            chain: Chain::after(checksum),
            header: Some(checksum),
            through: header.revision.clone(),
        };
        (sealer, header)
    }

    /// Continues a spool after a line with this checksum.
    #[must_use]
    pub fn resume(last: Digest) -> Self {
        Self {
            chain: Chain::after(last),
            header: None,
            through: None,
        }
    }

    /// Begins the next segment of a spool; gives back its header, sealed.
    #[must_use]
    pub fn next_segment(&mut self, header: Header) -> Header {
        let previous = self.chain.last();
        let (sealer, header) = Self::begin(Header { previous, ..header });
        *self = sealer;
        header
    }

    /// Seals a line.
    #[must_use]
    pub fn seal(&mut self, mut change: Change) -> Record {
        match &mut change {
            Change::Transaction(change) => self.chain.seal(&mut **change),
            Change::Schema(change) => self.chain.seal(&mut **change),
            Change::Checkpoint(checkpoint) => self.chain.seal(&mut **checkpoint),
        }
        if let Some(revision) = change.completed_revision() {
            self.through = Some(revision.to_owned());
        }
        change.into_record()
    }

    /// The last line of a stream.
    #[must_use]
    pub fn trailer(&self, end_reason: StreamEnd) -> Record {
        let trailer = Trailer {
            header: self.header,
            ..self.trailer_fields(end_reason)
        };
        Record::Trailer(Box::new(trailer.sealed()))
    }

    fn trailer_fields(&self, end_reason: StreamEnd) -> Trailer {
        Trailer {
            revision: self.through.clone(),
            end_reason: Some(end_reason),
            digest: self.chain.last(),
            ..Trailer::default()
        }
    }
}
