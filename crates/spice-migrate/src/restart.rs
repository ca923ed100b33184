//! Programs that run until they are stopped, and run again where that may help.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::commands::Command;
use crate::process::{Child, Ended, Input, Output, Runner};
use crate::suite::Outcome;

/// After a run that was long, and after one that was short.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// A run that was long enough for a short pause.
const LONG: Duration = Duration::from_secs(60);

/// A program that is run again whenever it ends with 75 or was killed.
pub(crate) struct Kept<'a> {
    runner: &'a Runner,
    command: Command,
    output: Option<File>,
    child: Option<Child>,
}

impl<'a> Kept<'a> {
    /// Not running yet. Its stdout is appended to a file, if one is given.
    pub(crate) fn new(runner: &'a Runner, command: Command, output: Option<File>) -> Self {
        Self {
            runner,
            command,
            output,
            child: None,
        }
    }

    pub(crate) fn program(&self) -> &'static str {
        self.command.program
    }

    /// Runs it until it ends otherwise.
    pub(crate) async fn run(&mut self) -> Outcome<Ended> {
        loop {
            let began = Instant::now();
            let output = match &self.output {
                Some(file) => file.try_clone().map_or(Output::Null, Output::File),
                None => Output::Null,
            };
            let child = self
                .child
                .insert(self.runner.spawn(&self.command, Input::None, output)?);
            let ended = child.wait().await;
            self.child = None;
            if !matches!(ended, Ended::Code(75) | Ended::Signal(9)) {
                return Ok(ended);
            }
            let pause = PAUSES[usize::from(began.elapsed() <= LONG)];
            tracing::info!(
                "{} ended with {}: it begins again in {} s",
                self.command.program,
                ended.number(),
                pause.as_secs()
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks it to end, and waits for that; how it ended, if it was running.
    pub(crate) async fn terminate(&mut self) -> Option<Ended> {
        let mut child = self.child.take()?;
        child.signal(Signal::TERM);
        Some(child.wait().await)
    }
}
