//! The exit codes, and which error ends in which: the only place that decides it.

pub mod hints;

use std::process::ExitCode;

use authzed::Kind;
use spice_record::ReadError;

/// How a program ends. The codes are part of the interface; the table is in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything read was written and acknowledged.
    Done,
    /// 1: a server or I/O failed.
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

/// The codes for `--help` and the man pages: a heading, then a code and its meaning a line.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   Done: everything read was written and acknowledged
  1   Failed: a server or the operating system returned an error
  2   Usage
  3   Finished, with relationships refused or skipped; or different; or warnings
  4   History lost: the source no longer has this revision
  65  Bad data: malformed, truncated, altered
  75  Try again: unavailable, retries spent
  77  Denied: token, TLS, permission, read-only server
";

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

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Config => Self::Usage,
            Kind::Unreachable
            | Kind::Unavailable
            | Kind::Conflict
            | Kind::Overloaded
            | Kind::TooSlow
            | Kind::Deadline
            | Kind::StreamTimeout => Self::TryAgain,
            Kind::Tls | Kind::Unauthenticated | Kind::Denied | Kind::ReadOnly => Self::Denied,
            Kind::HistoryLost => Self::HistoryLost,
            _ => Self::Failed,
        }
    }
}

impl From<&ReadError> for Exit {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Io { .. } => Self::Failed,
            _ => Self::BadData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_readme() {
        for (exit, number) in [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Partial, 3),
            (Exit::HistoryLost, 4),
            (Exit::BadData, 65),
            (Exit::TryAgain, 75),
            (Exit::Denied, 77),
            (Exit::Signal(15), 143),
            (Exit::Signal(-1), 128),
        ] {
            assert_eq!(exit.number(), number, "{exit:?}");
        }
    }

    #[test]
    fn help_lists_every_code_once() {
        let listed = EXIT_CODES.lines().skip(1);
        let codes = listed.map(|line| line.split_whitespace().next().unwrap_or_default());
        let codes: Vec<u8> = codes.map(|code| code.parse().unwrap()).collect();
        let exits = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::HistoryLost,
            Exit::BadData,
            Exit::TryAgain,
            Exit::Denied,
        ];
        assert_eq!(codes, exits.map(Exit::number));
    }

    #[test]
    fn kinds_of_errors_have_their_codes() {
        for (kind, exit) in [
            (Kind::Config, Exit::Usage),
            (Kind::Unreachable, Exit::TryAgain),
            (Kind::StreamTimeout, Exit::TryAgain),
            (Kind::Tls, Exit::Denied),
            (Kind::ReadOnly, Exit::Denied),
            (Kind::HistoryLost, Exit::HistoryLost),
            (Kind::ForeignDatastore, Exit::Failed),
            (Kind::ChangeBufferExceeded, Exit::Failed),
            (Kind::Internal, Exit::Failed),
        ] {
            assert_eq!(Exit::from(kind), exit, "{kind:?}");
        }
    }
}
