//! A whole update stream, written: header, updates, trailer.

use std::io::{self, Write};

use authzed::v1::RelationshipUpdate;

use crate::digest::Digest;
use crate::record::{Header, Record, Trailer};
use crate::relationship::Update;

/// Writes an update stream.
///
/// Without [`finish`](Self::finish) there is no trailer, and no reader takes the stream for whole.
pub struct UpdateWriter<W> {
    lines: Lines<W>,
    header: Digest,
    updates: u64,
}

impl<W: Write> UpdateWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(out: W, header: Header) -> io::Result<Self> {
        let checksum = header.checksum();
        let mut lines = Lines::new(out);
        lines.put(&Record::Header(Box::new(header)))?;
        Ok(Self {
            lines,
            header: checksum,
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
        self.lines.put(&Record::Update(Box::new(Update(update))))
    }

    /// Writes the trailer, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        let trailer = Trailer {
            updates: Some(self.updates),
            header: Some(self.header),
            ..Trailer::default()
        };
        self.lines.put(&Record::Trailer(Box::new(trailer)))?;
        self.lines.finish()
    }
}

/// Records as lines.
pub(crate) struct Lines<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Lines<W> {
    pub(crate) fn new(out: W) -> Self {
        let line = Vec::new();
        Self { out, line }
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    pub(crate) fn put(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }
}
