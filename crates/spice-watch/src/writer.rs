//! The thread that writes records, to stdout or to a spool, so that a slow reader or disk never slows
//! the Watch itself.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use authzed::v1::{RelationshipUpdate, WatchResponse};
use prost::Message as _;
use spice_cli::byte_channel;
use spice_cli::byte_channel::{Receiver, Sender};
use spice_cli::progress::Progress;
use spice_cli::stdio::Output;
use spice_cli::{CommandError, Exit};
use spice_record::record::{Checkpoint, SchemaChange, StreamEnd, Transaction};
use spice_record::relationship::{StructJson, Update, context_values};
use spice_record::{Change, ChangeWriter, Header};
use spice_spool::SpoolWriter;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::JoinHandle;

/// What may wait for the writer, in memory. A revision of any size fits, alone.
const WAITING_BYTES: usize = 32 << 20;
/// A line stays far below the largest that readers take, in bytes and in values.
const PART_UPDATES: usize = 2_000;
const PART_BYTES: usize = 1 << 20;
const PART_CONTEXT_VALUES: usize = 15_000;
/// A spool is made durable at least this often.
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// About how much memory a response takes: each string of a relationship is an allocation.
pub(crate) fn weight(response: &WatchResponse) -> usize {
    const UPDATE: usize = 512;
    2 * response.encoded_len() + UPDATE * response.updates.len()
}

/// Where the stream goes.
pub(crate) enum Sink {
    Stdout(Output),
    /// stdout, after the header.
    Stream(Box<ChangeWriter<Output>>),
    Spool(Box<SpoolWriter>),
}

/// What is written.
#[derive(Debug)]
pub(crate) enum Event {
    Header(Box<Header>),
    Transaction {
        revision: String,
        updates: Vec<RelationshipUpdate>,
        metadata: Vec<authzed::JsonObject>,
        contended: bool,
    },
    Schema(SchemaChange),
    Checkpoint(Checkpoint),
    /// The intended end, and why.
    End(StreamEnd),
}

/// The way to the writing thread.
pub(crate) struct Emitter {
    sender: Sender<Event>,
}

impl Emitter {
    pub(crate) fn start(
        sink: Sink,
        schema: Option<String>,
        progress: Progress,
    ) -> (Self, JoinHandle<Result<(), CommandError>>) {
        let (sender, receiver) = byte_channel::channel(WAITING_BYTES);
        let thread = tokio::task::spawn_blocking(move || {
            let mut writer = Writer {
                sink: Some(sink),
                schema,
                progress,
            };
            writer.run(receiver)
        });
        (Self { sender }, thread)
    }

    /// Sends the events to a test.
    #[cfg(test)]
    pub(crate) fn to_test(bytes: usize) -> (Self, Receiver<Event>) {
        let (sender, receiver) = byte_channel::channel(bytes);
        (Self { sender }, receiver)
    }

    /// Whether something of this size would have to wait for the reader.
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        self.sender.is_full(bytes)
    }

    /// Waits until the reader has taken half of what may wait for it.
    pub(crate) async fn drained(&self) {
        while self.is_full(WAITING_BYTES / 2) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn send(&self, event: Event, bytes: usize) -> Result<(), CommandError> {
        if self.sender.send(event, bytes).await {
            return Ok(());
        }
        // The thread reports why.
        Err(CommandError::new(Exit::Failed, "the output is closed"))
    }
}

struct Writer {
    /// `None` after the end.
    sink: Option<Sink>,
    schema: Option<String>,
    progress: Progress,
}

impl Writer {
    fn run(&mut self, mut events: Receiver<Event>) -> Result<(), CommandError> {
        let mut synced = Instant::now();
        loop {
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Empty) => {
                    self.flush()?;
                    synced = Instant::now();
                    match events.blocking_recv() {
                        Some(event) => event,
                        None => return self.flush(),
                    }
                }
                Err(TryRecvError::Disconnected) => return self.flush(),
            };
            self.event(event.message)?;
            if synced.elapsed() >= SYNC_EVERY {
                self.flush()?;
                synced = Instant::now();
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), CommandError> {
        match event {
            Event::Header(header) => self.header(*header),
            Event::Transaction {
                revision,
                updates,
                metadata,
                contended,
            } => {
                self.progress.add(updates.len() as u64);
                self.transaction(&revision, updates, metadata, contended)?;
                self.revision_complete(&revision)
            }
            Event::Schema(change) => {
                let revision = change.revision.clone();
                self.schema = Some(change.text.clone());
                self.change(Change::Schema(Box::new(change)))?;
                self.revision_complete(&revision)
            }
            Event::Checkpoint(checkpoint) => {
                let revision = checkpoint.revision.clone();
                self.change(Change::Checkpoint(Box::new(checkpoint)))?;
                self.revision_complete(&revision)
            }
            Event::End(end_reason) => match self.sink.take() {
                Some(Sink::Stream(stream)) => {
                    let finished = stream.finish(end_reason).map_err(|error| failed(&error))?;
                    self.sink = Some(Sink::Stdout(finished));
                    Ok(())
                }
                // A spool is only interrupted. The next run continues it.
                sink => {
                    self.sink = sink;
                    self.flush()
                }
            },
        }
    }

    fn header(&mut self, header: Header) -> Result<(), CommandError> {
        match self.sink.take() {
            Some(Sink::Stdout(output)) => {
                let stream = ChangeWriter::create(output, header);
                let stream = stream.map_err(|error| failed(&error))?;
                self.sink = Some(Sink::Stream(Box::new(stream)));
                Ok(())
            }
            Some(Sink::Spool(mut spool)) => {
                let written = spool.header(header);
                self.sink = Some(Sink::Spool(spool));
                written
            }
            Some(Sink::Stream(_)) | None => Err(misplaced("a second header")),
        }
    }

    /// One line, or several parts.
    fn transaction(
        &mut self,
        revision: &str,
        updates: Vec<RelationshipUpdate>,
        metadata: Vec<authzed::JsonObject>,
        contended: bool,
    ) -> Result<(), CommandError> {
        let mut metadata: Vec<StructJson> = metadata.into_iter().map(StructJson).collect();
        let mut updates = updates.into_iter().peekable();
        let mut number = 0;
        loop {
            let (mut part, mut bytes, mut values) = (Vec::new(), 0, 0);
            while let Some(update) = updates.peek() {
                bytes += update.encoded_len() + 64;
                values += update.relationship.as_ref().map_or(0, context_values);
                let is_full = part.len() == PART_UPDATES
                    || bytes > PART_BYTES
                    || values > PART_CONTEXT_VALUES;
                if is_full && !part.is_empty() {
                    break;
                }
                part.extend(updates.next().map(Update));
            }
            number += 1;
            let last = updates.peek().is_none();
            let parts = number > 1 || !last;
            self.change(Change::Transaction(Box::new(Transaction {
                revision: revision.to_owned(),
                updates: part,
                metadata: std::mem::take(&mut metadata),
                part: parts.then_some(number),
                last_part: (parts && last).then_some(true),
                contended,
                ..Transaction::default()
            })))?;
            if last {
                return Ok(());
            }
        }
    }

    fn revision_complete(&mut self, revision: &str) -> Result<(), CommandError> {
        match &mut self.sink {
            Some(Sink::Spool(spool)) => spool.rotate(revision, self.schema.as_deref()),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> Result<(), CommandError> {
        match &mut self.sink {
            Some(Sink::Spool(spool)) => spool.write(change),
            Some(Sink::Stream(stream)) => stream.write(change).map_err(|error| failed(&error)),
            Some(Sink::Stdout(_)) | None => Err(misplaced("a change without a header")),
        }
    }

    fn flush(&mut self) -> Result<(), CommandError> {
        match &mut self.sink {
            Some(Sink::Spool(spool)) => spool.sync(),
            Some(Sink::Stream(stream)) => stream.flush().map_err(|error| failed(&error)),
            Some(Sink::Stdout(output)) => output.flush().map_err(|error| failed(&error)),
            None => Ok(()),
        }
    }
}

fn misplaced(what: &str) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot write the stream: {what}"))
}

fn failed(error: &io::Error) -> CommandError {
    match error.kind() {
        // A line that no reader takes names itself.
        io::ErrorKind::InvalidData => CommandError::new(Exit::Failed, error.to_string()),
        _ => CommandError::stdout(error),
    }
}

#[cfg(test)]
mod tests;
