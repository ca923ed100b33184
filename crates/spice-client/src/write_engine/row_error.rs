//! Is it the row's fault, or the server's?

use std::sync::Mutex;
use std::time::Duration;

use authzed::{Error, Kind};
use spice_cli::lock;
use tokio::time::Instant;

use crate::server::Server;

/// How often an internal error is blamed on the server before it is blamed on the rows: for 6 to 12 s, by the
/// pauses between the attempts. With fewer retries it never is.
const RETRIES: usize = 6;
/// How often once other rows were blamed, and no such error has passed since.
const RETRIES_AFTER_BLAME: usize = 2;
/// For so long.
const BLAMED: Duration = Duration::from_secs(60);

/// When rows were last blamed for an internal error.
#[derive(Debug, Default)]
pub(super) struct InternalErrors(Mutex<Option<Instant>>);

impl InternalErrors {
    /// How often they are blamed on the server.
    fn retries(&self) -> usize {
        match *lock(&self.0) {
            Some(blamed) if blamed.elapsed() < BLAMED => RETRIES_AFTER_BLAME,
            _ => RETRIES,
        }
    }

    fn blame(&self) {
        *lock(&self.0) = Some(Instant::now());
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
    is_impatient: bool,
}

impl<'a> RowErrorTest<'a> {
    /// `is_impatient`: blame an internal error on the rows at once, if the server takes a marker.
    pub(super) fn new(errors: &'a InternalErrors, is_impatient: bool) -> Self {
        Self {
            errors,
            failed: 0,
            is_impatient,
        }
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
                self.failed = 0;
                false
            }
            Kind::Internal if self.is_impatient => true,
            Kind::Internal => {
                self.failed += 1;
                let is_blamed = self.failed > self.errors.retries();
                if is_blamed {
                    self.errors.blame();
                }
                is_blamed
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
