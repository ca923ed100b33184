//! Is it the row's fault, or the server's?

use authzed::{Error, Kind};

use crate::server::Server;

/// How often an internal error is blamed on the server before it is blamed on the rows.
const INTERNAL_RETRIES: usize = 2;

/// Distinguishes an error of the rows of a call from one that may pass. One for each sequence of
/// attempts at the same rows.
#[derive(Debug)]
pub struct RowErrorTest {
    internal_retries: usize,
}

impl Default for RowErrorTest {
    fn default() -> Self {
        Self {
            internal_retries: INTERNAL_RETRIES,
        }
    }
}

impl RowErrorTest {
    /// One that blames an internal error on the rows at once, if the server takes a marker. For rows
    /// among which a refused one is being searched: each repetition would cost a delay.
    #[must_use]
    pub fn impatient() -> Self {
        Self {
            internal_retries: 0,
        }
    }

    /// Whether another attempt is in vain because of what the rows hold.
    ///
    /// An internal error is how a server reports a value that its database cannot hold (U+0000 on
    /// PostgreSQL), and also a database that is restarting (measured, SpiceDB v1.56). It is blamed on
    /// the rows only if the database takes an empty write all the same, again and again.
    pub async fn is_row_error<S: Server>(&mut self, server: &S, error: &Error) -> bool {
        match error.kind() {
            Kind::Refused | Kind::MessageTooLarge | Kind::LimitExceeded | Kind::AlreadyExists => {
                true
            }
            Kind::Internal if server.write_marker().await.is_err() => false,
            Kind::Internal if self.internal_retries == 0 => true,
            Kind::Internal => {
                self.internal_retries -= 1;
                false
            }
            _ => false,
        }
    }
}
