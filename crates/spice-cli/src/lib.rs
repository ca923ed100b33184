//! The life of a `spice-*` program, and its flags. No server is called here.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | the life of a program: flags, runtime, signals, the last message, the exit code |
//! | [`exit`] | the exit codes, and which error ends in which: the only such place |
//! | [`error`] | the error that ends a program: message, hints, causes |
//! | [`exit::hints`] | the hints about flags, by the cause of an error |
//! | [`connection`] | `--context`, `--endpoint`, ...: the settings of one connection, checked |
//! | [`settings`] | flags, the contexts file and the `SPICE_*` environment, and which comes first |
//! | [`mod@zed`] | the contexts that zed has stored |
//! | [`mod@proxy`] | the proxy of a connection: `--proxy`, `HTTPS_PROXY`, `NO_PROXY` |
//! | [`token_command`] | the command that prints the preshared key |
//! | [`compare`] | `--as-of`, `--expiry-precision`: which relationships are compared, and how closely |
//! | [`mod@filter`] | `--type`, `--resource-prefix`: which relationships are read |
//! | [`values`] | sizes, durations and zedtokens as flags take them |
//! | [`stdio`] | stdin, stdout and files as streams |
//! | [`resumable`] | a file that several runs write, one after the other |
//! | [`compression`], [`mod@zstd`], [`gzip`] | streams that are compressed: input recognised, output chosen |
//! | [`byte_channel`] | a channel between two tasks that is bounded in bytes |
//! | [`shutdown`] | SIGINT, SIGTERM, SIGHUP, SIGUSR1, and a reader of stdout that leaves |
//! | [`cleanup`] | what must not outlive the process |
//! | [`files`] | which links are followed, what others may read or write |
//! | [`display`] | text that people read: escaped and bounded |
//! | [`mod@quote`] | words of commands in hints, as a shell reads them back |
//! | [`progress`] | progress: a bar on a terminal, else a line every ten seconds |
//! | [`log`] | stderr: one line an event |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod byte_channel;
pub mod cleanup;
pub mod compare;
pub mod compression;
pub mod connection;
pub mod display;
pub mod error;
pub mod exit;
pub mod files;
pub mod filter;
pub mod fsync;
pub mod gzip;
pub mod log;
pub mod progress;
mod proxy;
pub mod quote;
pub mod resumable;
pub mod run;
pub mod settings;
pub mod shutdown;
pub mod stdio;
mod token_command;
pub mod values;
mod zed;
pub mod zstd;

pub use connection::{Connection, ConnectionArgs};
pub use error::CommandError;
pub use exit::{EXIT_CODES, Exit};
pub use run::{Program, Stdout, main};
pub use shutdown::Shutdown;

/// Version and commit, for `--version` and for the `producer` of a stream.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("SPICE_PIPES_COMMIT"));

/// Locks a mutex whose content no panic leaves half changed: counts, files, maps that are replaced
/// entry by entry.
pub fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
