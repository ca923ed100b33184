//! Programs joined by the kernel's own pipes, as a shell would, without a shell in between.

use super::program::Program;
use super::running::{Finished, Running};
use std::time::Duration;

/// Programs whose stdout feeds the next one's stdin. The first takes its own stdin, the last gives
/// its own stdout.
pub struct Pipe {
    programs: Vec<Program>,
}

impl Pipe {
    pub fn from(first: Program) -> Self {
        Self {
            programs: vec![first],
        }
    }

    pub fn to(mut self, next: Program) -> Self {
        self.programs.push(next);
        self
    }

    /// How long each of them may take.
    pub fn timeout(mut self, limit: Duration) -> Self {
        for program in &mut self.programs {
            program.timeout = limit;
        }
        self
    }

    /// Starts them all and leaves them running, in the order of the pipe.
    pub fn spawn(mut self) -> Vec<Running> {
        for left in 0..self.programs.len() - 1 {
            let (reader, writer) = std::io::pipe().expect("a pipe can be made");
            self.programs[left].stdout = Some(writer.into());
            self.programs[left + 1].stdin = Some(reader.into());
        }
        // Each start hands our ends of its pipes over, so that a reader sees the end and a writer
        // the loss.
        self.programs.into_iter().map(Program::spawn).collect()
    }

    /// Runs them to the end; the last one's stdout and everyone's status and stderr come back in
    /// the order of the pipe.
    pub fn run(self) -> Vec<Finished> {
        self.spawn().into_iter().map(Running::wait).collect()
    }

    /// Runs them, panics unless all exit 0, and returns the last.
    #[track_caller]
    pub fn expect_success(self) -> Finished {
        let mut all: Vec<_> = self
            .run()
            .into_iter()
            .map(Finished::expect_success)
            .collect();
        all.pop().expect("a pipe has programs")
    }
}
