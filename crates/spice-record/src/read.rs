//! Lines to records.
//!
//! ndjson-stream parses; this wraps it so that three traits of it stay inside. It drops a last line
//! that has no newline, so lines are split here and a torn one is reported. It buffers a line of any
//! length, so the limit is kept here. It counts no lines, so they are counted here.

use std::io::{self, BufRead};

use ndjson_stream::config::NdjsonConfig;
use ndjson_stream::engine::NdjsonEngine;

use crate::FORMAT;
use crate::record::{Header, Record};

/// The longest line that is read, in bytes: far above a revision part, far below the memory of a
/// small machine.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// Why a stream could not be read. Except for [`ReadError::Io`] the bytes are at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system said no.
    #[error("{name}: {source}")]
    Io {
        /// File, or `<stdin>`.
        name: String,
        /// Its error.
        source: io::Error,
    },
    /// A line that is not what it should be.
    #[error("{name}:{line}:{column}: {message}")]
    Line {
        /// File, or `<stdin>`.
        name: String,
        /// Counted from 1.
        line: u64,
        /// Bytes, counted from 1.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// The last line has no newline: whatever wrote it died, or a file was cut.
    #[error("{name}:{line}: the last line is torn: {bytes} bytes without a newline at their end")]
    Torn {
        /// File, or `<stdin>`.
        name: String,
        /// Counted from 1.
        line: u64,
        /// What is there of it.
        bytes: usize,
    },
    /// The stream as a whole is not what it should be.
    #[error("{name}: {message}")]
    Stream {
        /// File, or `<stdin>`.
        name: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads records line by line; blank lines are skipped, but counted.
pub struct RecordReader<R> {
    input: R,
    name: String,
    line: u64,
    offset: u64,
    carry: Vec<u8>,
    engine: NdjsonEngine<Record>,
}

impl<R: BufRead> RecordReader<R> {
    /// Reads from `input`, called `name` in errors.
    pub fn new(input: R, name: impl Into<String>) -> Self {
        let engine = NdjsonEngine::with_config(NdjsonConfig::default());
        Self {
            input,
            name: name.into(),
            line: 0,
            offset: 0,
            carry: Vec::new(),
            engine,
        }
    }

    /// What the input is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the line read last, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// How many bytes have been read, all of them whole lines.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The input; what it has buffered has not been read.
    #[must_use]
    pub fn input(&self) -> &R {
        &self.input
    }

    /// An error about the line read last.
    #[must_use]
    pub fn fault(&self, message: impl Into<String>) -> ReadError {
        ReadError::Line {
            name: self.name.clone(),
            line: self.line,
            column: 1,
            message: message.into(),
        }
    }

    /// An error about the stream as a whole.
    #[must_use]
    pub fn stream_fault(&self, message: impl Into<String>) -> ReadError {
        ReadError::Stream {
            name: self.name.clone(),
            message: message.into(),
        }
    }

    /// Whether the header that was just read is of a format that this version reads.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] where it is not.
    pub fn check_format(&self, header: &Header) -> Result<(), ReadError> {
        if header.format == FORMAT {
            return Ok(());
        }
        let format = &header.format;
        Err(self.fault(format!("format {format:?}: this version reads {FORMAT}")))
    }

    /// The next record; `None` at the end of the input.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] for a line that is not a record or is too long, [`ReadError::Torn`] for a
    /// last line without a newline, [`ReadError::Stream`] for damaged compressed input.
    pub fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            self.carry.clear();
            if !self.feed_line()? {
                return Ok(None);
            }
            match self.engine.pop() {
                Some(Ok(record)) => return Ok(Some(record)),
                Some(Err(error)) => return Err(self.malformed(&error)),
                None => {}
            }
        }
    }

    /// Reads the rest of the input without looking at it.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(|_| ())
    }

    /// Hands one line to the engine, unless it is blank; `false` at the end of the input.
    fn feed_line(&mut self) -> Result<bool, ReadError> {
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            if available.is_empty() {
                if self.carry.is_empty() {
                    return Ok(false);
                }
                let (name, bytes) = (self.name.clone(), self.carry.len());
                return Err(ReadError::Torn {
                    name,
                    line: self.line + 1,
                    bytes,
                });
            }
            let end = memchr::memchr(b'\n', available);
            let taken = end.map_or(available.len(), |end| end + 1);
            if self.carry.len() + taken > MAX_LINE_BYTES {
                self.line += 1;
                return Err(self.fault(format!(
                    "line longer than {} MiB: not a line of this format",
                    MAX_LINE_BYTES >> 20
                )));
            }
            if end.is_none() {
                self.carry.extend_from_slice(available);
                self.input.consume(taken);
                continue;
            }
            self.line += 1;
            if self.carry.is_empty() {
                feed(&mut self.engine, &available[..taken]);
            } else {
                self.carry.extend_from_slice(&available[..taken]);
                feed(&mut self.engine, &self.carry);
            }
            self.input.consume(taken);
            self.offset += (self.carry.len().max(taken)) as u64;
            return Ok(true);
        }
    }

    fn failed(&self, source: io::Error) -> ReadError {
        // A decompressor reports damage through these two; a file or a pipe never does.
        if matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
        ) {
            let after = self.line;
            return self.stream_fault(format!(
                "compressed input damaged after line {after}: {source}"
            ));
        }
        ReadError::Io {
            name: self.name.clone(),
            source,
        }
    }

    fn malformed(&self, error: &serde_json::Error) -> ReadError {
        // serde_json ends its messages with a position inside the text it was given: one line.
        let text = error.to_string();
        let message = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(message, _)| message);
        ReadError::Line {
            name: self.name.clone(),
            line: self.line,
            column: error.column().max(1),
            message: message.to_owned(),
        }
    }
}

fn feed(engine: &mut NdjsonEngine<Record>, line: &[u8]) {
    if !line.trim_ascii().is_empty() {
        engine.input(line);
    }
}
