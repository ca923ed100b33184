//! Is it the row's fault, or the server's?

use std::sync::Mutex;
use std::time::Duration;

use authzed::{Error, Kind};
use spice_cli::lock;
use tokio::time::Instant;

use crate::server::Server;

/// How often an internal error is blamed on the server before it is blamed on the rows: for 6 to 12 s, by the
/// pauses between the attempts.
const RETRIES: usize = 6;
/// How often once they have lasted for so long: then it is no database that is restarting.
const RETRIES_OF_LASTING: usize = 2;
const LASTING: Duration = Duration::from_secs(5);
/// Errors that are further apart say nothing about each other.
const APART: Duration = Duration::from_secs(60);

/// The internal errors of a server that takes markers beside them.
#[derive(Debug, Default)]
pub(super) struct InternalErrors(Mutex<Option<Lasting>>);

#[derive(Clone, Copy, Debug)]
struct Lasting {
    since: Instant,
    last: Instant,
}

impl InternalErrors {
    /// Another one. Returns for how long they have come.
    fn note(&self) -> Duration {
        let (mut lasting, now) = (lock(&self.0), Instant::now());
        let since = match *lasting {
            Some(lasting) if now - lasting.last <= APART => lasting.since,
            _ => now,
        };
        *lasting = Some(Lasting { since, last: now });
        now - since
    }

    /// One of them was the server's.
    fn forget(&self) {
        *lock(&self.0) = None;
    }
}

/// Distinguishes an error of the rows of a call from one that may pass. One for each sequence of
/// attempts at the same rows.
#[derive(Debug)]
pub struct RowErrorTest<'a> {
    errors: &'a InternalErrors,
    /// How many attempts ended with one.
    failed: usize,
    retries: usize,
}

impl<'a> RowErrorTest<'a> {
    /// `max_retries`: how often the caller repeats a call.
    pub(super) fn new(errors: &'a InternalErrors, max_retries: usize) -> Self {
        Self {
            errors,
            failed: 0,
            retries: RETRIES.min(max_retries),
        }
    }

    /// Blames an internal error on the rows at once, if the server takes a marker. For rows
    /// among which a refused one is being searched: each repetition would cost a delay.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { retries: 0, ..self }
    }

    /// Whether another attempt is in vain because of what the rows hold.
    ///
    /// An internal error is how a server reports a value that its database cannot hold (U+0000 on
    /// PostgreSQL), and also a session that its database has ended, or a database that is restarting
    /// (measured, SpiceDB v1.56). It is blamed on the rows only if the database takes an empty write all the
    /// same, again and again: sessions that ended three times within 0.5 s, each time under the same row, were
    /// seen.
    pub async fn is_row_error<S: Server>(&mut self, server: &S, error: &Error) -> bool {
        match error.kind() {
            Kind::Refused | Kind::MessageTooLarge | Kind::LimitExceeded | Kind::AlreadyExists => {
                true
            }
            Kind::Internal if server.write_marker().await.is_err() => {
                self.errors.forget();
                false
            }
            Kind::Internal => {
                let retries = match self.errors.note() >= LASTING {
                    true => self.retries.min(RETRIES_OF_LASTING),
                    false => self.retries,
                };
                self.failed += 1;
                self.failed > retries
            }
            _ => false,
        }
    }

    /// The rows are written: if there was an internal error before, it was none of theirs.
    pub fn succeeded(&self) {
        if self.failed > 0 {
            self.errors.forget();
        }
    }
}
