//! The thread that turns messages into lines, so that reading and writing are concurrent.

use std::io;
use std::path::{Path, PathBuf};

use authzed::v1::Relationship;
use spice_cli::progress::Progress;
use spice_cli::stdio::Output;
use spice_cli::{CommandError, Exit};
use spice_record::{ExpiryPrecision, SnapshotWriter, Trailer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::resume::{self, Begin, Resumable};

/// Messages between reading and writing: enough to keep both busy, few enough to stay small.
const PAGES_AHEAD: usize = 2;

#[derive(Debug)]
pub(crate) enum Step {
    /// Omitted where an export is resumed.
    Begin(Box<Begin>),
    Page {
        shard: usize,
        relationships: Vec<Relationship>,
        cursor: String,
    },
    /// A shard was read to its end.
    End(usize),
    /// A shard will be split, and nothing of it was written.
    Split(usize),
    /// All shards that are split are known. These are the characters by which they are.
    Characters(String),
    Finish,
}

/// Where the stream goes.
pub(crate) enum Destination {
    Once(Output),
    Resumable(Box<Resumable>),
}

/// How the writing thread ended.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Of a complete stream.
    pub(crate) trailer: Option<Trailer>,
    /// How many relationships are kept for the next run.
    pub(crate) kept: Option<u64>,
}

/// Sends pages to the writing thread. Dropping it ends the thread. Without [`Step::Finish`] before that, the
/// stream has no trailer.
pub(crate) struct Writer(mpsc::Sender<Step>);

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        destination: Destination,
        path: Option<PathBuf>,
        precision: ExpiryPrecision,
        progress: Progress,
    ) -> (Self, JoinHandle<Result<Written, CommandError>>) {
        let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
        let thread = tokio::task::spawn_blocking(move || match destination {
            Destination::Once(output) => {
                let trailer = write(output, precision, receiver, &progress);
                let trailer = trailer.map_err(|error| failed(path.as_deref(), &error))?;
                let kept = None;
                Ok(Written { trailer, kept })
            }
            Destination::Resumable(files) => {
                let partial = files.partial();
                let mut kept = None;
                let trailer = record(*files, receiver, &progress, &mut kept);
                let trailer = trailer.map_err(|error| {
                    let failure = failed(Some(&partial), &error);
                    match kept {
                        Some(count) if error.kind() != io::ErrorKind::InvalidData => {
                            resume::kept(failure, &partial, count)
                        }
                        _ => failure,
                    }
                })?;
                Ok(Written { trailer, kept })
            }
        });
        (Self(sender), thread)
    }

    /// Sends the steps to a test.
    #[cfg(test)]
    pub(crate) fn to_test() -> (Self, mpsc::Receiver<Step>) {
        let (sender, receiver) = mpsc::channel(1_000);
        (Self(sender), receiver)
    }

    pub(crate) async fn send(&self, step: Step) -> Result<(), CommandError> {
        let gone = |_| CommandError::new(Exit::Failed, "the output is closed");
        self.0.send(step).await.map_err(gone)
    }
}

fn write(
    output: Output,
    precision: ExpiryPrecision,
    mut steps: mpsc::Receiver<Step>,
    progress: &Progress,
) -> io::Result<Option<Trailer>> {
    let Some(Step::Begin(begin)) = steps.blocking_recv() else {
        return Ok(None);
    };
    let mut stream = SnapshotWriter::create(output, begin.header, precision)?;
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Page { relationships, .. } => {
                for relationship in &relationships {
                    stream.write(relationship)?;
                }
                progress.add(relationships.len() as u64);
            }
            Step::End(_) | Step::Split(_) | Step::Characters(_) => {}
            Step::Finish => {
                let (trailer, output) = stream.finish()?;
                output.finish()?;
                return Ok(Some(trailer));
            }
            Step::Begin(_) => break,
        }
    }
    Ok(None)
}

/// The same with checkpoints. `kept` is how many relationships the last one has. Without its finish message
/// it keeps all that came.
pub(crate) fn record(
    files: Resumable,
    mut steps: mpsc::Receiver<Step>,
    progress: &Progress,
    kept: &mut Option<u64>,
) -> io::Result<Option<Trailer>> {
    *kept = files.begun.as_ref().map(|begun| begun.sum.relationships);
    let begin = match kept {
        Some(_) => None,
        None => match steps.blocking_recv() {
            Some(Step::Begin(begin)) => Some(*begin),
            _ => return Ok(None),
        },
    };
    let mut recording = files.record(begin)?;
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Page {
                shard,
                relationships,
                cursor,
            } => {
                for relationship in &relationships {
                    recording.stream.write(relationship)?;
                }
                progress.add(relationships.len() as u64);
                recording.journal.shards.advance(shard, cursor);
                recording.keep_up()?;
                *kept = Some(recording.journal.sum.relationships);
            }
            Step::End(shard) => recording.journal.shards.finish(shard),
            Step::Split(shard) => {
                recording.journal.plan.split(shard);
                recording.journal.shards.finish(shard);
            }
            Step::Characters(characters) => recording.journal.plan.set_characters(characters),
            Step::Finish => return recording.finish().map(Some),
            Step::Begin(_) => break,
        }
    }
    recording.checkpoint()?;
    *kept = Some(recording.journal.sum.relationships);
    Ok(None)
}

fn failed(path: Option<&Path>, error: &io::Error) -> CommandError {
    match error.kind() {
        // What cannot be written as JSON names its relationship already.
        io::ErrorKind::InvalidData => CommandError::new(Exit::Failed, error.to_string()),
        _ => CommandError::writing(path, error),
    }
}
