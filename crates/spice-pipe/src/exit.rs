//! The exit codes, and which error means which: the only place that decides it.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use authzed::Kind;
use spice_record::ReadError;

use crate::display::{MESSAGE_BYTES, bounded};
use crate::shutdown::SIGPIPE;

/// How a program ends. The codes are part of the interface; the table is in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything read was written and acknowledged.
    Done,
    /// 1: server or I/O said no.
    Failed,
    /// 2: the command line, the environment or the contexts file makes no sense.
    Usage,
    /// 3: finished, with relationships refused or skipped.
    Partial,
    /// 4: the source no longer has this revision, or the changes after it.
    HistoryLost,
    /// 65: malformed, truncated or altered input.
    BadData,
    /// 75: unavailable; the same command can be run again.
    TryAgain,
    /// 77: token, TLS, permission or a read-only server.
    Denied,
    /// Killed by this signal, after what could be saved was saved.
    Signal(i32),
}

impl Exit {
    /// The code; for a signal the one that shells use, should raising it fail.
    #[must_use]
    pub fn code(self) -> ExitCode {
        ExitCode::from(self.number())
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::HistoryLost => 4,
            Self::BadData => 65,
            Self::TryAgain => 75,
            Self::Denied => 77,
            Self::Signal(number) => 128 + u8::try_from(number).unwrap_or(0),
        }
    }
}

/// Why a program ends other than well: what happened, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    message: String,
    hint: String,
    help: String,
}

impl Failure {
    /// A failure with a message that fits behind `program: error: `.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            exit,
            message: bounded(MESSAGE_BYTES, format_args!("{message}")),
            hint: String::new(),
            help: String::new(),
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

    /// Prints the message and the hint.
    pub fn report(&self) {
        if !self.message.is_empty() {
            tracing::error!(hint = self.hint, help = self.help, "{}", self.message);
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let exit = match error {
            ReadError::Io { .. } => Exit::Failed,
            _ => Exit::BadData,
        };
        // It may quote a line, which may be long.
        Self::new(exit, bounded(MESSAGE_BYTES, format_args!("{error}")))
    }
}

impl From<authzed::Error> for Failure {
    fn from(error: authzed::Error) -> Self {
        let (exit, hint) = meaning(error.kind());
        let failure = Self::new(exit, error.to_string());
        // The one call, not the key: the key was good for the first contact.
        let is_one_right =
            error.kind() == Kind::Denied && !error.message().contains("preshared key");
        match error.hint().or(hint.filter(|_| !is_one_right)) {
            Some(hint) => failure.hint(hint),
            None if is_one_right => failure.hint(missing_right(error.rpc())),
            None => failure,
        }
    }
}

/// What a token lacks with which a server does not take one call.
fn missing_right(rpc: &str) -> String {
    let right = match rpc {
        "ReadSchema"
        | "ReflectSchema"
        | "DiffSchema"
        | "ExperimentalReflectSchema"
        | "ExperimentalDiffSchema" => "to read the schema",
        "WriteSchema" => "to write the schema",
        "ExportBulkRelationships" | "BulkExportRelationships" | "ReadRelationships" => {
            "to read relationships"
        }
        "ImportBulkRelationships" | "BulkImportRelationships" | "WriteRelationships" => {
            "to write relationships"
        }
        "Watch" => "to watch changes",
        "CheckBulkPermissions" => "to check permissions",
        _ => "to make this call",
    };
    format!(
        "the server knows this token, but does not allow it {right}: give it the right to call {rpc}, or \
         use a token that has it"
    )
}

/// The code of a kind of error, and the way on where it is always the same.
fn meaning(kind: Kind) -> (Exit, Option<&'static str>) {
    match kind {
        Kind::Config => (
            Exit::Usage,
            Some(
                "nothing was sent: see --endpoint HOST:PORT, --hostname-override HOST and the files of \
                 --certificate-path and --client-certificate-path, or their keys in the context",
            ),
        ),
        Kind::Unreachable => (
            Exit::TryAgain,
            Some("is the server running, and is --endpoint its gRPC address?"),
        ),
        Kind::Tls => (Exit::Denied, None),
        Kind::Unauthenticated => (
            Exit::Denied,
            Some("give the server's preshared key with --token-file"),
        ),
        Kind::Denied => (
            Exit::Denied,
            Some("the server knows another preshared key: check --token-file"),
        ),
        Kind::ReadOnly => (
            Exit::Denied,
            Some("the server takes no writes: it, or its database, was made read-only"),
        ),
        Kind::HistoryLost => (
            Exit::HistoryLost,
            Some(
                "the revision has left the server's history (--datastore-gc-window), or never was in \
                 it: take a new snapshot",
            ),
        ),
        Kind::ForeignDatastore => (
            Exit::Failed,
            Some(
                "this zedtoken belongs to another datastore: a revision is good only where it was made",
            ),
        ),
        Kind::NoSchema => (
            Exit::Failed,
            Some("the server has no schema, so it holds nothing"),
        ),
        Kind::Unavailable | Kind::Conflict | Kind::Overloaded | Kind::TooSlow | Kind::Deadline => (
            Exit::TryAgain,
            Some("run the same command again when the server answers"),
        ),
        Kind::StreamTimeout => (
            Exit::TryAgain,
            Some("raise --streaming-api-response-delay-timeout on the target's SpiceDB"),
        ),
        Kind::ChangeBufferExceeded => (
            Exit::Failed,
            Some("raise --datastore-watch-change-buffer-maximum-size on the source's SpiceDB"),
        ),
        Kind::AnswerTooLarge => (
            Exit::Failed,
            Some(
                "with spice-watch raise --max-memory; docs/design.md, Limits, has the other bounds",
            ),
        ),
        Kind::MessageTooLarge => (Exit::Failed, Some("a server takes no request above 4 MiB")),
        _ => (Exit::Failed, None),
    }
}
