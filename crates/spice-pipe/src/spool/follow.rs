//! The reading end of a spool.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use spice_record::read::MAX_LINE_BYTES;
use spice_record::record::{Place, StreamKind};
use spice_record::{FORMAT, Header, Record, RecordReader};

use super::Spool;
use crate::exit::{Exit, Failure};

const CHUNK_BYTES: usize = 256 << 10;

/// What a follower got.
#[derive(Debug)]
pub enum Followed {
    /// The next record, where it begins, and how many bytes it takes. Those of an unfinished revision
    /// may come again from its first part, if its writer died.
    Record(Box<Record>, Place, usize),
    /// Nothing more for now.
    CaughtUp,
}

/// Reads a spool from a place on, and goes on as it grows.
pub struct Follower {
    spool: Spool,
    generation: String,
    records: RecordReader<Tail>,
    segment: u64,
    /// Where `records` began.
    base: u64,
    /// After the last whole revision: where to go on if a writer cut back the rest.
    whole: u64,
    /// The last whole revision.
    revision: Option<String>,
    header: Header,
}

impl Follower {
    /// Opens a spool at its beginning: the oldest segment that there is.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be read, 65 if it is no spool. `None` where its writer has not begun.
    pub fn open(spool: &Spool) -> Result<Option<Self>, Failure> {
        let segments = spool
            .segments()
            .map_err(|error| spool.failed("read", &error))?;
        match segments.first() {
            Some(first) => Self::at_segment(spool, *first),
            None => Ok(None),
        }
    }

    fn at_segment(spool: &Spool, segment: u64) -> Result<Option<Self>, Failure> {
        let generation = spool.generation();
        let mut records = reader(spool, segment, 0)?;
        let header = match records.next_record()? {
            Some(Record::Header(header)) => *header,
            Some(other) => {
                let kind = other.kind();
                return Err(records
                    .fault(format!("expected a header, got a {kind}"))
                    .into());
            }
            None => return Ok(None),
        };
        if header.stream != StreamKind::Changes || header.format != FORMAT {
            return Err(records.fault("not the header of a change stream").into());
        }
        let whole = records.offset();
        Ok(Some(Self {
            spool: spool.clone(),
            generation,
            segment,
            base: 0,
            whole,
            revision: header.revision.clone(),
            header,
            records,
        }))
    }

    /// The header of the segment.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The segment that is being read.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Goes to the record that has a revision: to `hint` if that record begins there, else to the first
    /// one found. What follows it comes next; `false` where the revision is nowhere.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn seek(&mut self, revision: &str, hint: Option<Place>) -> Result<bool, Failure> {
        if let Some(place) = hint
            && place.offset > 0
            && self.spool.segment(place.segment).exists()
            && let Ok(Some(mut there)) = Self::at_segment(&self.spool, place.segment)
        {
            there.go_to(place.offset)?;
            if let Ok(Followed::Record(record, ..)) = there.next()
                && completed(&record) == Some(revision)
            {
                *self = there;
                return Ok(true);
            }
        }
        let segments = self.spool.segments();
        let segments = segments.map_err(|error| self.spool.failed("read", &error))?;
        for segment in segments {
            let Some(mut there) = Self::at_segment(&self.spool, segment)? else {
                continue;
            };
            if there.header.revision.as_deref() == Some(revision) {
                *self = there;
                return Ok(true);
            }
            while let Followed::Record(record, ..) = there.next_in_segment()? {
                if completed(&record) == Some(revision) {
                    *self = there;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The next record, if it is there.
    ///
    /// # Errors
    ///
    /// Exit 65 for a line that is none, 1 where the operating system says no.
    #[expect(
        clippy::should_implement_trait,
        reason = "it has no end: what is not there yet may come"
    )]
    pub fn next(&mut self) -> Result<Followed, Failure> {
        loop {
            if let found @ Followed::Record(..) = self.next_in_segment()? {
                return Ok(found);
            }
            let next = self.segment + 1;
            if !self.spool.segment(next).exists() {
                self.nothing_after(next)?;
                return Ok(Followed::CaughtUp);
            }
            // This one was ended before the next was begun: now its end is its end.
            if let found @ Followed::Record(..) = self.next_in_segment()? {
                return Ok(found);
            }
            let Some(there) = Self::at_segment(&self.spool, next)? else {
                return Ok(Followed::CaughtUp);
            };
            if there.header.revision != self.revision {
                let (this, next) = (self.spool.segment(self.segment), self.spool.segment(next));
                return Err(Failure::new(
                    Exit::BadData,
                    format!(
                        "{} does not go on where {} ends: segments are missing or mixed up",
                        next.display(),
                        this.display()
                    ),
                ));
            }
            *self = there;
        }
    }

    /// A segment that is not there is the end only if there is none after it.
    fn nothing_after(&self, next: u64) -> Result<(), Failure> {
        let segments = self.spool.segments();
        let segments = segments.map_err(|error| self.spool.failed("read", &error))?;
        // The writer may have begun both just now.
        if segments.last().is_some_and(|last| *last > next) && !self.spool.segment(next).exists() {
            let (missing, last) = (self.spool.segment(next), segments[segments.len() - 1]);
            return Err(Failure::new(
                Exit::BadData,
                format!(
                    "{} is missing, though {} is there: the spool has a gap",
                    missing.display(),
                    self.spool.segment(last).display()
                ),
            ));
        }
        Ok(())
    }

    fn next_in_segment(&mut self) -> Result<Followed, Failure> {
        loop {
            let begin = self.records.offset();
            let record = self.records.next_record();
            let has_read = self.records.input().has_read.swap(false, Ordering::Relaxed);
            if has_read || !matches!(record, Ok(Some(_))) {
                let generation = self.spool.generation();
                if generation != self.generation {
                    // Whatever was read of an unfinished revision may have been cut back.
                    self.generation = generation;
                    self.go_to(self.whole)?;
                    continue;
                }
            }
            let Some(record) = record? else {
                return Ok(Followed::CaughtUp);
            };
            let place = Place {
                segment: self.segment,
                offset: self.base + begin,
            };
            if let Some(revision) = completed(&record) {
                self.revision = Some(revision.to_owned());
                self.whole = self.base + self.records.offset();
            }
            let bytes = self.records.offset() - begin;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            return Ok(Followed::Record(Box::new(record), place, bytes));
        }
    }

    fn go_to(&mut self, offset: u64) -> Result<(), Failure> {
        self.records = reader(&self.spool, self.segment, offset)?;
        self.base = offset;
        Ok(())
    }
}

/// The revision that is whole with a record.
fn completed(record: &Record) -> Option<&str> {
    match record {
        Record::Transaction(change) if change.completes_revision() => Some(&change.revision),
        Record::Schema(change) => Some(&change.revision),
        Record::Checkpoint(checkpoint) => Some(&checkpoint.revision),
        _ => None,
    }
}

fn reader(spool: &Spool, segment: u64, offset: u64) -> Result<RecordReader<Tail>, Failure> {
    let path = spool.segment(segment);
    let tail = Tail::open(&path, offset).map_err(|error| spool.failed("read", &error))?;
    let name = match offset {
        0 => path.display().to_string(),
        _ => format!("{} after byte {offset}", path.display()),
    };
    Ok(RecordReader::new(tail, name))
}

/// A file that grows, of which only whole lines show.
struct Tail {
    file: File,
    buffer: Vec<u8>,
    /// What has been consumed of the buffer, and where its last whole line ends.
    begin: usize,
    end: usize,
    has_read: AtomicBool,
}

impl Tail {
    fn open(path: &std::path::Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            file,
            buffer: Vec::new(),
            begin: 0,
            end: 0,
            has_read: AtomicBool::default(),
        })
    }
}

impl Read for Tail {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let count = available.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Tail {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.begin == self.end {
            self.buffer.drain(..self.end);
            (self.begin, self.end) = (0, 0);
            loop {
                let before = self.buffer.len();
                let mut chunk = Read::by_ref(&mut self.file).take(CHUNK_BYTES as u64);
                let count = chunk.read_to_end(&mut self.buffer)?;
                if count == 0 {
                    break;
                }
                self.has_read.store(true, Ordering::Relaxed);
                if let Some(last) = self.buffer[before..].iter().rposition(|b| *b == b'\n') {
                    self.end = before + last + 1;
                    break;
                }
                if self.buffer.len() > MAX_LINE_BYTES {
                    // No line of ours: let the reader say so.
                    self.end = self.buffer.len();
                    break;
                }
            }
        }
        Ok(&self.buffer[self.begin..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.begin += count;
    }
}
