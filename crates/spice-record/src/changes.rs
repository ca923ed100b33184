//! A change stream: header, transactions, schemas and checkpoints, trailer. A spool is one without a
//! trailer. Which revision is complete is decided here only: [`Change::completed_revision`],
//! [`ChangeCheck::through`] and [`ChangeCheck::resume_from`].

mod repeats;
mod writer;

use std::io::BufRead;

pub use self::repeats::MAX_TORN;
use self::repeats::Repeats;
pub use self::writer::{ChangeSealer, ChangeWriter};
use crate::chain::Chain;
use crate::digest::Digest;
use crate::integrity::Integrity;
use crate::read::{ReadError, RecordReader};
use crate::record::header::MAX_SCHEMA_BYTES;
use crate::record::{
    Checkpoint, Header, Record, SchemaChange, StreamEnd, StreamKind, Trailer, Transaction,
};

/// A line of a change stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Updates of a revision, or a part of them.
    Transaction(Box<Transaction>),
    /// The schema changed.
    Schema(Box<SchemaChange>),
    /// Everything through a revision was written.
    Checkpoint(Box<Checkpoint>),
}

impl Change {
    /// The revision that is complete with this line, if one is: only then a position may move.
    #[must_use]
    pub fn completed_revision(&self) -> Option<&str> {
        match self {
            Self::Transaction(change) => change.completes_revision().then_some(&*change.revision),
            Self::Schema(change) => Some(&change.revision),
            Self::Checkpoint(checkpoint) => Some(&checkpoint.revision),
        }
    }

    /// As a record.
    #[must_use]
    pub fn into_record(self) -> Record {
        match self {
            Self::Transaction(change) => Record::Transaction(change),
            Self::Schema(change) => Record::Schema(change),
            Self::Checkpoint(checkpoint) => Record::Checkpoint(checkpoint),
        }
    }
}

impl TryFrom<Record> for Change {
    type Error = Record;

    fn try_from(record: Record) -> Result<Self, Record> {
        match record {
            Record::Transaction(change) => Ok(Self::Transaction(change)),
            Record::Schema(change) => Ok(Self::Schema(change)),
            Record::Checkpoint(checkpoint) => Ok(Self::Checkpoint(checkpoint)),
            other => Err(other),
        }
    }
}

/// Checks a change stream line by line: the only place that decides which line may follow another, and
/// which revision is complete.
#[derive(Clone, Debug)]
pub struct ChangeCheck {
    chain: Chain,
    integrity: Integrity,
    header: Option<Digest>,
    through: Option<String>,
    /// The last complete revision after which nothing is to be corrected.
    settled: Option<String>,
    /// The part read last of a revision that is not complete.
    part: Option<(String, u64)>,
    /// Reading began in the middle: the first line may be any part.
    is_in_the_middle: bool,
}

impl ChangeCheck {
    /// Begins at the header of a stream, or at that of a segment.
    ///
    /// # Errors
    ///
    /// What is wrong with the header, for the message.
    pub fn begin(header: &Header, integrity: Integrity) -> Result<Self, String> {
        check_header(header)?;
        Ok(Self {
            chain: header.checksum.map(Chain::after).unwrap_or_default(),
            integrity,
            header: header.checksum,
            through: header.revision.clone(),
            settled: header.revision.clone(),
            part: None,
            is_in_the_middle: false,
        })
    }

    /// Begins in the middle of a stream, at any line.
    #[must_use]
    pub fn in_the_middle(integrity: Integrity) -> Self {
        Self {
            chain: Chain::default(),
            integrity,
            header: None,
            through: None,
            settled: None,
            part: None,
            is_in_the_middle: true,
        }
    }

    /// Continues with the next segment of a spool.
    ///
    /// # Errors
    ///
    /// What is wrong with its header, for the message.
    pub fn next_segment(&mut self, header: &Header) -> Result<(), String> {
        check_header(header)?;
        if let Some((revision, part)) = &self.part {
            return Err(incomplete(revision, *part));
        }
        let follows = self.chain.last().is_none() || header.previous == self.chain.last();
        if !follows || (self.through.is_some() && header.revision != self.through) {
            return Err(
                "this segment does not continue where the one before ends: segments are missing or \
                 mixed up, or lines are missing at the end of that one"
                    .to_owned(),
            );
        }
        *self = Self::begin(header, self.integrity)?;
        Ok(())
    }

    /// The last complete revision.
    #[must_use]
    pub fn through(&self) -> Option<&str> {
        self.through.as_deref()
    }

    /// The revision after which a Watch resumes: the last complete one. Where revisions must settle it is
    /// that of the last checkpoint, schema, trailer or header, because what collided is corrected between
    /// its transactions and their checkpoint.
    #[must_use]
    pub fn resume_from(&self, must_settle: bool) -> Option<&str> {
        match must_settle {
            true => self.settled.as_deref().or(self.through()),
            false => self.through(),
        }
    }

    /// The checksum of the line read last.
    #[must_use]
    pub fn last_checksum(&self) -> Option<Digest> {
        self.chain.last()
    }

    /// Whether this line is as it was written and is allowed here.
    ///
    /// # Errors
    ///
    /// What is wrong, for the message.
    pub fn check(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Transaction(change) => self.chain.check(&**change, self.integrity)?,
            Change::Schema(change) if change.text.len() > MAX_SCHEMA_BYTES => {
                return Err("a schema of more than 4 MiB: no server takes it".to_owned());
            }
            Change::Schema(change) => self.chain.check(&**change, self.integrity)?,
            Change::Checkpoint(checkpoint) => self.chain.check(&**checkpoint, self.integrity)?,
        }
        self.check_part(change)?;
        self.is_in_the_middle = false;
        if let Some(revision) = change.completed_revision() {
            self.through = Some(revision.to_owned());
            if !matches!(change, Change::Transaction(_)) {
                self.settled = Some(revision.to_owned());
            }
        }
        Ok(())
    }

    /// The parts of a revision are gapless, and no other line is between them.
    fn check_part(&mut self, change: &Change) -> Result<(), String> {
        let (revision, part, last) = match change {
            Change::Transaction(change) => (&change.revision, change.part, change.last_part),
            Change::Schema(change) => (&change.revision, None, None),
            Change::Checkpoint(checkpoint) => (&checkpoint.revision, None, None),
        };
        if last == Some(false) || (part.is_none() && last.is_some()) {
            return Err("lastPart without a part, or not true".to_owned());
        }
        let expected = match (&self.part, part) {
            (None, None) => return Ok(()),
            (Some((open, number)), Some(_)) if open == revision => number.checked_add(1),
            (Some((open, number)), _) => return Err(incomplete(open, *number)),
            (None, Some(number)) if self.is_in_the_middle => Some(number),
            (None, Some(_)) => Some(1),
        };
        if part != expected {
            return Err(format!(
                "part {} of revision {revision} where part {} is expected",
                part.unwrap_or_default(),
                expected.unwrap_or_default()
            ));
        }
        self.part = match (last, part) {
            (None, Some(number)) => Some((revision.clone(), number)),
            _ => None,
        };
        Ok(())
    }

    /// Whether a trailer is allowed here, and is this stream's.
    ///
    /// # Errors
    ///
    /// What is wrong, for the message.
    pub fn check_trailer(&mut self, trailer: &Trailer) -> Result<(), String> {
        trailer.check(StreamKind::Changes, self.header)?;
        if let Some((revision, part)) = &self.part {
            return Err(incomplete(revision, *part));
        }
        self.settled.clone_from(&trailer.revision);
        if self.integrity != Integrity::Verified {
            return Ok(());
        }
        if trailer.digest != self.chain.last() {
            return Err(
                "lines are missing before the trailer: its digest is not the last line's checksum"
                    .to_owned(),
            );
        }
        if trailer.revision != self.through {
            return Err(
                "the trailer's revision is not that of the last complete transaction, schema or \
                 checkpoint"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn incomplete(revision: &str, part: u64) -> String {
    format!("revision {revision} is not complete: nothing follows its part {part}")
}

fn check_header(header: &Header) -> Result<(), String> {
    header.check()?;
    if header.stream != StreamKind::Changes {
        return Err("not the header of a change stream".to_owned());
    }
    match header.revision {
        Some(_) => Ok(()),
        None => Err("header without a revision".to_owned()),
    }
}

/// Reads a change stream and checks it against its checksums and its trailer.
pub struct ChangeReader<R> {
    records: RecordReader<R>,
    check: ChangeCheck,
    trailer: Option<Box<Trailer>>,
    /// Of a log that delivers lines at least once.
    repeats: Option<Repeats>,
}

impl<R: BufRead> ChangeReader<R> {
    /// Continues after a header that has been read already.
    ///
    /// # Errors
    ///
    /// [`ReadError::Line`] where it is damaged, or that of another kind of stream.
    pub fn after(
        records: RecordReader<R>,
        header: &Header,
        integrity: Integrity,
    ) -> Result<Self, ReadError> {
        let check =
            ChangeCheck::begin(header, integrity).map_err(|message| records.fault(message))?;
        Ok(Self {
            records,
            check,
            trailer: None,
            repeats: None,
        })
    }

    /// Skips lines that were read before, and lines that were torn when a producer died: a log such as
    /// Kafka delivers them. A missing or altered line is still refused.
    #[must_use]
    pub fn at_least_once(mut self) -> Self {
        self.repeats = Some(Repeats::default());
        self
    }

    /// How many lines were skipped, as repeated or torn.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.repeats.as_ref().map_or(0, Repeats::skipped)
    }

    /// How many bytes have been read, all of them complete lines.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.records.offset()
    }

    /// The last complete revision.
    #[must_use]
    pub fn through(&self) -> Option<&str> {
        self.check.through()
    }

    /// Why the stream ended; `None` before its end.
    #[must_use]
    pub fn end_reason(&self) -> Option<StreamEnd> {
        self.trailer.as_ref()?.end_reason
    }

    /// The next line; `None` once the stream has ended **and** agrees with its trailer.
    ///
    /// # Errors
    ///
    /// As [`RecordReader::next_record`]; [`ReadError::Line`] where the stream is altered, lines are
    /// missing, or it continues after its trailer; [`ReadError::Cut`] where it has no trailer.
    pub fn next_change(&mut self) -> Result<Option<Change>, ReadError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let record = self.next_new_record()?;
        let change = match record.map(Change::try_from) {
            Some(Ok(change)) => change,
            Some(Err(Record::Trailer(trailer))) => {
                let checked = self.check.check_trailer(&trailer);
                checked.map_err(|message| self.records.fault(message))?;
                self.records.expect_end()?;
                self.trailer = Some(trailer);
                return Ok(None);
            }
            Some(Err(other)) => {
                let kind = other.kind();
                return Err(self
                    .records
                    .fault(format!("a change stream holds no {kind}")));
            }
            None => {
                return Err(self.records.cut("the changes end without a trailer"));
            }
        };
        let checked = self.check.check(&change);
        checked.map_err(|message| self.records.fault(message))?;
        if let Some(repeats) = &mut self.repeats {
            repeats.insert(self.check.last_checksum());
        }
        Ok(Some(change))
    }

    /// The next record that was not read before.
    fn next_new_record(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            let record = self.records.next_record();
            let Some(repeats) = &mut self.repeats else {
                return record;
            };
            match record {
                Err(fault) => repeats.skip_torn(fault)?,
                Ok(Some(record)) if repeats.skip_repeated(&record, self.check.header) => {}
                Ok(record) => return Ok(record),
            }
        }
    }
}

#[cfg(test)]
mod tests;
