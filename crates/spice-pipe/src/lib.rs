//! What the `spice-*` programs share.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | the life of a program: flags, runtime, signals, the last message, the exit code |
//! | [`exit`] | the exit codes, and which error means which: the only such place |
//! | [`connection`] | `--context`, `--endpoint`, ... and what they mean together |
//! | [`contexts`] | the contexts file and the `SPICE_*` environment |
//! | [`compare`] | `--as-of`, `--expiry-precision`: which relationships are compared, and how closely |
//! | [`existing`] | what a server holds of given relationships |
//! | [`schema`] | whether a server's schema is a given text |
//! | [`keeps`] | how much of an expiry a datastore keeps |
//! | [`settle`] | `--settle`: when a revision may be trusted |
//! | [`spool`] | a change stream on disk: one appends, another follows |
//! | [`position`] | how far a change stream was applied, on disk |
//! | [`token`] | the zedtoken in any file of the suite |
//! | [`budget`] | how much may wait between two tasks, in bytes |
//! | [`stdio`] | stdin, stdout and files as streams, zstd |
//! | [`retry`] | the one policy of trying again |
//! | [`shutdown`] | SIGINT, SIGTERM, SIGUSR1 |
//! | [`progress`] | how far: a bar on a terminal, else a line every ten seconds |
//! | [`log`] | stderr: one line an event |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod budget;
pub mod compare;
pub mod connection;
pub mod contexts;
pub mod existing;
pub mod exit;
pub mod keeps;
pub mod log;
pub mod position;
pub mod progress;
pub mod retry;
pub mod run;
pub mod schema;
pub mod settle;
pub mod shutdown;
pub mod spool;
pub mod stdio;
pub mod token;

pub use connection::{Connection, ConnectionArgs};
pub use exit::{Exit, Failure};
pub use run::{Program, main};
pub use shutdown::Shutdown;

/// Version and commit, for `--version` and for the `producer` of a stream.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("SPICE_PIPES_COMMIT"));

/// Locks what no panic leaves half changed: counts, files, maps that are replaced entry by entry.
pub fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

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

/// Parses a size such as `64MiB`, `500k` or a number of bytes.
///
/// # Errors
///
/// What was wrong with it, for the usage message.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("expected a size such as 256MiB, got {text:?}"))
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
