//! The reading end of a spool.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use spice_record::read::MAX_LINE_BYTES;
use spice_record::record::SpoolOffset;
use spice_record::{Change, ChangeCheck, Header, Integrity, ReadError, Record, RecordReader};

use super::Spool;
use spice_cli::{CommandError, Exit};

const CHUNK_BYTES: usize = 256 << 10;

/// What a follower got.
#[derive(Debug)]
pub enum Polled {
    /// The next line, where it begins, and how many bytes it takes. Those of an unfinished revision
    /// may come again from its first part, if its writer died.
    Change(Change, SpoolOffset, usize),
    /// Nothing more for now.
    CaughtUp,
}

/// Reads a spool from an offset, and continues as it grows.
pub struct SpoolReader {
    spool: Spool,
    generation: String,
    records: RecordReader<Tail>,
    segment: u64,
    /// Where `records` began.
    base: u64,
    /// After the last complete revision: where to continue if a writer truncated the rest.
    complete: u64,
    check: ChangeCheck,
    /// As it was after the last complete revision.
    check_of_complete: ChangeCheck,
    header: Header,
}

impl SpoolReader {
    /// Opens a spool at its beginning: the oldest segment that there is.
    ///
    /// # Errors
    ///
    /// Exit 1 if it cannot be read, 65 if it is no spool. `None` where its writer has not begun.
    pub fn open(spool: &Spool) -> Result<Option<Self>, CommandError> {
        let segments = spool
            .segments()
            .map_err(|error| spool.failed("read", &error))?;
        let Some(first) = segments.first() else {
            return Ok(None);
        };
        let opened = Self::at_segment(spool, *first)?;
        match segments.last() {
            Some(last) if opened.is_none() && last > first => {
                Err(without_header(spool, *first, *last))
            }
            _ => Ok(opened),
        }
    }

    fn at_segment(spool: &Spool, segment: u64) -> Result<Option<Self>, CommandError> {
        let generation = spool.generation();
        let mut records = reader(spool, segment, 0)?;
        let header = match records.next_record().map_err(damaged)? {
            Some(Record::Header(header)) => *header,
            Some(other) => return Err(records.unexpected("a header", &other).into()),
            None => return Ok(None),
        };
        let check = ChangeCheck::begin(&header, Integrity::Verified);
        let check = check.map_err(|message| damaged(records.fault(message)))?;
        let complete = records.offset();
        Ok(Some(Self {
            spool: spool.clone(),
            generation,
            segment,
            base: 0,
            complete,
            check_of_complete: check.clone(),
            check,
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
    pub fn seek(
        &mut self,
        revision: &str,
        hint: Option<SpoolOffset>,
    ) -> Result<bool, CommandError> {
        if let Some(place) = hint
            && place.offset > 0
            && self.spool.segment(place.segment).exists()
            && let Ok(Some(mut there)) = Self::at_segment(&self.spool, place.segment)
        {
            there.check_of_complete = ChangeCheck::in_the_middle(Integrity::Verified);
            there.go_to(place.offset)?;
            if let Ok(Polled::Change(change, ..)) = there.next()
                && change.completed_revision() == Some(revision)
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
            while let Polled::Change(change, ..) = there.next_in_segment()? {
                if change.completed_revision() == Some(revision) {
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
    /// Exit 65 for a line that is none, 1 where the operating system reports an error.
    #[expect(
        clippy::should_implement_trait,
        reason = "it has no end: what is not there yet may come"
    )]
    pub fn next(&mut self) -> Result<Polled, CommandError> {
        loop {
            if let found @ Polled::Change(..) = self.next_in_segment()? {
                return Ok(found);
            }
            let next = self.segment + 1;
            if !self.spool.segment(next).exists() {
                self.nothing_after(next)?;
                return Ok(Polled::CaughtUp);
            }
            // This one was ended before the next was begun: now its end is its end.
            if let found @ Polled::Change(..) = self.next_in_segment()? {
                return Ok(found);
            }
            let Some(mut there) = Self::at_segment(&self.spool, next)? else {
                return match self.spool.end() {
                    Some(end) if end.segment > next => {
                        Err(without_header(&self.spool, next, end.segment))
                    }
                    _ => Ok(Polled::CaughtUp),
                };
            };
            if let Err(message) = self.check.next_segment(&there.header) {
                let (this, next) = (self.spool.segment(self.segment), self.spool.segment(next));
                return Err(CommandError::new(
                    Exit::BadData,
                    format!(
                        "{} does not follow {}: {message}",
                        next.display(),
                        this.display()
                    ),
                )
                .hint(DAMAGED));
            }
            there.check = self.check.clone();
            there.check_of_complete = self.check.clone();
            *self = there;
        }
    }

    /// A segment that is not there is the end only if there is none after it.
    fn nothing_after(&self, next: u64) -> Result<(), CommandError> {
        let segments = self.spool.segments();
        let segments = segments.map_err(|error| self.spool.failed("read", &error))?;
        // The writer may have begun both just now.
        if segments.last().is_some_and(|last| *last > next) && !self.spool.segment(next).exists() {
            let (missing, last) = (self.spool.segment(next), segments[segments.len() - 1]);
            return Err(CommandError::new(
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

    fn next_in_segment(&mut self) -> Result<Polled, CommandError> {
        loop {
            let begin = self.records.offset();
            let record = self.records.next_record();
            let has_read = self.records.input().has_read.swap(false, Ordering::Relaxed);
            if has_read || !matches!(record, Ok(Some(_))) {
                let generation = self.spool.generation();
                if generation != self.generation {
                    // Whatever was read of an unfinished revision may have been truncated.
                    self.generation = generation;
                    self.go_to(self.complete)?;
                    continue;
                }
            }
            let Some(record) = record.map_err(damaged)? else {
                return Ok(Polled::CaughtUp);
            };
            let place = SpoolOffset {
                segment: self.segment,
                offset: self.base + begin,
            };
            let checked = Change::try_from(record)
                .map_err(|other| format!("a spool holds no {} here", other.kind()))
                .and_then(|change| self.check.check(&change).map(|()| change));
            let change = checked.map_err(|message| damaged(self.records.fault(message)))?;
            if change.completed_revision().is_some() {
                self.complete = self.base + self.records.offset();
                self.check_of_complete = self.check.clone();
            }
            let bytes = self.records.offset() - begin;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            return Ok(Polled::Change(change, place, bytes));
        }
    }

    fn go_to(&mut self, offset: u64) -> Result<(), CommandError> {
        self.records = reader(&self.spool, self.segment, offset)?;
        self.base = offset;
        self.check = self.check_of_complete.clone();
        Ok(())
    }
}

const DAMAGED: &str = "nothing after the last good line was used. Capture again from there: spice-watch \
                       --since-file POSITION --spool NEW, and apply that; or begin at a new copy";

/// Only the newest segment may have been begun and no more.
fn without_header(spool: &Spool, segment: u64, last: u64) -> CommandError {
    CommandError::new(
        Exit::BadData,
        format!(
            "{} has no header, though {} is there: the spool is damaged",
            spool.segment(segment).display(),
            spool.segment(last).display()
        ),
    )
    .hint(DAMAGED)
}

fn damaged(error: ReadError) -> CommandError {
    CommandError::from(error).hint(DAMAGED)
}

fn reader(spool: &Spool, segment: u64, offset: u64) -> Result<RecordReader<Tail>, CommandError> {
    let path = spool.segment(segment);
    let tail = Tail::open(&path, offset).map_err(|error| spool.failed("read", &error))?;
    let name = match offset {
        0 => path.display().to_string(),
        _ => format!("{} after byte {offset}", path.display()),
    };
    Ok(RecordReader::new(tail, name))
}

/// A file that grows, of which only complete lines are visible.
struct Tail {
    file: File,
    buffer: Vec<u8>,
    /// What has been consumed of the buffer, and where its last complete line ends.
    begin: usize,
    end: usize,
    has_read: AtomicBool,
}

impl Tail {
    fn open(path: &std::path::Path, offset: u64) -> io::Result<Self> {
        let mut file = spice_cli::files::open_private(path)?;
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
