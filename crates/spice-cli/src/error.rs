//! The error that ends a program: what failed, what caused it, and what to do next.

use std::io;
use std::path::Path;

use spice_record::ReadError;

use crate::display::{MESSAGE_BYTES, bounded};
use crate::exit::Exit;
use crate::hints;
use crate::shutdown::SIGPIPE;

/// Why a program ends other than well: what happened, and what to do next.
#[derive(Debug)]
pub struct CommandError {
    /// The code.
    pub exit: Exit,
    message: String,
    hint: String,
    help: String,
    source: Option<Source>,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl CommandError {
    /// A failure with a message that fits behind `program: error: `.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            exit,
            message: bounded(MESSAGE_BYTES, format_args!("{message}")),
            hint: String::new(),
            help: String::new(),
            source: None,
        }
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A signal ended what was waited for: there is nothing to say.
    #[must_use]
    pub fn interrupted(number: i32) -> Self {
        Self::new(Exit::Signal(number), "")
    }

    /// The signal, of a failure that is only that.
    #[must_use]
    pub fn interruption(&self) -> Option<i32> {
        match self.exit {
            Exit::Signal(number) if self.message.is_empty() => Some(number),
            _ => None,
        }
    }

    /// Says what to do next, unless that is said already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if self.hint.is_empty() {
            self.hint = hint.into();
        }
        self
    }

    /// Nothing to read, because stdin is a terminal: somebody wants the program's help.
    #[must_use]
    pub fn terminal(help: impl std::fmt::Display) -> Self {
        let mut failure = Self::usage("nothing to read: stdin is a terminal");
        failure.help = help.to_string();
        failure
    }

    /// Says in front what was being done.
    #[must_use]
    pub fn context(mut self, what: impl std::fmt::Display) -> Self {
        self.message = bounded(MESSAGE_BYTES, format_args!("{what}: {}", self.message));
        self
    }

    /// The same with another code.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// What happened.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next; empty where nothing is known.
    #[must_use]
    pub fn hint_text(&self) -> &str {
        &self.hint
    }

    /// A failed write to stdout. Where the reader has left, this dies of SIGPIPE and says nothing.
    #[must_use]
    pub fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::interrupted(SIGPIPE);
        }
        Self::new(Exit::Failed, format!("cannot write to stdout: {error}"))
    }

    /// A failed write to a file, or to stdout (`None` or `-`).
    #[must_use]
    pub fn writing(path: Option<&Path>, error: &io::Error) -> Self {
        match path.filter(|path| *path != Path::new("-")) {
            Some(path) => Self::new(
                Exit::Failed,
                format!("cannot write {}: {error}", path.display()),
            ),
            None => Self::stdout(error),
        }
    }

    /// The error that caused this one. It is reported below the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Prints the message, its causes and the hint.
    pub fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        let causes = self.causes().join("\n");
        tracing::error!(
            hint = self.hint,
            help = self.help,
            causes,
            "{}",
            self.message
        );
    }

    /// The causes from the nearest to the root, without those that repeat the one before.
    fn causes(&self) -> Vec<String> {
        let first = self
            .source
            .as_deref()
            .map(|source| source as &dyn std::error::Error);
        let mut causes: Vec<String> = std::iter::successors(first, |error| error.source())
            .map(ToString::to_string)
            .collect();
        causes.dedup_by(|inner, outer| outer.contains(inner.as_str()));
        causes
    }
}

impl From<ReadError> for CommandError {
    fn from(error: ReadError) -> Self {
        // It may quote a line, which may be long.
        let message = bounded(MESSAGE_BYTES, format_args!("{error}"));
        Self::new(Exit::from(&error), message)
    }
}

impl From<authzed::Error> for CommandError {
    fn from(error: authzed::Error) -> Self {
        let failure = Self::new(error.kind().into(), error.summary());
        let failure = match hints::for_error(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        match error.into_source() {
            Some(source) => failure.with_source(source),
            None => failure,
        }
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Exit::Failed, format!("cannot write a record: {error}"))
    }
}
