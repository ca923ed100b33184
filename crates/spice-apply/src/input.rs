//! The thread that reads a stream, or follows a spool, and checks it.

mod applied;
mod writer_monitor;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};
use prost::Message as _;
use spice_cli::byte_channel;
use spice_cli::byte_channel::{Receiver, Sender};
use spice_cli::{CommandError, Exit, stdio};
use spice_record::changes::MAX_TORN;
use spice_record::record::{Position, SchemaChange, SpoolOffset, StreamKind, Transaction};
use spice_record::relationship::{Update, context_values, struct_values};
use spice_record::{
    Change, ChangeReader, Header, Integrity, ReadError, Record, RecordReader, SnapshotReader,
    UpdateReader,
};
use spice_spool::{Polled, Spool, SpoolReader};

use self::applied::AlreadyApplied;
use self::writer_monitor::WriterMonitor;
use crate::resume::check_start;

/// What may be read ahead: the backlog that can be coalesced.
const AHEAD_BYTES: usize = 8 << 20;
/// What a revision takes in memory beyond its text, however small it is: without this, the peak of
/// 400,000 revisions of one update was twice that of 5,000 of a thousand (measured, 100 and 51 MiB).
const STEP_BYTES: usize = 512;
/// Updates without revisions are delivered in groups.
const GROUP: usize = 1_000;
const GROUP_BYTES: usize = 4 << 20;
/// What an update takes beside its text: the message, and an allocation for each of its strings.
const UPDATE_BYTES: usize = 400;
/// What a value of a context takes at worst.
const VALUE_BYTES: usize = 700;
/// How long a follower sleeps at the end of a spool.
const NAP: Duration = Duration::from_millis(5);

/// What the thread delivers.
#[derive(Debug)]
pub(crate) enum Step {
    /// Before the header, where the stream begins before the position: its header as it is.
    Opened(Box<Header>),
    /// Once, before all lines; `None` for a stream without a header.
    Header(Option<Box<Header>>),
    Transaction(Box<Transaction>, SpoolOffset),
    /// Updates that have no revision, or come early.
    Updates(Vec<RelationshipUpdate>),
    Schema(Box<SchemaChange>, SpoolOffset),
    Checkpoint(String, SpoolOffset),
    /// Everything that a live Watch delivered through this revision was written early.
    EarlyThrough(String),
    /// The stream ended as it should, after everything through this revision.
    End(Option<String>),
    /// The stream was cut: what came before is good.
    Cut(CommandError),
    /// It is damaged, or not what it should be.
    Failed(CommandError),
}

/// What to read.
pub(crate) struct Input {
    pub(crate) file: PathBuf,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) position: Option<Position>,
    pub(crate) seal: Integrity,
    /// The stream comes from a log that repeats lines.
    pub(crate) at_least_once: bool,
    /// Whether the stream is read to an end (`--until`): then a dead writer is an error.
    pub(crate) until: bool,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Input {
    pub(crate) fn start(self) -> Receiver<Step> {
        let (sender, receiver) = byte_channel::channel(AHEAD_BYTES);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let send = |step, bytes: usize| {
                let bytes = bytes.saturating_add(STEP_BYTES);
                runtime.block_on(sender_send(&sender, step, bytes))
            };
            let ended = match &self.spool {
                Some(spool) => self.follow(&Spool::new(spool), &send),
                None => self.read(&send),
            };
            if let Err(failure) = ended {
                send(Step::Failed(failure), 1);
            }
        });
        receiver
    }

    fn read(&self, send: &dyn Fn(Step, usize) -> bool) -> Result<(), CommandError> {
        let (input, name) = stdio::open(&self.file)?;
        let mut records = RecordReader::new(input, name);
        let first = loop {
            match records.next_record() {
                Ok(Some(first)) => break first,
                Ok(None) => {
                    let empty = records.stream_fault("empty input: the producer wrote nothing");
                    return Err(empty.into());
                }
                // A header that was torn is sent again.
                Err(ReadError::Line { .. }) if self.at_least_once && records.line() <= MAX_TORN => {
                }
                Err(error) => return Err(error.into()),
            }
        };
        match first {
            Record::Header(header) => {
                header.check().map_err(|message| records.fault(message))?;
                let kind = header.stream;
                if kind == StreamKind::Changes {
                    let start = check_start(self.position.as_ref(), &header);
                    start.map_err(|message| records.fault(message))?;
                } else if self.position.is_some() {
                    return Err(CommandError::usage(format!(
                        "--position: a stream of {kind} has no revisions to resume from"
                    )));
                }
                if kind == StreamKind::Changes {
                    let reader = ChangeReader::after(records, &header, self.seal)?;
                    return self.changes(reader, header, send);
                }
                if self.at_least_once {
                    return Err(CommandError::usage(format!(
                        "--at-least-once: only the lines of a change stream show what is repeated, and this is \
                         a stream of {kind}"
                    )));
                }
                if !send(Step::Header(Some(header.clone())), 1) {
                    return Ok(());
                }
                match kind {
                    StreamKind::Snapshot => {
                        let snapshot = SnapshotReader::after(records, header, self.seal)?;
                        updates(snapshot, send)
                    }
                    _ => updates(UpdateReader::after(records, header, self.seal)?, send),
                }
            }
            first @ (Record::Relationship(_) | Record::Update(_))
                if self.seal == Integrity::Unchecked =>
            {
                if !send(Step::Header(None), 1) {
                    return Ok(());
                }
                updates(UpdateReader::by_hand(records, first), send)
            }
            other => Err(CommandError::from(records.unexpected("a header", &other)).hint(
                "relationships and updates made by hand need --no-trailer; whether they are complete is not \
                     checked then",
            )),
        }
    }

    /// A change stream, from stdin or a file. The header is delivered once the position has been reached.
    fn changes<R: BufRead>(
        &self,
        mut reader: ChangeReader<R>,
        header: Box<Header>,
        send: &dyn Fn(Step, usize) -> bool,
    ) -> Result<(), CommandError> {
        if self.at_least_once {
            reader = reader.at_least_once();
        }
        let mut applied = AlreadyApplied::of(self.position.as_ref(), &header);
        if applied.is_some() && !send(Step::Opened(header.clone()), 1) {
            return Ok(());
        }
        let mut header = Some(header);
        let mut reported = 0;
        loop {
            if applied.is_none()
                && let Some(header) = header.take()
                && !send(Step::Header(Some(header)), 1)
            {
                return Ok(());
            }
            let begin = reader.offset();
            let mut decoded = 0;
            let next = match reader.next_change() {
                Ok(Some(change)) if applied.as_mut().is_some_and(|it| it.includes(&change)) => {
                    continue;
                }
                Ok(Some(change)) => {
                    decoded = weight(&change);
                    step(change, SpoolOffset::default())
                }
                Ok(None) => Step::End(reader.through().map(str::to_owned)),
                Err(fault @ (ReadError::Cut { .. } | ReadError::Torn { .. })) => {
                    Step::Cut(cut(fault))
                }
                Err(error) => return Err(damaged(error)),
            };
            if reader.skipped() > reported {
                reported = reader.skipped();
                tracing::info!("{reported} lines skipped so far: repeated, or torn");
            }
            if let Some(applied) = &mut applied
                && let Some(header) = header.take()
                && !send(Step::Header(Some(applied.header_there(header))), 1)
            {
                return Ok(());
            }
            let is_last = matches!(next, Step::End(_) | Step::Cut(_));
            let bytes = usize::try_from(reader.offset() - begin).unwrap_or(usize::MAX);
            if !send(next, bytes.saturating_add(decoded)) || is_last {
                return Ok(());
            }
        }
    }

    fn follow(
        &self,
        spool: &Spool,
        send: &dyn Fn(Step, usize) -> bool,
    ) -> Result<(), CommandError> {
        let mut monitor = WriterMonitor::new(spool, self.until);
        let mut follower = loop {
            match SpoolReader::open(spool)? {
                Some(follower) => break follower,
                None if self.stop.load(Ordering::Relaxed) => return Ok(()),
                None => monitor.check("there is no spool yet", None)?,
            }
            std::thread::sleep(NAP * 10);
        };
        let header = follower.header().clone();
        if self.position.is_none() && follower.segment() > 0 {
            let path = spool.path().display();
            return Err(CommandError::new(
                Exit::BadData,
                format!(
                    "gap: the beginning of the spool {path} was pruned, and no position shows that it was \
                     applied"
                ),
            )
            .hint("give the --position FILE that it was applied with, or start with a new copy"));
        }
        if let Some(position) = &self.position {
            let start = position.source_revision.as_str();
            if !follower.seek(start, position.spool)? {
                let path = spool.path().display();
                return Err(CommandError::new(
                    Exit::BadData,
                    format!("the spool {path} does not hold the position's revision {start}"),
                )
                .hint(
                    "it is another spool than that of the position, or a loss of power has cut its end: start \
                     a new capture from that revision (spice-watch --since-file POSITION --spool NEW)",
                ));
            }
        }
        if !send(Step::Header(Some(Box::new(header.clone()))), 1) {
            return Ok(());
        }
        // What it ends at, if nothing new comes.
        let mut last = match &self.position {
            Some(position) => Some(position.source_revision.clone()),
            None => header.revision.clone(),
        };
        loop {
            let (change, place, bytes) = match follower.next()? {
                Polled::Change(change, place, bytes) => (change, place, bytes),
                Polled::CaughtUp if self.stop.load(Ordering::Relaxed) => return Ok(()),
                Polled::CaughtUp => {
                    std::thread::sleep(NAP);
                    monitor.check("nobody appends to the spool", last.as_deref())?;
                    continue;
                }
            };
            monitor.progressed();
            if let Some(revision) = change.completed_revision() {
                last = Some(revision.to_owned());
            }
            let bytes = bytes + weight(&change);
            let step = step(change, place);
            if !send(step, bytes) {
                return Ok(());
            }
        }
    }
}

async fn sender_send(sender: &Sender<Step>, step: Step, bytes: usize) -> bool {
    sender.send(step, bytes).await
}

/// What a line takes in memory beyond its text: a value of a context can be seven bytes of text, and a
/// map of its own.
fn weight(change: &Change) -> usize {
    let Change::Transaction(change) = change else {
        return 0;
    };
    let metadata = change
        .metadata
        .iter()
        .map(|metadata| struct_values(&metadata.0));
    VALUE_BYTES * metadata.sum::<usize>() + weight_of_updates(&change.updates)
}

pub(crate) fn weight_of_updates(updates: &[Update]) -> usize {
    updates.iter().map(|Update(update)| weight_of(update)).sum()
}

fn weight_of(update: &RelationshipUpdate) -> usize {
    let values = update.relationship.as_ref().map_or(0, context_values);
    UPDATE_BYTES + VALUE_BYTES * values
}

fn step(change: Change, place: SpoolOffset) -> Step {
    match change {
        Change::Transaction(mut change) => {
            // The parser leaves room for four; most have one.
            change.updates.shrink_to_fit();
            Step::Transaction(change, place)
        }
        Change::Schema(change) => Step::Schema(change, place),
        Change::Checkpoint(checkpoint) => Step::Checkpoint(checkpoint.revision, place),
    }
}

/// What has updates without revisions.
trait Updates {
    /// The next one; `None` at a verified end.
    fn next(&mut self) -> Result<Option<RelationshipUpdate>, ReadError>;
}

impl<R: BufRead> Updates for UpdateReader<R> {
    fn next(&mut self) -> Result<Option<RelationshipUpdate>, ReadError> {
        self.next_update()
    }
}

impl<R: BufRead> Updates for SnapshotReader<R> {
    fn next(&mut self) -> Result<Option<RelationshipUpdate>, ReadError> {
        let relationship = self.next_relationship()?;
        Ok(relationship.map(|relationship| RelationshipUpdate {
            operation: Operation::Touch.into(),
            relationship: Some(relationship),
        }))
    }
}

/// A snapshot, or updates: relationships to be touched, and updates to be done. What is smaller than a
/// group is delivered only once it is verified to be complete.
fn updates(
    mut reader: impl Updates,
    send: &dyn Fn(Step, usize) -> bool,
) -> Result<(), CommandError> {
    let mut group = Vec::with_capacity(GROUP);
    let mut bytes = 0;
    loop {
        let Some(update) = reader.next().map_err(damaged)? else {
            if send(Step::Updates(group), bytes) {
                send(Step::End(None), 1);
            }
            return Ok(());
        };
        bytes += 2 * update.encoded_len() + weight_of(&update);
        group.push(update);
        if group.len() >= GROUP || bytes >= GROUP_BYTES {
            if !send(Step::Updates(std::mem::take(&mut group)), bytes) {
                return Ok(());
            }
            bytes = 0;
        }
    }
}

/// What came before is good.
fn damaged(error: ReadError) -> CommandError {
    CommandError::from(error).hint(
        "get the stream again from where it was made; if a filter changed it on purpose, --partial \
         accepts that, once the filter removes the checksum of each line that it changes",
    )
}

/// A producer that died: every complete record that it wrote is applied, and the same command resumes.
fn cut(fault: ReadError) -> CommandError {
    CommandError::from(fault).with_exit(Exit::TryAgain).hint(
        "what came before is on the target, and saved in the position if there is one: run the same command \
         again, with spice-watch --since-file POSITION",
    )
}

/// Whether to read from stdin although it is a terminal.
pub(crate) fn waits_for_a_person(file: &Path, spool: Option<&Path>) -> bool {
    spool.is_none() && file == Path::new("-") && stdio::stdin_is_terminal()
}

#[cfg(test)]
mod tests;
