//! Why a step ends other than well.

use crate::suite::{CommandError, Exit};

/// The result of a part of a step.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// What happened, and what to do next, as several hints.
#[derive(Debug)]
pub(crate) struct Stop {
    failure: CommandError,
    more: Vec<String>,
}

impl Stop {
    /// A reason with the first hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            failure: CommandError::new(exit, message).hint(hint),
            more: Vec::new(),
        }
    }

    /// Exit 2.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message, hint)
    }

    /// One hint more.
    pub(crate) fn also(mut self, hint: impl Into<String>) -> Self {
        self.more.push(hint.into());
        self
    }

    /// Prints it; the exit code.
    pub(crate) fn report(&self) -> Exit {
        self.failure.report();
        for hint in &self.more {
            tracing::info!("hint: {hint}");
        }
        self.failure.exit
    }
}

impl From<CommandError> for Stop {
    fn from(failure: CommandError) -> Self {
        Self {
            failure,
            more: Vec::new(),
        }
    }
}
