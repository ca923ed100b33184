//! The error that ends a program: what failed, what caused it, and what to do next.

use std::io;
use std::path::Path;

use spice_record::ReadError;

use crate::display::{MESSAGE_BYTES, bounded};
use crate::exit::Exit;
use crate::exit::hints;
use crate::shutdown::SIGPIPE;

/// Why a program failed: what happened, and what to do next.
#[derive(Debug)]
pub struct CommandError {
    /// The code.
    pub exit: Exit,
    message: String,
    hints: Vec<String>,
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
            hints: Vec::new(),
            help: String::new(),
            source: None,
        }
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A signal ended the program: nothing is reported.
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

    /// Adds what to do next, unless there is a hint already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if self.hints.is_empty() {
            self.hints.push(one_line(&hint.into()));
        }
        self
    }

    /// Adds one thing more to do, below the hints that there are.
    #[must_use]
    pub fn also(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(one_line(&hint.into()));
        self
    }

    /// Nothing to read, because stdin is a terminal: somebody wants the program's help.
    #[must_use]
    pub fn terminal(help: impl std::fmt::Display) -> Self {
        let mut failure = Self::usage("nothing to read: stdin is a terminal");
        failure.help = help.to_string();
        failure
    }

    /// Puts what was being done in front of the message.
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

    /// What to do next, one hint a line; empty where nothing is known.
    #[must_use]
    pub fn hint_text(&self) -> String {
        self.hints.join("\n")
    }

    /// A failed write to stdout. Where the reader has left, this ends with SIGPIPE and reports nothing.
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

    /// Prints the message, its causes and the hints. Returns the exit code.
    pub fn report(&self) -> Exit {
        if !self.message.is_empty() {
            let causes = self.causes().join("\n");
            tracing::error!(
                hints = self.hint_text(),
                help = self.help,
                causes,
                "{}",
                self.message
            );
        }
        self.exit
    }

    /// The causes from the nearest to the root, without those that repeat the one before.
    fn causes(&self) -> Vec<String> {
        let first = self
            .source
            .as_deref()
            .map(|source| source as &dyn std::error::Error);
        let mut causes: Vec<String> = std::iter::successors(first, |error| error.source())
            .map(|error| one_line(&error.to_string()))
            .collect();
        causes.dedup_by(|inner, outer| outer.contains(inner.as_str()));
        causes
    }
}

/// Hints and causes are a line each. A server's text has no line of its own there.
fn one_line(text: &str) -> String {
    text.trim_end().replace('\n', " ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    fn chain(texts: &[&'static str]) -> Layer {
        let mut layers = texts.iter().rev();
        let innermost = Layer(layers.next().unwrap(), None);
        layers.fold(innermost, |inner, text| Layer(text, Some(Box::new(inner))))
    }

    #[test]
    fn causes_are_listed_from_the_nearest_to_the_root() {
        let failure = CommandError::new(Exit::Failed, "what failed");
        assert!(failure.causes().is_empty());
        let failure = failure.with_source(chain(&["connect", "TCP", "refused"]));
        assert_eq!(failure.causes(), ["connect", "TCP", "refused"]);
    }

    #[test]
    fn cause_that_repeats_the_one_before_is_left_out() {
        let failure = CommandError::new(Exit::Failed, "what failed");
        let failure = failure.with_source(chain(&["TCP: refused", "refused", "errno 111"]));
        assert_eq!(failure.causes(), ["TCP: refused", "errno 111"]);
    }

    #[test]
    fn hints_and_causes_are_a_line_each() {
        let failure = CommandError::usage("no").hint("a\nb").also("c\n");
        assert_eq!(failure.hint_text(), "a b\nc");
        let failure = failure.with_source(chain(&["d\nhint: e"]));
        assert_eq!(failure.causes(), ["d hint: e"]);
    }

    #[test]
    fn context_comes_first_and_keeps_code_hint_and_causes() {
        let failure = CommandError::new(Exit::BadData, "line 3")
            .hint("do this")
            .with_source(chain(&["root"]))
            .context("cannot read it");
        assert_eq!(failure.message(), "cannot read it: line 3");
        assert_eq!(
            (failure.exit, &*failure.hint_text()),
            (Exit::BadData, "do this")
        );
        assert_eq!(failure.causes(), ["root"]);
        assert_eq!(failure.with_exit(Exit::TryAgain).exit, Exit::TryAgain);
    }

    #[test]
    fn first_hint_remains_and_others_come_below_it() {
        let failure = CommandError::usage("no").hint("first").hint("second");
        assert_eq!(
            (failure.exit, &*failure.hint_text()),
            (Exit::Usage, "first")
        );
        assert_eq!(failure.also("third").hint_text(), "first\nthird");
    }

    #[test]
    fn reader_that_left_is_a_signal_and_nothing_else() {
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CommandError::stdout(&broken).interruption(), Some(SIGPIPE));
        let dash = Path::new("-");
        assert_eq!(
            CommandError::writing(Some(dash), &broken).interruption(),
            Some(SIGPIPE)
        );
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let failure = CommandError::writing(Some(Path::new("out")), &full);
        assert_eq!((failure.exit, failure.interruption()), (Exit::Failed, None));
        assert!(failure.message().contains("out"), "{failure:?}");
        let named = CommandError::new(Exit::Signal(2), "still running");
        assert_eq!(named.interruption(), None);
    }

    #[test]
    fn messages_are_bounded() {
        let failure = CommandError::usage("x".repeat(1 << 20)).context("y".repeat(1 << 20));
        assert!(failure.message().len() <= MESSAGE_BYTES);
    }

    #[test]
    fn help_of_a_program_is_shown_where_nothing_is_to_be_read() {
        let failure = CommandError::terminal("usage: ...");
        assert_eq!((failure.exit, &*failure.help), (Exit::Usage, "usage: ..."));
    }
}
