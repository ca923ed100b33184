//! Writes what every stream consists of: a header, records as lines, a trailer.

use std::io::{self, Write};

use crate::digest::Digest;
use crate::read::check_line;
use crate::record::{Header, Record, Trailer};

/// Writes a stream. Without [`finish`](Self::finish) it has no trailer.
pub(crate) struct StreamWriter<W> {
    out: W,
    line: Vec<u8>,
    header: Digest,
}

impl<W: Write> StreamWriter<W> {
    /// Writes the header.
    pub(crate) fn begin(out: W, header: Header) -> io::Result<Self> {
        let header = header.sealed();
        let mut lines = Self {
            out,
            line: Vec::new(),
            header: header.compute_checksum(),
        };
        lines.put(&Record::Header(Box::new(header)))?;
        Ok(lines)
    }

    /// Continues after a header that was written, with its checksum, and complete lines.
    pub(crate) fn resume(out: W, header: Digest) -> Self {
        Self {
            out,
            line: Vec::new(),
            header,
        }
    }

    pub(crate) fn output(&mut self) -> &mut W {
        &mut self.out
    }

    /// The checksum of the header.
    pub(crate) fn header(&self) -> Digest {
        self.header
    }

    pub(crate) fn put(&mut self, record: &Record) -> io::Result<()> {
        self.put_as(|line| {
            serde_json::to_writer(&mut *line, record)?;
            line.push(b'\n');
            Ok(())
        })
    }

    /// Writes a line that `write` makes, with its end: nothing of it where that fails.
    pub(crate) fn put_as(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.line.clear();
        write(&mut self.line)?;
        check_line(&self.line).map_err(|message| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{message}: readers refuse it"),
            )
        })?;
        self.out.write_all(&self.line)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes the trailer with the checksum of the header, flushes, and gives both back.
    pub(crate) fn finish(mut self, trailer: Trailer) -> io::Result<(Trailer, W)> {
        let trailer = Trailer {
            header: Some(self.header),
            ..trailer
        }
        .sealed();
        self.put(&Record::Trailer(Box::new(trailer.clone())))?;
        self.out.flush()?;
        Ok((trailer, self.out))
    }
}
