//! The thread that writes checks, so that a blocked reader of stdout blocks nothing else.

use std::io;

use spice_cli::stdio::Output;
use spice_cli::{CommandError, Exit};
use spice_record::Header;
use spice_record::checks::{Check, CheckWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

enum Step {
    Checks(Vec<Check>),
    Finish,
}

/// The way to the thread, and how it ends.
type Thread = (mpsc::Sender<Step>, JoinHandle<Result<(), CommandError>>);

/// Writes a stream of checks to stdout. It begins with the first batch, and ends, with a trailer, only
/// where it is asked to.
pub(crate) struct Writer {
    header: Option<Header>,
    thread: Option<Thread>,
}

impl Writer {
    pub(crate) fn new(header: Header) -> Self {
        Self {
            header: Some(header),
            thread: None,
        }
    }

    pub(crate) async fn write(&mut self, checks: Vec<Check>) -> Result<(), CommandError> {
        self.send(Step::Checks(checks)).await
    }

    /// Writes the trailer: everything was read, proven and asked.
    pub(crate) async fn finish(mut self) -> Result<(), CommandError> {
        self.send(Step::Finish).await?;
        self.outcome().await
    }

    async fn send(&mut self, step: Step) -> Result<(), CommandError> {
        if let Some(header) = self.header.take() {
            let (sender, receiver) = mpsc::channel(1);
            let thread = tokio::task::spawn_blocking(move || write(header, receiver));
            self.thread = Some((sender, thread));
        }
        if let Some((sender, _)) = &self.thread
            && sender.send(step).await.is_ok()
        {
            return Ok(());
        }
        self.outcome().await
    }

    /// Why the thread has ended.
    async fn outcome(&mut self) -> Result<(), CommandError> {
        let Some((sender, thread)) = self.thread.take() else {
            return Err(CommandError::new(Exit::Failed, "the output is closed"));
        };
        drop(sender);
        thread
            .await
            .map_err(|error| CommandError::new(Exit::Failed, error.to_string()))?
    }
}

fn write(header: Header, mut steps: mpsc::Receiver<Step>) -> Result<(), CommandError> {
    let stdout = |error: io::Error| CommandError::stdout(&error);
    let output = Output::create(None, None)?;
    let mut writer = CheckWriter::create(output, header).map_err(stdout)?;
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Checks(checks) => {
                for check in checks {
                    writer.write(check).map_err(stdout)?;
                }
            }
            Step::Finish => {
                let output = writer.finish().map_err(stdout)?;
                return output.finish().map_err(stdout).map(|_| ());
            }
        }
    }
    // Without a trailer: whoever reads it knows that it is cut.
    Ok(())
}
