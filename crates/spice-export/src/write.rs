//! The thread that turns messages into lines, so that reading and writing are concurrent.

use std::io;
use std::path::PathBuf;

use authzed::v1::Relationship;
use spice_cli::progress::Progress;
use spice_cli::stdio::Output;
use spice_cli::{CommandError, Exit};
use spice_record::{ExpiryPrecision, Header, SnapshotWriter, Trailer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Messages between reading and writing: enough to keep both busy, few enough to stay small.
const PAGES_AHEAD: usize = 2;

#[derive(Debug)]
pub(crate) enum Step {
    Header(Box<Header>),
    Page(Vec<Relationship>),
    Finish,
}

/// Sends pages to the writing thread. Dropping it ends the thread. Without
/// [`finish`](Writer::finish) before that, the stream has no trailer.
pub(crate) struct Writer(mpsc::Sender<Step>);

impl Writer {
    /// Starts the thread. It returns the trailer, or `None` if `finish` was not called.
    pub(crate) fn start(
        output: Output,
        path: Option<PathBuf>,
        precision: ExpiryPrecision,
        progress: Progress,
    ) -> (Self, JoinHandle<Result<Option<Trailer>, CommandError>>) {
        let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            write(output, precision, receiver, &progress).map_err(|error| match error.kind() {
                // What cannot be written as JSON names its relationship already.
                io::ErrorKind::InvalidData => CommandError::new(Exit::Failed, error.to_string()),
                _ => CommandError::writing(path.as_deref(), &error),
            })
        });
        (Self(sender), thread)
    }

    /// Sends the steps to a test.
    #[cfg(test)]
    pub(crate) fn to_test() -> (Self, mpsc::Receiver<Step>) {
        let (sender, receiver) = mpsc::channel(1_000);
        (Self(sender), receiver)
    }

    pub(crate) async fn header(&self, header: Header) -> Result<(), CommandError> {
        self.send(Step::Header(Box::new(header))).await
    }

    pub(crate) async fn page(&self, relationships: Vec<Relationship>) -> Result<(), CommandError> {
        self.send(Step::Page(relationships)).await
    }

    pub(crate) async fn finish(&self) -> Result<(), CommandError> {
        self.send(Step::Finish).await
    }

    async fn send(&self, step: Step) -> Result<(), CommandError> {
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
    let Some(Step::Header(header)) = steps.blocking_recv() else {
        return Ok(None);
    };
    let mut stream = SnapshotWriter::create(output, *header, precision)?;
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Page(relationships) => {
                for relationship in &relationships {
                    stream.write(relationship)?;
                }
                progress.add(relationships.len() as u64);
            }
            Step::Finish => {
                let (trailer, output) = stream.finish()?;
                output.finish()?;
                return Ok(Some(trailer));
            }
            Step::Header(_) => break,
        }
    }
    Ok(None)
}
