//! Reads a stream to its verified end, and writes the mapped one. Its trailer is the last that is written.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::rc::Rc;

use spice_cli::progress::Progress;
use spice_cli::stdio::{self, Output};
use spice_cli::{CommandError, Exit};
use spice_record::record::StreamKind;
use spice_record::{
    Change, ChangeReader, ChangeWriter, ExpiryPrecision, Header, Integrity, ReadError, Record,
    RecordReader, SnapshotReader, SnapshotWriter, UpdateReader, UpdateWriter,
};

use crate::Map;
use crate::mapper::{Counts, Mapper};
use crate::plan::Plan;
use crate::schema::Unknown;

/// # Errors
///
/// Exit 65 for an input that is not complete, 2 where its schema forbids what is asked for, 1 where the
/// output cannot be written.
pub(crate) fn map(args: &Map, plan: Plan, progress: &Progress) -> Result<Counts, CommandError> {
    let output = Shared::default();
    let (input, name) = stdio::open(&args.file)?;
    let input = Input {
        input,
        left: 0,
        output: output.clone(),
    };
    let mut records = RecordReader::new(input, name);
    let mut mapper = Mapper::new(plan);
    let header = match records.next_record() {
        Ok(Some(Record::Header(header))) => header,
        Ok(Some(other)) => {
            return Err(mapper
                .plan()
                .unreadable(records.unexpected("a header", &other)));
        }
        Ok(None) => {
            let empty = records.stream_fault("empty input: the producer wrote nothing");
            return Err(empty.into());
        }
        Err(error) => return Err(mapper.plan().unreadable(error)),
    };
    header
        .check()
        .map_err(|message| mapper.plan().unreadable(records.fault(message)))?;
    if header.stream == StreamKind::Checks {
        let checks = records.fault("a stream of checks: its questions are to be asked, not mapped");
        return Err(checks.into());
    }
    let schema = schema(&mut mapper, &header)?;
    let new = mapper.plan().header(&header, schema)?;
    output.open(args)?;
    let job = Job {
        mapper,
        progress,
        output: output.clone(),
        path: args.output_file(),
    };
    let counts = match header.stream {
        StreamKind::Snapshot => job.snapshot(records, header, new)?,
        StreamKind::Changes => job.changes(records, &header, new)?,
        StreamKind::Updates | StreamKind::Checks => job.updates(records, header, new)?,
    };
    output
        .finish()
        .map_err(|error| CommandError::writing(args.output_file(), &error))?;
    Ok(counts)
}

/// The schema of the header. A snapshot must have what the flags name. In a stream of changes that may
/// come later, or be gone.
fn schema(mapper: &mut Mapper, header: &Header) -> Result<Option<String>, CommandError> {
    let unknown = match header.stream {
        StreamKind::Snapshot => Unknown::Refuse,
        _ => Unknown::Warn,
    };
    let Some(text) = &header.schema else {
        match header.stream {
            StreamKind::Snapshot => {
                tracing::info!("the stream has no schema: names are checked at its end");
            }
            _ => tracing::warn!(
                "the stream has no schema: whether it has these names is not checked"
            ),
        }
        return Ok(None);
    };
    mapper.schema(text, unknown).map(Some)
}

struct Job<'a> {
    mapper: Mapper,
    progress: &'a Progress,
    output: Shared,
    path: Option<&'a Path>,
}

type Records = RecordReader<Input>;

impl Job<'_> {
    fn snapshot(
        mut self,
        records: Records,
        header: Box<Header>,
        new: Header,
    ) -> Result<Counts, CommandError> {
        let reader = SnapshotReader::after(records, header, Integrity::Verified);
        let mut reader = reader.map_err(|error| self.mapper.plan().unreadable(error))?;
        // The precision is in the trailer.
        let precision = ExpiryPrecision::default();
        let writer = SnapshotWriter::create(self.output.clone(), new, precision);
        let mut writer = writer.map_err(|error| self.unwritable(&error))?;
        loop {
            let next = reader.next_relationship();
            let next = next.map_err(|error| self.mapper.plan().unreadable(error))?;
            let Some(mut relationship) = next else { break };
            self.progress.add(1);
            if self.mapper.map(&mut relationship)? {
                let written = writer.write(&relationship);
                written.map_err(|error| self.unwritable(&error))?;
            }
        }
        self.check_names()?;
        let finished = writer.finish_at(reader.precision().unwrap_or(precision));
        finished.map_err(|error| self.unwritable(&error))?;
        Ok(self.mapper.counts)
    }

    fn changes(
        mut self,
        records: Records,
        header: &Header,
        new: Header,
    ) -> Result<Counts, CommandError> {
        let reader = ChangeReader::after(records, header, Integrity::Verified);
        let mut reader = reader.map_err(|error| self.mapper.plan().unreadable(error))?;
        let writer = ChangeWriter::create(self.output.clone(), new);
        let mut writer = writer.map_err(|error| self.unwritable(&error))?;
        loop {
            let next = reader.next_change().map_err(|error| {
                let is_cut = matches!(error, ReadError::Cut { .. } | ReadError::Torn { .. });
                let failure = self.mapper.plan().unreadable(error);
                // The same pipe, started again, resumes where its reader has come to.
                match is_cut {
                    true => failure.with_exit(Exit::TryAgain),
                    false => failure,
                }
            })?;
            let Some(mut change) = next else { break };
            match &mut change {
                Change::Transaction(change) => {
                    self.progress.add(change.updates.len() as u64);
                    self.mapper.transaction(change)?;
                }
                Change::Schema(change) => {
                    let mapped = self.mapper.schema(&change.text, Unknown::Ignore);
                    change.text = mapped.map_err(|failure| {
                        failure.context(format!("the schema of revision {}", change.revision))
                    })?;
                }
                Change::Checkpoint(_) => {}
            }
            let written = writer.write(change);
            written.map_err(|error| self.unwritable(&error))?;
        }
        let Some(end_reason) = reader.end_reason() else {
            return Err(CommandError::new(
                Exit::BadData,
                "a trailer without an end reason",
            ));
        };
        self.mapper.counts.unseen = self.mapper.unseen();
        let finished = writer.finish(end_reason);
        finished.map_err(|error| self.unwritable(&error))?;
        Ok(self.mapper.counts)
    }

    fn updates(
        mut self,
        records: Records,
        header: Box<Header>,
        new: Header,
    ) -> Result<Counts, CommandError> {
        let reader = UpdateReader::after(records, header, Integrity::Verified);
        let mut reader = reader.map_err(|error| self.mapper.plan().unreadable(error))?;
        let writer = UpdateWriter::create(self.output.clone(), new);
        let mut writer = writer.map_err(|error| self.unwritable(&error))?;
        loop {
            let next = reader.next_update();
            let next = next.map_err(|error| self.mapper.plan().unreadable(error))?;
            let Some(mut update) = next else { break };
            self.progress.add(1);
            if self.mapper.map_update(&mut update)? {
                let written = writer.write(update);
                written.map_err(|error| self.unwritable(&error))?;
            }
        }
        self.mapper.counts.unseen = self.mapper.unseen();
        let finished = writer.finish();
        finished.map_err(|error| self.unwritable(&error))?;
        Ok(self.mapper.counts)
    }

    /// Of a stream that holds all that it will ever hold: a name that never came is misspelled, and what it
    /// was to redact or leave out may have been written.
    fn check_names(&self) -> Result<(), CommandError> {
        match self.mapper.unseen() {
            // Nothing was written either.
            _ if self.mapper.counts.read == 0 => Ok(()),
            Some(unseen) => Err(CommandError::usage(format!(
                "no schema and no relationship of the stream has {unseen}"
            ))
            .hint("the output is not complete: discard it; names are those of the input")
            .also("a name that is right, and only does not occur here, can be left out")),
            None => Ok(()),
        }
    }

    /// A line that cannot be written may be quoted in its error, ids included.
    fn unwritable(&self, error: &io::Error) -> CommandError {
        let is_of_line = error.kind() == io::ErrorKind::InvalidData;
        if is_of_line && self.mapper.plan().redaction.is_some() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "a line that readers refuse");
            return CommandError::writing(self.path, &error);
        }
        CommandError::writing(self.path, error)
    }
}

/// The output, which the reading side flushes as well. Nothing is made before the header was checked.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Option<Output>>>);

impl Shared {
    fn open(&self, args: &Map) -> Result<(), CommandError> {
        let output = Output::create(args.output.as_deref(), args.compression.chosen())?;
        *self.0.borrow_mut() = Some(output);
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        match self.0.borrow_mut().take() {
            Some(output) => output.finish(),
            None => Ok(()),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Output) -> io::Result<T>) -> io::Result<T> {
        match self.0.borrow_mut().as_mut() {
            Some(output) => act(output),
            None => Err(io::Error::other("the output is closed")),
        }
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|output| output.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(Output::flush)
    }
}

/// Hands what was written to its reader before it waits for more input: changes come one by one.
struct Input {
    input: Box<dyn BufRead + Send>,
    /// How much of the buffer has not been taken.
    left: usize,
    output: Shared,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.left = 0;
        self.input.read(buffer)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            // A failure shows again where something is written.
            let _ = self.output.flush();
        }
        let buffer = self.input.fill_buf()?;
        self.left = buffer.len();
        Ok(buffer)
    }

    fn consume(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.input.consume(bytes);
    }
}
