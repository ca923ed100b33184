//! Reads the lines of a stream as records.
//!
//! ndjson-stream parses; this wraps it because of three of its properties. It drops a last line
//! that has no newline, so lines are split here and a torn one is reported. It buffers a line of any
//! length, so the limit is kept here. It counts no lines, so they are counted here.

use std::io::{self, BufRead};

use authzed::MAX_DEPTH;
use ndjson_stream::config::NdjsonConfig;
use ndjson_stream::engine::NdjsonEngine;

use crate::foreign;
use crate::record::Record;

/// The longest line, in bytes. Writers cut a revision into parts far below it; the text of a schema is
/// at most 4 MiB, for a server takes no larger request.
pub const MAX_LINE_BYTES: usize = 8 << 20;
/// The longest line of one relationship, update or check. No server takes a request above 4 MiB.
pub const MAX_RELATIONSHIP_BYTES: usize = 4 << 20;
/// The most JSON values on a line. Decoded, an object takes about 1 KiB however small it is, so the
/// length alone does not bound memory: 6 kB of compressed input took 3 GiB.
pub const MAX_LINE_VALUES: usize = 50_000;
/// The most of them in one relationship, update or check. SpiceDB takes 25,000 bytes of caveat context
/// with a write (`--max-relationship-context-size`), which is fewer than 7,000 values.
pub const MAX_RELATIONSHIP_VALUES: usize = 25_000;
/// The room that a line may leave behind: what is made of a long one takes several times as much.
const KEPT_BYTES: usize = 1 << 20;
/// The most blank lines in a row, in bytes.
const MAX_BLANK_BYTES: usize = 1 << 20;

/// Whether a line has a size that readers take.
///
/// # Errors
///
/// What is too large, for the message.
pub fn check_line(line: &[u8]) -> Result<(), String> {
    let longest = longest(line);
    if line.len() > longest {
        return Err(format!("line longer than {} MiB", longest >> 20));
    }
    let most = match longest {
        MAX_RELATIONSHIP_BYTES => MAX_RELATIONSHIP_VALUES,
        _ => MAX_LINE_VALUES,
    };
    // Every value takes two bytes at least.
    if line.len() > 2 * most && values(line) > most {
        return Err(format!("more than {most} JSON values on a line"));
    }
    Ok(())
}

/// How long a line may become that begins so.
fn longest(line: &[u8]) -> usize {
    const SHORT: [&[u8]; 3] = [b"\"relationship\"", b"\"update\"", b"\"check\""];
    let start = line.trim_ascii_start();
    let start = start.strip_prefix(b"{").unwrap_or(start).trim_ascii_start();
    if SHORT.iter().any(|kind| start.starts_with(kind)) {
        MAX_RELATIONSHIP_BYTES
    } else {
        MAX_LINE_BYTES
    }
}

/// About how many values a text holds: what opens an object or a list, or separates two values.
fn values(line: &[u8]) -> usize {
    let (mut count, mut in_string, mut is_escaped) = (0, false, false);
    for byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Why a stream could not be read. Except for [`ReadError::Io`] the bytes are at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system reported an error.
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
    /// The stream ends before its trailer: whatever wrote it died.
    #[error("{name}: cut: {message}")]
    Cut {
        /// File, or `<stdin>`.
        name: String,
        /// What came.
        message: String,
    },
    /// The stream, not one line of it, is not what it should be.
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
    blank: usize,
    /// Of the line read last, in bytes.
    length: usize,
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
            blank: 0,
            length: 0,
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

    /// How many bytes have been read, all of them complete lines.
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

    /// An error about the line read last: it is not what has to be there.
    #[must_use]
    pub fn unexpected(&self, expected: &str, found: &Record) -> ReadError {
        let kind = found.kind();
        let article = if kind.starts_with(['a', 'i', 'u']) {
            "an"
        } else {
            "a"
        };
        self.fault(format!("expected {expected}, found {article} {kind}"))
    }

    /// An error about the stream, not about one line.
    #[must_use]
    pub fn stream_fault(&self, message: impl Into<String>) -> ReadError {
        ReadError::Stream {
            name: self.name.clone(),
            message: message.into(),
        }
    }

    /// The error of a stream that ends before its trailer.
    #[must_use]
    pub fn cut(&self, message: impl Into<String>) -> ReadError {
        ReadError::Cut {
            name: self.name.clone(),
            message: message.into(),
        }
    }

    /// Makes sure that nothing follows a trailer.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] where something does, and those of [`next_record`](Self::next_record).
    pub fn expect_end(&mut self) -> Result<(), ReadError> {
        match self.next_record()? {
            Some(after) => Err(self.fault(format!("{} after the trailer", after.kind()))),
            None => Ok(()),
        }
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
                Some(Ok(record)) => {
                    // However the key is spelt.
                    let is_short = matches!(
                        record,
                        Record::Relationship(_) | Record::Update(_) | Record::Check(_)
                    );
                    if is_short && self.length > MAX_RELATIONSHIP_BYTES {
                        let most = MAX_RELATIONSHIP_BYTES >> 20;
                        return Err(self.fault(format!("line longer than {most} MiB")));
                    }
                    return Ok(Some(record));
                }
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
            if self.offset == 0
                && self.carry.is_empty()
                && let Some(found) = foreign::recognize(available)
            {
                self.line = 1;
                let name = found.name;
                return Err(self.fault(format!("no stream of this format, but {name}")));
            }
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
            let is_short = self.carry.len() + taken <= MAX_RELATIONSHIP_BYTES;
            if end.is_none() || !self.carry.is_empty() || !is_short {
                let start = if self.carry.is_empty() {
                    available
                } else {
                    &self.carry
                };
                let most = longest(start);
                if self.carry.len() + taken > most {
                    self.line += 1;
                    return Err(self.fault(format!(
                        "line longer than {} MiB: not a line of this format",
                        most >> 20
                    )));
                }
                let room = taken.max(self.carry.len() / 4);
                if self.carry.try_reserve_exact(room).is_err() {
                    return Err(self.stream_fault("out of memory"));
                }
                self.carry.extend_from_slice(&available[..taken]);
            }
            let Some(_) = end else {
                self.input.consume(taken);
                continue;
            };
            self.line += 1;
            let line = if self.carry.is_empty() {
                &available[..taken]
            } else {
                &self.carry
            };
            let length = line.len();
            self.length = length;
            let checked = if line.trim_ascii().is_empty() {
                self.blank += length;
                match self.blank {
                    ..=MAX_BLANK_BYTES => Ok(()),
                    _ => Err("more than 1 MiB of blank lines: not a stream".to_owned()),
                }
            } else {
                self.blank = 0;
                check_line(line).map(|()| self.engine.input(line))
            };
            self.input.consume(taken);
            self.offset += length as u64;
            if self.carry.capacity() > KEPT_BYTES {
                self.carry = Vec::new();
            }
            return match checked {
                Ok(()) => Ok(true),
                Err(message) => Err(self.fault(message)),
            };
        }
    }

    fn failed(&self, source: io::Error) -> ReadError {
        // A decompressor reports damage through these two; a file or a pipe never does.
        if matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
        ) {
            let after = self.line;
            if source.to_string().contains("too much memory") {
                return self.stream_fault(
                    "compressed with a window of more than 16 MiB (zstd --long): unpack it first, \
                     `zstd -dc --long=31 FILE | ...`",
                );
            }
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
        // serde_json's own limit, 127 objects and lists within each other, counts from the line's.
        let message = match message {
            "recursion limit exceeded" => {
                format!("nested too deep: a context or metadata has at most {MAX_DEPTH} levels")
            }
            "expected value" => "not JSON: expected a value here".to_owned(),
            message => message.to_owned(),
        };
        ReadError::Line {
            name: self.name.clone(),
            line: self.line,
            column: error.column().max(1),
            message,
        }
    }
}

#[cfg(test)]
mod tests;
