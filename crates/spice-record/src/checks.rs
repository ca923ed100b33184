//! A stream of checks: header, questions with their answers, trailer.

use std::io::{self, BufRead, Write};

use xxhash_rust::xxh3::Xxh3;

use crate::digest::Digest;
use crate::read::{ReadError, RecordReader};
use crate::record::{Header, Record, StreamKind, Trailer};
use crate::stream_writer::StreamWriter;

pub use crate::record::check::{
    Answer, Check, Comparison, Fault, Item, Missing, Permissionship, Question,
};

/// Writes a stream of checks.
///
/// Without [`finish`](Self::finish) there is no trailer, and every reader reports the stream as cut.
pub struct CheckWriter<W> {
    lines: StreamWriter<W>,
    checks: u64,
    sum: Sum,
}

/// The digest of checks, in their order: of what was decoded, in the form in which it is written, so
/// that another spelling of the same JSON keeps it.
#[derive(Default)]
struct Sum {
    hash: Xxh3,
    line: Vec<u8>,
}

impl Sum {
    fn add(&mut self, check: &Check) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, check)?;
        self.line.push(b'\n');
        self.hash.update(&self.line);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.hash.digest128())
    }
}

impl<W: Write> CheckWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn create(out: W, header: Header) -> io::Result<Self> {
        Ok(Self {
            lines: StreamWriter::begin(out, header)?,
            checks: 0,
            sum: Sum::default(),
        })
    }

    /// Writes one check.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&mut self, check: Check) -> io::Result<()> {
        self.checks += 1;
        self.sum.add(&check)?;
        self.lines.put(&Record::Check(Box::new(check)))
    }

    /// Writes the trailer, flushes, and gives back the output.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn finish(self) -> io::Result<W> {
        let (_, out) = self.lines.finish(Trailer {
            checks: Some(self.checks),
            digest: Some(self.sum.digest()),
            ..Trailer::default()
        })?;
        Ok(out)
    }
}

/// Reads a stream of checks: the next one, until its trailer has shown that none is missing and none was
/// altered.
pub struct CheckReader<R> {
    records: RecordReader<R>,
    header: Box<Header>,
    checks: u64,
    sum: Sum,
    ended: bool,
}

impl<R: BufRead> CheckReader<R> {
    /// Continues after a header that has been read already.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] where the format is another one.
    pub fn after(records: RecordReader<R>, header: Box<Header>) -> Result<Self, ReadError> {
        header.check().map_err(|message| records.fault(message))?;
        Ok(Self {
            records,
            header,
            checks: 0,
            sum: Sum::default(),
            ended: false,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next check; `None` once the stream has ended **and** agrees with its trailer.
    ///
    /// # Errors
    ///
    /// As [`RecordReader::next_record`], and [`ReadError::Stream`] or [`ReadError::Line`] where the
    /// stream is cut, altered, or continues after its trailer.
    pub fn next_check(&mut self) -> Result<Option<Check>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        match self.records.next_record()? {
            Some(Record::Check(check)) => {
                if let Err(error) = self.sum.add(&check) {
                    return Err(self.records.fault(error.to_string()));
                }
                self.checks += 1;
                Ok(Some(*check))
            }
            Some(Record::Trailer(trailer)) => self.finish(&trailer).map(|()| None),
            Some(other) => {
                let kind = other.kind();
                Err(self
                    .records
                    .fault(format!("a stream of checks holds no {kind}")))
            }
            None => Err(self.records.cut(format!(
                "the input ends after {} checks without a trailer",
                self.checks
            ))),
        }
    }

    fn finish(&mut self, trailer: &Trailer) -> Result<(), ReadError> {
        let records = &mut self.records;
        let checked = trailer.check(StreamKind::Checks, self.header.checksum);
        checked.map_err(|message| records.fault(message))?;
        let found = self.checks;
        if trailer.checks != Some(found) {
            let count = trailer.checks.unwrap_or_default();
            return Err(records.fault(format!("the trailer promises {count} checks, {found} came")));
        }
        if trailer.digest != Some(self.sum.digest()) {
            return Err(records.fault("checks altered: their digest is not the trailer's"));
        }
        if let Some(after) = records.next_record()? {
            return Err(records.fault(format!("{} after the trailer", after.kind())));
        }
        self.ended = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
