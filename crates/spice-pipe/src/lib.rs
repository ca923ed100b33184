//! What the `spice-*` programs share.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | the life of a program: flags, runtime, signals, the last message, the exit code |
//! | [`exit`] | the exit codes, and which error means which: the only such place |
//! | [`connection`] | `--context`, `--endpoint`, ... and what they mean together |
//! | [`contexts`] | the contexts file and the `SPICE_*` environment |
//! | [`schema`] | whether a server's schema is a given text |
//! | [`settle`] | `--settle`: when a revision may be trusted |
//! | [`stdio`] | stdin, stdout and files as streams, zstd |
//! | [`retry`] | the one policy of trying again |
//! | [`shutdown`] | SIGINT and SIGTERM |
//! | [`progress`] | how far: a bar on a terminal, else a line every ten seconds |
//! | [`log`] | stderr: one line an event |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod connection;
pub mod contexts;
pub mod exit;
pub mod log;
pub mod progress;
pub mod retry;
pub mod run;
pub mod schema;
pub mod settle;
pub mod shutdown;
pub mod stdio;

pub use connection::{Connection, ConnectionArgs};
pub use exit::{Exit, Failure};
pub use run::{Program, main};
pub use shutdown::Shutdown;

/// Version and commit, for `--version` and for the `producer` of a stream.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("SPICE_PIPES_COMMIT"));

/// Takes a zedtoken as it is, unless it plainly is none: an empty variable, or another text.
///
/// # Errors
///
/// What was wrong with it, for the usage message.
pub fn parse_zedtoken(text: &str) -> Result<String, String> {
    use authzed::zedtoken::{DecodeError, decode};

    match decode(text) {
        // A server may be newer than this program.
        Err(DecodeError::NoRevision) if !text.is_empty() => Ok(text.to_owned()),
        Err(_) => Err("expected a zedtoken, as spice-revision prints it".to_owned()),
        Ok(_) => Ok(text.to_owned()),
    }
}

/// Parses a duration such as `35s`, `500ms` or `1m30s`.
///
/// # Errors
///
/// What was wrong with it, for the usage message.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("expected a duration such as 35s or 1m30s, got {text:?}"))?;
    parsed
        .try_into()
        .map_err(|_| format!("a duration cannot be negative: {text:?}"))
}
