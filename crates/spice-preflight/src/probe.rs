//! Makes calls that cannot change anything, and notes how they end.
//!
//! | module | holds |
//! |---|---|
//! | [`end`] | everything that is looked at of one end, in order |
//! | [`rights`] | one harmless call of each kind |
//! | [`sample`] | a bounded export |
//! | [`watch`] | a Watch, opened and left; with `--mark` until a marker comes |
//! | [`schema`] | whether the target takes the source's schema |

pub(crate) mod end;
pub(crate) mod rights;
pub(crate) mod sample;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::future::Future;
use std::time::Duration;

use authzed::{Client, Error, Kind};
use spice_cli::exit::hints;
use tokio::time::{Instant, timeout_at};

use crate::facts::Failure;

/// A definition that no schema has.
const NOTHING: &str = "preflight/nothing";

/// A server, and how long it may take.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) client: Client,
    /// For one call.
    pub(crate) patience: Duration,
    /// For all of them.
    pub(crate) deadline: Instant,
}

impl Probe {
    /// When a call that begins now has to have ended.
    pub(crate) fn until(&self) -> Instant {
        self.deadline.min(Instant::now() + self.patience)
    }

    /// The result of a call. One that takes too long is given up: none of these calls can be applied.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match timeout_at(self.until(), call).await {
            Ok(result) => result.map_err(|error| failure_of(&error)),
            Err(_) => Err(no_answer()),
        }
    }
}

fn no_answer() -> Failure {
    Failure {
        kind: Kind::Deadline,
        code: None,
        message: "no answer in time".to_owned(),
        hint: "raise request-timeout in the context, and --timeout; or run the same command again"
            .to_owned(),
        limit: None,
        passes: true,
        is_other_key: false,
    }
}

/// What is to be known of an error.
pub(crate) fn failure_of(error: &Error) -> Failure {
    let mut message = error.message().to_owned();
    if let Some(source) = std::error::Error::source(error) {
        message = format!("{message}: {source}");
    }
    Failure {
        kind: error.kind(),
        code: error.code(),
        message,
        hint: hints::for_error(error).unwrap_or_default().into_owned(),
        limit: error.limit(),
        passes: error.is_transient(),
        is_other_key: error.is_other_key(),
    }
}
